"""`dhp index` beside Hugging Face's processor and a bare open: CPU ms a sample, until its tokens are counted.

    python -m dhp.demo build/demo && python bench/peers_data.py [--lines 300] [--peer-lines 12] [--rounds 3]

One sample is a question about a picture, and an answer. The picture is one of the demo, enlarged, in a file of its own
for every line. Sides:

    dhp index      what the command does, in this process: lines, headers, texts, tokens, the index on disk
    open           PIL.Image.open, for its size alone; of clips av.open and the stream's size
    HF processor   Qwen2VLImageProcessorPil (a release without torchvision has it) on the opened picture, chat template
                   and tokenizer: what a program runs that wants the length of a sample from its processor. Of clips its
                   loader alone, at two frames a second with PyAV: the video processor needs torchvision
    load index     what `dhp train` does instead, once there is an index

Tokens of both are compared. All run over --lines lines, the processor over --peer-lines. Sides take turns; CPU
seconds of all threads of this process, median (least to most) of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import av
from measure import in_turns, machine, over, process_seconds, span
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.video_utils import load_video

from dhp.data.indexing.index import build_index, load_index

PICTURE, CLIPS = "china.jpg", ["bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"]
QUESTION, ANSWER = "Describe what is shown.", "A temple in a park, seen from a lawn; hills and the sky lie behind it."
PAD = "<|image_pad|>"


@dataclass(frozen=True)
class Case:
    name: str
    kind: str  # image or video
    sources: list[Path]

    def write(self, folder: Path, lines: int) -> Path:
        """train.jsonl over as many files: links to the sources, in turn."""
        folder.mkdir()
        rows = []
        for number in range(lines):
            source = self.sources[number % len(self.sources)]
            file = folder / f"{number}{source.suffix}"
            os.link(source, file)
            messages = [
                {"role": "user", "content": f"<{self.kind}>{QUESTION}"},
                {"role": "assistant", "content": ANSWER},
            ]
            rows.append(json.dumps({"messages": messages, f"{self.kind}s": [str(file)]}))
        data = folder / "train.jsonl"
        data.write_text("\n".join(rows) + "\n")
        return data


def make_cases(media: Path, folder: Path) -> list[Case]:
    cases = []
    with Image.open(media / PICTURE) as opened:
        picture = opened.convert("RGB")
    for suffix, width, height in (("jpg", 320, 240), ("jpg", 1280, 720), ("jpg", 4000, 3000), ("png", 1280, 720)):
        file = folder / f"{width}x{height}.{suffix}"
        picture.resize((width, height), Image.Resampling.BICUBIC).save(
            file, **({"quality": 90} if suffix == "jpg" else {})
        )
        cases.append(Case(f"{'JPEG' if suffix == 'jpg' else 'PNG'} {width:,}×{height:,}", "image", [file]))
    clips = [Path(shutil.copy(media / name, folder)) for name in CLIPS]
    return [*cases, Case("clip (three of the demo)", "video", clips)]


class HuggingFace:
    """Token counts by Hugging Face's own pieces."""

    def __init__(self, model: Path) -> None:
        values: dict[str, Any] = json.loads((model / "preprocessor_config.json").read_text())
        self.pictures = Qwen2VLImageProcessorPil(
            **{k: v for k, v in values.items() if not k.endswith(("_type", "_class"))}
        )
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.merged = values["merge_size"] ** 2

    def tokens(self, file: Path) -> int:
        """Of a sample with this picture."""
        with Image.open(file) as picture:
            grid = self.pictures(images=[picture], return_tensors="pt")["image_grid_thw"][0]
        asked = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        answered = [{"type": "text", "text": ANSWER}]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        return len(self.tokenizer(text.replace(PAD, PAD * (int(grid.prod()) // self.merged)))["input_ids"])


def load_clip(file: Path) -> int:
    frames, _ = load_video(str(file), fps=2.0, backend="pyav")
    return len(frames)


def open_picture(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def open_clip(file: Path) -> tuple[int, int]:
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height


def ms_a_file(call: Callable[[Path], object], files: list[Path]) -> float:
    return 1000 * process_seconds(lambda: [call(file) for file in files]) / len(files)


def row_of(case: Case, model: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    picture = case.kind == "image"
    lines = options.lines if picture else max(20, options.lines // 10)  # more than dhp index remembers clips
    data = case.write(folder / f"data-{case.name.replace(' ', '-')}", lines)
    index = data.with_suffix(".index")
    peer = HuggingFace(model)
    files = sorted(data.parent.glob(f"*{case.sources[0].suffix}"))
    few = files[: options.peer_lines]

    def build() -> float:
        return 1000 * process_seconds(lambda: build_index(data, model, index, workers=options.workers)) / lines

    sides = {
        "dhp index": build,
        "open": partial(ms_a_file, open_picture if picture else open_clip, files),
        "HF processor": partial(ms_a_file, peer.tokens if picture else load_clip, few),
        "load index": lambda: 1000 * process_seconds(lambda: load_index(index, data, model)) / lines,
    }
    ms = in_turns(sides, options.rounds)
    tokens = load_index(index, data, model).samples[0].tokens
    if picture and tokens != peer.tokens(files[0]):
        sys.exit(f"peers_data: {case.name}: {tokens} tokens by dhp index, {peer.tokens(files[0])} by the processor")
    ratio = span(over(ms["HF processor"], ms["dhp index"]), ".3g")
    return [case.name, str(tokens), *(span(ms[name], ".3g") for name in sides), ratio]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("build/demo"), help="folder of python -m dhp.demo")
    parser.add_argument("--lines", type=int, default=300, help="of clips a tenth")
    parser.add_argument("--peer-lines", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="threads of dhp index; 0: one a core")
    options = parser.parse_args()
    if not (options.demo / "media").is_dir():
        parser.error(f"--demo {options.demo}: no folder media in it; make it with python -m dhp.demo {options.demo}")
    print(f"{machine()}; {options.lines} lines, {options.rounds} rounds: CPU ms a sample, median (least to most)\n")
    columns = ["case", "tokens", "dhp index", "open", "HF processor", "load index", "HF / dhp index"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for case in make_cases(options.demo / "media", Path(name)):
            print(f"| {' | '.join(row_of(case, options.demo / 'model', Path(name), options))} |", flush=True)


if __name__ == "__main__":
    main()
