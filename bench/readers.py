"""Reading a rank's share of batches: in the rank's thread, by one and two processes, and from a warm cache of frames.

    python bench/readers.py [--pictures 24] [--clips 6] [--repeats 5]

Makes pictures of 1280×720 (JPEG) and clips of 640×360, 10 s (MPEG-4), and reads all of them as one batch, ways in turn:

    seconds    of a clock, from asking for the share until all its tensors are there
    own CPU    of the rank's process meanwhile, and with its processes (`all CPU`), in seconds
    beside     turns a second of a loop of small torch operations in the main thread, which stands for a training loop,
               while shares are read one after the other; and without reading

Files are in the page cache. `same` says whether all ways gave the same bits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
import zlib
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import av
import numpy as np
import torch
from measure import in_turns, machine, span
from PIL import Image

from dhp._core import Batch, Cluster, Link, Plan, read_cost_model, try_plan
from dhp.data.dataset import Dataset, Share
from dhp.demo.checkpoint import make_tiny_checkpoint

WAYS = {
    "no process": {"data_workers": 0},
    "1 process": {"data_workers": 1},
    "2 processes": {"data_workers": 2},
    "warm cache": {"data_workers": 0, "frame_cache": "cache"},
    "warm cache, 1 process": {"data_workers": 1, "frame_cache": "cache"},
}
CASES = Path(__file__).parent / "cases"
BESIDE_S = 2.0


def write_data(folder: Path, pictures: int, clips: int) -> Path:
    levels = np.random.default_rng(0).integers(0, 255, (45, 80, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(levels).resize((1280, 720), Image.Resampling.BICUBIC))
    small = np.asarray(Image.fromarray(levels).resize((640, 360), Image.Resampling.BICUBIC))
    rows = []
    for number in range(pictures):
        Image.fromarray(np.roll(large, 17 * number, axis=1)).save(folder / f"{number}.jpg", quality=90)
        rows.append(("image", f"{number}.jpg"))
    for number in range(clips):
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
            for at in range(250):
                frame = av.VideoFrame.from_ndarray(np.roll(small, 3 * at + 17 * number, axis=1), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        rows.append(("video", f"{number}.mp4"))
    data = folder / "data.jsonl"
    answer = {"role": "assistant", "content": "A lawn. " * 20}
    lines = [
        {"messages": [{"role": "user", "content": f"<{kind}>What is it?"}, answer], f"{kind}s": [name]}
        for kind, name in rows
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return data


def plan_of(batch: Batch) -> Plan:
    """For one rank, which reads all of it."""
    link = Link(bandwidth_bytes_per_s=2e9, latency_s=5e-5)
    cluster = Cluster(nodes=1, ranks_per_node=1, memory_bytes=6.4e10, intra_node=link, inter_node=link)
    plan = try_plan(batch, cluster, read_cost_model(str(CASES / "cost_qwen3-vl-2b.json")))
    assert isinstance(plan, Plan), plan
    return plan


def others_cpu() -> float:
    """CPU seconds of the processes that this one has started."""
    ticks = 0
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in file.read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def read(data: Dataset, plan: Plan, sums: set[int]) -> tuple[float, float, float]:
    """Seconds, CPU seconds of this process, and of all."""
    began, cpu, others = time.perf_counter(), time.process_time(), others_cpu()
    share: Share = data.read_ahead(plan, 0).result()
    own = time.process_time() - cpu
    times = time.perf_counter() - began, own, own + others_cpu() - others
    assert not share.failed
    sums.add(sum(zlib.crc32(one.pixels.numpy().data.cast("B")) for one in share.inputs.values()))
    return times


def beside(data: Dataset | None, plan: Plan) -> float:
    """Turns a second of the loop."""
    layers = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(20)])
    rows, turns = torch.randn(8, 64), 0
    share = data.read_ahead(plan, 0) if data else None
    began = time.perf_counter()
    while (seconds := time.perf_counter() - began) < BESIDE_S:
        layers(rows).sum().backward()
        turns += 1
        if data and share and share.done():
            share = data.read_ahead(plan, 0)
    if share:
        share.result()
    return turns / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()}; {options.pictures} pictures, {options.clips} clips", flush=True)
    with tempfile.TemporaryDirectory(dir=".") as name, contextlib.ExitStack() as ends:
        folder = Path(name)
        model = make_tiny_checkpoint(folder / "model")
        data = write_data(folder, options.pictures, options.clips)
        sets: dict[str, Dataset] = {}
        for way, settings in WAYS.items():
            cache = {"frame_cache": folder / "cache"} if "frame_cache" in settings else {}
            sets[way] = ends.enter_context(Dataset(data, model, **(settings | cache)))  # type: ignore[arg-type]
        plan = plan_of(sets["no process"].batch(0, len(sets["no process"])))
        sums: set[int] = set()
        sides = {way: lambda one=one: read(one, plan, sums) for way, one in sets.items()}
        times = in_turns(sides, options.repeats)
        turns = in_turns(
            {"nothing": lambda: beside(None, plan)}
            | {way: lambda one=one: beside(one, plan) for way, one in sets.items()},
            options.repeats,
            warm_up=0,
        )
        kept = sum(file.stat().st_size for file in (folder / "cache").glob("*/*"))
    print(f"{'':22} {'seconds':>22} {'own CPU':>22} {'all CPU':>22} {'turns beside':>22}")
    print(f"{'nothing':22} {'':22} {'':22} {'':22} {span(turns['nothing'], ',.0f'):>22}")
    for way, measured in times.items():
        columns = " ".join(f"{span(list(column)):>22}" for column in zip(*measured, strict=True))
        print(f"{way:22} {columns} {span(turns[way], ',.0f'):>22}")
    print(f"same: {len(sums) == 1}; the cache holds {kept / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
