"""The same samples in files of another kind: as an index of the rows PLAIN, which name files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dhp.data.decoding.media import PixelReader
from dhp.data.indexing.index import Index, build_index
from dhp.data.text import Encoder
from indexed_data import row, write

TURNS = row("<image>What is it?")["messages"]
CLIP_TURNS = row("<video>What moves?")["messages"]


def pixels(index: Index, folder: Path, sample: int, roots: Sequence[str] = ()) -> list[torch.Tensor]:
    """Of all media of a sample, read a unit at a time. `roots`: what may be read."""
    reader = PixelReader(Encoder(folder / "model", list(roots)).processor)
    media = index.samples[sample].media
    return [torch.cat([reader.read_units(m, unit, unit + 1) for unit in range(m.units)]) for m in media]


def check_same(index: Index, folder: Path, rows: list[dict[str, Any]], roots: Sequence[str] = ()) -> None:
    """As the index of these rows, which name files. `roots`: of the media of `index`."""
    plain = build_index(write(folder / "plain.jsonl", rows), folder / "model")
    for name in ("tokens", "patches", "frame_patches", "label_tokens"):
        assert getattr(index.samples, name).tolist() == getattr(plain.samples, name).tolist()
    for at in range(len(rows)):
        assert index.samples[at].messages == plain.samples[at].messages
        for ours, theirs in zip(pixels(index, folder, at, roots), pixels(plain, folder, at), strict=True):
            assert torch.equal(ours, theirs)


PLAIN = [
    row("<image>What is it?", images=["media/small.png"]),
    row("<video>What moves?", videos=["media/clip.mp4"]),
    row("<image>Which?<image>", images=["media/large.png", "media/small.png"]),
    row("No picture."),
]
