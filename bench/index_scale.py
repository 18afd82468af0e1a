"""An index of ten million samples: how long it takes to open, what it costs in memory, how long a batch takes.

    python bench/index_scale.py [--samples 10000000] [--batch 1024] [--build 2000]

Makes an index of made-up lengths (log-normal tokens, every other sample with pictures), then, in a process of its own:

    open       until every column is checked, from the page cache; resident memory that the process has gained then, in
               bytes a sample (pages of the file, which all ranks of a machine share)
    fit        which samples no plan holds, asked of every shape that occurs (dhp.infeasible_sequences)
    batch      a batch of --batch samples at steps all over 100 epochs, CPU ms, median (least to most)
    record     a sample with its messages, CPU µs

Seconds are of CPU time. With --build N: `dhp index` over N pictures of 1280×720 and N/10 clips of 10 s, each in a file
of its own, by one process and by two, extrapolated to a million pictures and 100,000 clips; seconds of a clock.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import av
import numpy as np
from measure import machine, span, thread_seconds
from PIL import Image

from dhp._core import infeasible_sequences, read_cluster, read_cost_model
from dhp.data.draws import Draws
from dhp.data.indexing import shapes
from dhp.data.indexing.index import Index, build_index
from dhp.data.indexing.index_file import COLUMNS, check_of, open_index, pieces
from dhp.data.indexing.sample_list import Samples
from dhp.data.sources import Source
from dhp.demo.checkpoint import make_tiny_checkpoint

RECORD = json.dumps(
    {"messages": [{"role": "user", "content": ["Describe it."]}, {"role": "assistant", "content": ["A lawn." * 20]}]}
).encode()


def make(file: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    patches = generator.integers(1, 4000, count) * 4 * generator.integers(0, 2, count)
    columns = {name: np.zeros(count, np.int64) for name in COLUMNS}
    columns["id"] += np.arange(1, count + 1)
    columns["tokens"] += np.clip(generator.lognormal(6, 1, count), 20, 100_000).astype(np.int64) + patches // 4
    columns["patches"] += patches
    columns["frame_patches"] += patches
    columns["label_tokens"] += 20
    columns["pictures"] += patches > 0
    columns["end"] += np.arange(1, count + 1) * len(RECORD)
    columns["check"] += check_of(RECORD)
    facts = {
        "ignored": {},
        "problems": {},
        "media_roots": [],
        "max_line_bytes": 1,
        "processor": "x",
        "data": {"sha256": ""},
    }
    block = RECORD * 10_000
    records = (block[: min(10_000, count - at) * len(RECORD)] for at in range(0, count, 10_000))
    with file.open("wb") as out:
        out.writelines(pieces(facts, columns, [], records))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def read(file: Path, batch: int) -> None:
    before, began = resident_bytes(), time.process_time()
    opened = open_index(file, lambda: None)
    seconds = time.process_time() - began
    samples = Samples(opened, file.parent)
    count = len(samples)
    gained = (resident_bytes() - before) / count
    print(f"open    {seconds:.2f} s, {gained:.0f} bytes a sample resident, file of {file.stat().st_size / 1e9:.1f} GB")
    draws = Draws((Source("made"),), [Index(file, file, samples, opened)])
    steps = [int(step) for step in np.linspace(0, 100 * (count // batch), 30)]
    ms = [1000 * thread_seconds(lambda step=step: draws.batch(step, batch, 7)) for step in steps]
    print(f"batch   of {batch:,}: {span(ms)} ms")
    us = [1e6 * thread_seconds(lambda at=at: samples[at]) for at in range(0, count, max(1, count // 50))]
    print(f"record  {span(us, '.0f')} µs")
    print(f"        {(resident_bytes() - before) / count:.0f} bytes a sample resident after that")
    cases = Path(__file__).parent / "cases"
    cluster = read_cluster(str(cases / "cluster_910b_8x8.json"))
    cost = read_cost_model(str(cases / "cost_qwen3-vl-2b.json"))
    began = time.process_time()
    found = shapes.too_long(samples, lambda some: infeasible_sequences(some, cluster, cost))
    left_out = len(found.ids) if found else 0
    print(f"fit     {time.process_time() - began:.1f} s, {left_out:,} samples too long")


def write_clip(file: Path) -> None:
    generator = np.random.default_rng(0)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        levels = generator.integers(0, 255, (240, 320, 3), dtype=np.uint8)
        for number in range(300):
            frame = av.VideoFrame.from_ndarray(np.roll(levels, number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_data(folder: Path, count: int) -> Path:
    levels = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "picture.jpg", quality=85)
    write_clip(folder / "clip.mp4")
    rows = []
    for number in range(count + count // 10):
        kind = "video" if number % 11 == 10 else "image"
        source = folder / ("clip.mp4" if kind == "video" else "picture.jpg")
        os.link(source, folder / f"{number}{source.suffix}")
        messages = [
            {"role": "user", "content": f"<{kind}>What is it?"},
            {"role": "assistant", "content": "A lawn. " * 20},
        ]
        rows.append(json.dumps({"messages": messages, f"{kind}s": [f"{number}{source.suffix}"]}) + "\n")
    data = folder / "data.jsonl"
    data.write_text("".join(rows))
    return data


def build(folder: Path, count: int) -> None:
    folder.mkdir()
    model = make_tiny_checkpoint(folder / "model")
    data = write_data(folder, count)
    for workers in (1, 2):
        data.with_suffix(".index").unlink(missing_ok=True)
        began = time.perf_counter()
        index = build_index(data, model, workers=workers)
        seconds = time.perf_counter() - began
        hours = seconds / count * 1e6 / 3600
        rate = len(index.samples) / seconds
        print(
            f"build   {workers} worker(s): {seconds:.0f} s, {rate:,.0f} samples/s; a million: {hours:.1f} h", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--build", type=int, default=0, metavar="N")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        return read(options.read, options.batch)
    print(f"{machine()}; {options.samples:,} samples", flush=True)
    with tempfile.TemporaryDirectory(dir=".") as name:
        if options.samples:
            file = Path(name) / "made.index"
            make(file, options.samples)
            command = [sys.executable, __file__, "--read", str(file), "--batch", str(options.batch)]
            subprocess.run(command, check=True)
            file.unlink()
        if options.build:
            build(Path(name) / "build", options.build)
    return None


if __name__ == "__main__":
    main()
