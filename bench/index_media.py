"""`dhp index` over pictures and clips: how long it takes, what it costs in memory, and others beside it.

    python bench/index_media.py [--pictures 10000] [--clips 1000] [--peer-lines 500] [--rounds 3]
                                [--llama-factory PYTHON]

Made by this script: JPEGs of 0.05 to 4 megapixels (log-uniform; one in ten a PNG) and H.264 clips of 2 to 60 s, each in
a file of its own; of the files, 300 and 20 are distinct, the others further names of them. Every sample is a question
about one of them and an answer.

    index      the command, with 1 and 2 processes, in turns, from its start to its end: seconds of CPU of all of its
               processes, and of a clock, which says little where others use the machine. Memory is the largest sum over
               its processes of the pages that are theirs (PSS). What the command takes for 20 samples, its start,
               is told apart; a million samples: CPU hours without it, over processes
    again      the same command once more: nothing has changed
    peers      until the lengths of --peer-lines of these samples are known, CPU ms a sample, in turns:
               dhp index in this process; Hugging Face's picture processor, chat template and tokenizer (of clips its
               loader alone: the video processor needs torchvision); with --llama-factory, an interpreter that has
               llamafactory, its SupervisedDatasetProcessor on the pictures (bench/llama_factory.py)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import av
import numpy as np
from measure import in_turns, machine, over, process_seconds, span
from peers_data import HuggingFace, load_clip
from PIL import Image

from dhp.data.indexing.index import build_index, load_index
from dhp.demo.checkpoint import make_tiny_checkpoint

DISTINCT = {"pictures": 300, "clips": 20}
FPS, SIZE = 25, (320, 240)
START = 20  # samples


def write_pictures(folder: Path, count: int) -> list[Path]:
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    whole = Image.fromarray(coarse).resize((2600, 1950), Image.Resampling.BICUBIC)
    files = []
    for number in range(count):
        pixels = np.exp(draw.uniform(np.log(5e4), np.log(4e6)))
        ratio = np.exp(draw.uniform(-0.6, 0.6))
        size = (min(2600, int((pixels * ratio) ** 0.5)), min(1950, int((pixels / ratio) ** 0.5)))
        at = [int(draw.integers(0, most - side + 1)) for most, side in zip(whole.size, size, strict=True)]
        file = folder / f"picture-{number}.{'png' if number % 10 == 9 else 'jpg'}"
        whole.crop((*at, at[0] + size[0], at[1] + size[1])).save(
            file, **({"quality": 85} if file.suffix == ".jpg" else {})
        )
        files.append(file)
    return files


def write_clips(folder: Path, count: int) -> list[Path]:
    draw = np.random.default_rng(1)
    levels = draw.integers(0, 256, (SIZE[1] // 16, SIZE[0] // 16, 3), dtype=np.uint8)
    frame = np.asarray(Image.fromarray(levels).resize(SIZE, Image.Resampling.BICUBIC))
    files = []
    for number in range(count):
        seconds = np.exp(draw.uniform(np.log(2), np.log(60)))
        files.append(folder / f"clip-{number}.mp4")
        with av.open(str(files[-1]), "w") as container:
            stream: Any = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for at in range(int(seconds * FPS)):
                moved = np.roll(frame, 3 * at, axis=1)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
            container.mux(stream.encode())
    return files


def write_data(folder: Path, pictures: int, clips: int) -> list[str]:
    """The lines, whose media lie in this folder; pictures and clips in turn, as often as their numbers say."""
    sources = folder / "distinct"
    sources.mkdir()
    made = {
        "image": write_pictures(sources, min(pictures, DISTINCT["pictures"])),
        "video": write_clips(sources, min(clips, DISTINCT["clips"])),
    }
    wanted = sorted(
        [((n + 0.5) / pictures, "image", n) for n in range(pictures)]
        + [((n + 0.5) / clips, "video", n) for n in range(clips)]
    )
    lines = []
    for _, kind, number in wanted:
        source = made[kind][number % len(made[kind])]
        name = f"{kind}-{number}{source.suffix}"
        os.link(source, folder / name)
        question = {"role": "user", "content": f"<{kind}>Describe what is shown."}
        answer = {"role": "assistant", "content": "A lawn, seen from a house; hills and the sky lie behind it. " * 3}
        lines.append(json.dumps({"messages": [question, answer], f"{kind}s": [name]}))
    return lines


def children_of(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def own_bytes(pid: int) -> int:
    """Of a process: its pages, those shared by n processes as an n-th."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


@dataclass(frozen=True)
class Run:
    """Of a command and its processes. bytes: the most that they have held together."""

    cpu_s: float
    clock_s: float
    bytes: int


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(command: list[str]) -> Run:
    began, before, most = time.perf_counter(), cpu_of_children(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, sum(map(own_bytes, children_of(process.pid))))
            time.sleep(0.5)
    if process.returncode:
        sys.exit(f"index_media: {' '.join(command)} ended with {process.returncode}")
    return Run(cpu_of_children() - before, time.perf_counter() - began, most)


def index(folder: Path, model: Path, lines: list[str], rounds: int) -> None:
    samples, few = len(lines), min(START, len(lines))
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "start.jsonl").write_text("\n".join(lines[:few]) + "\n")
    program = [str(Path(sys.executable).parent / "dhp-index"), "--model", str(model), "--output-format", "json"]
    found = folder / "data.index"

    def anew(name: str, workers: int) -> Run:
        (folder / f"{name}.index").unlink(missing_ok=True)
        return timed([*program, str(folder / f"{name}.jsonl"), "--workers", str(workers)])

    sides = {(name, workers): partial(anew, name, workers) for name in ("start", "data") for workers in (1, 2)}
    results = in_turns({f"{name} {workers}": side for (name, workers), side in sides.items()}, rounds, warm_up=0)
    for workers in (1, 2):
        start, runs = [run.cpu_s for run in results[f"start {workers}"]], results[f"data {workers}"]
        ms = [1000 * (run.cpu_s - one) / (samples - few) for run, one in zip(runs, start, strict=True)]
        print(
            f"index   {workers} worker(s): {span([run.cpu_s for run in runs], '.1f')} CPU s, {span(start, '.1f')} to "
            f"start; {span(ms)} ms a sample, {span([run.clock_s for run in runs], '.0f')} s of a clock, "
            f"{span([run.bytes / 1e9 for run in runs])} GB; a million: {span([m / 3.6 / workers for m in ms])} h",
            flush=True,
        )
    again = timed([*program, str(folder / "data.jsonl")])
    print(
        f"again   {again.cpu_s:.1f} CPU s, {again.clock_s:.0f} s of a clock; index of "
        f"{found.stat().st_size / samples:.0f} bytes a sample",
        flush=True,
    )


def peers(folder: Path, model: Path, lines: list[str], rounds: int, llama_factory: str) -> None:
    data = folder / "few.jsonl"
    data.write_text("\n".join(lines) + "\n")
    rows = [json.loads(line) for line in lines]
    pictures = [folder / row["images"][0] for row in rows if "images" in row]
    clips = [folder / row["videos"][0] for row in rows if "videos" in row]
    peer, target = HuggingFace(model), folder / "few.index"

    def ours() -> float:
        target.unlink(missing_ok=True)
        return 1000 * process_seconds(lambda: build_index(data, model, target, workers=1)) / len(lines)

    def theirs() -> float:
        def work() -> None:
            for file in pictures:
                peer.tokens(file)
            for file in clips:
                load_clip(file)

        return 1000 * process_seconds(work) / len(lines)

    def other() -> float:
        command = [llama_factory, str(Path(__file__).with_name("llama_factory.py")), str(model)]
        done = subprocess.run(command, input="\n".join(map(str, pictures)), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"index_media: {' '.join(command)}: {done.stderr[-500:]}")
        return 1000 * float(done.stdout.split()[-1]) / len(pictures)

    sides = {"dhp index": ours, "HF processor": theirs}
    ms = in_turns(sides | ({"LLaMA-Factory, pictures": other} if llama_factory else {}), rounds, warm_up=0)
    print(f"peers   {len(pictures)} pictures, {len(clips)} clips, {len(load_index(target).samples)} samples indexed")
    for name, values in ms.items():
        ratio = span(over(values, ms["dhp index"]), ".1f")
        print(f"        {name:24} {span(values, '.1f')} ms, {ratio} times dhp index", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--peer-lines", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-factory", default="", metavar="PYTHON")
    options = parser.parse_args()
    load = ", ".join(f"{load:.0f}" for load in os.getloadavg())
    print(f"{machine()}, load {load}; {options.pictures:,} pictures, {options.clips:,} clips", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_tiny_checkpoint(folder / "model")
        lines = write_data(folder, options.pictures, options.clips)
        size = sum(file.stat().st_size for file in folder.glob("*-*"))
        print(f"made    {size / 1e9:.1f} GB as their names count", flush=True)
        index(folder, model, lines, options.rounds)
        few = [
            lines[at] for at in np.linspace(0, len(lines) - 1, min(len(lines), options.peer_lines)).round().astype(int)
        ]
        peers(folder, model, few, options.rounds, options.llama_factory)
        shutil.rmtree(folder / "distinct")


if __name__ == "__main__":
    main()
