"""Which samples no plan holds: from columns, against asking about every sample."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dhp._core import Batch
from dhp.data.indexing import shapes
from dhp.data.indexing.index_file import open_index
from dhp.data.indexing.sample_list import Samples
from made_index import write_made_index


def samples_of(folder: Path, lengths: np.ndarray) -> Samples:
    names = ("tokens", "patches", "frame_patches")
    rows = [dict(zip(names, row, strict=True)) | {"id": 3 * i + 1} for i, row in enumerate(lengths.tolist())]
    return Samples(open_index(write_made_index(folder / "i", rows), lambda: None), folder)


def odd(tokens: int, patches: int, frame_patches: int) -> bool:
    """A rule under which a sample can fit that is longer in everything than one that does not."""
    return (tokens * 7 + patches * 3 + frame_patches) % 5 == 0 or tokens > 30


@pytest.mark.parametrize("block", [3, 64, 1 << 20])
@pytest.mark.parametrize("seed", range(4))
def test_as_if_every_sample_was_asked_about(
    tmp_path: Path, seed: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "_BLOCK", block)
    monkeypatch.setattr(shapes, "_MOST_ASKED", block)
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, [40, 6, 4], (200, 3))
    lengths[:, 1] += 4
    samples = samples_of(tmp_path, lengths)
    if seed % 2:
        samples = samples.without([1, 4, 7])
    asked: list[int] = []

    def infeasible(batch: Batch) -> list[Any]:
        asked.append(len(batch.sequences))
        wrong = [s for s in batch.sequences if odd(s.tokens, s.patches, s.frame_patches)]
        return [SimpleNamespace(reason=f"no {s.id}", sequence=s.id) for s in wrong]

    found = shapes.too_long(samples, infeasible)
    expected = [s.id for s in samples.sequences(range(len(samples))) if odd(s.tokens, s.patches, s.frame_patches)]
    assert found is not None and found.ids.tolist() == expected
    assert found.reasons == {i: f"no {i}" for i in expected[: shapes.NAMED]}
    distinct = len({tuple(row) for row in lengths[0 if seed % 2 == 0 else 3 :].tolist()})
    assert sum(asked) == distinct + shapes.NAMED, f"seed {seed}: each shape is asked about once"
    assert max(asked) <= max(block, shapes.NAMED)


def test_nothing_is_too_long_and_nothing_fits(tmp_path: Path) -> None:
    samples = samples_of(tmp_path, np.ones((3, 3), np.int64))
    assert shapes.too_long(samples, lambda batch: []) is None
    answer: Any = SimpleNamespace(reason="no rank is in service", sequence=None)
    nothing = shapes.too_long(samples, lambda batch: [answer])
    assert nothing is not None and nothing.whatever == "no rank is in service" and len(nothing.ids) == 0
