"""bench/peers_data.py: its samples, and that both sides count the same tokens."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from bench_script import load_bench
from dhp.data.indexing.index import build_index
from made_media import noise


@pytest.fixture(scope="module")
def data() -> ModuleType:
    return load_bench("peers_data")


@pytest.mark.parametrize("size", [(320, 240), (61, 97)])
def test_both_sides_count_the_same_tokens(
    data: ModuleType, mixed_data: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    checkpoint, file = mixed_data / "model", tmp_path / "p.png"
    Image.fromarray(noise(*size)).save(file)
    lines = data.Case("noise", "image", [file]).write(tmp_path / "data", 3)
    assert [path.name for path in sorted(lines.parent.glob("*.png"))] == ["0.png", "1.png", "2.png"]
    samples = build_index(lines, checkpoint).samples
    assert [sample.tokens for sample in samples] == [data.HuggingFace(checkpoint).tokens(file)] * 3
