"""Data for tests of the index: rows of every kind, their media, and a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from made_media import write_clip
from tiny_run import make_tiny


def row(question: str, answer: str = "Yes, all of it.", **media: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        **media,
    }


ROWS = [
    row("How are you?"),
    row("<image>What is it?", images=["media/small.png"]),
    row("<image><image>Compare.", images=["media/small.png", {"image": "media/large.png", "max_pixels": 65536}]),
    row("<video>What moves?", videos=["media/clip.mp4"]),
    row("<video>And here?", videos=[{"video": "media/clip.mp4", "video_start": 1.0, "video_end": 2.5, "fps": 4.0}]),
    row("<video>A list.", videos=[["media/small.png"] * 3]),
    row("<image>then<video>then<image>", images=["media/large.png"] * 2, videos=["media/clip.mp4"]),
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def make(folder: Path) -> Path:
    """The folder, with data.jsonl, media/ and model/."""
    (folder / "media").mkdir()
    for name, size in (("small", (70, 50)), ("large", (500, 330))):
        levels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / "media" / f"{name}.png")
    write_clip(folder / "media" / "clip.mp4", 100)
    make_tiny(folder / "model")
    write(folder / "data.jsonl", ROWS)
    return folder
