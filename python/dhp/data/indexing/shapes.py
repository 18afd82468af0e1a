"""Which of many samples no plan holds, asked once for each shape that occurs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dhp._core import Batch, Infeasible
from dhp._core import Sequence as BatchSequence
from dhp.data.indexing.sample_list import Samples

Shapes = npt.NDArray[np.int64]  # [n, 3]: tokens, patches, patches of the largest frame
_SHAPE = ("tokens", "patches", "frame_patches")
_BLOCK = 1 << 20  # samples looked at together
_MOST_ASKED = 1 << 17  # shapes asked about together
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)  # odd, of no pattern
NAMED = 5


@dataclass(frozen=True)
class TooLong:
    """ids       of the samples that no plan holds, ascending
    reasons   by id, of the first few
    whatever  why no sample at all can be planned; then there are no ids"""

    ids: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    reasons: dict[int, str] = field(default_factory=dict)
    whatever: str = ""


def too_long(samples: Samples, infeasible: Callable[[Batch], list[Infeasible]]) -> TooLong | None:
    """The samples of which `infeasible` (dhp.infeasible_sequences for some cluster and options) says that no plan holds
    them; None where there are none. What it says of a sample follows from its shape alone, so each shape is asked
    about once. Exact, in the memory of the distinct shapes."""
    distinct = np.zeros((0, 3), np.int64)
    for block in _blocks(samples):
        distinct = _distinct(np.concatenate([distinct, _distinct(block)]))
    found = []
    for start in range(0, len(distinct), _MOST_ASKED):
        part = distinct[start : start + _MOST_ASKED]
        for answer in infeasible(Batch([BatchSequence(i, *shape) for i, shape in enumerate(part.tolist())])):
            if answer.sequence is None:
                return TooLong(whatever=answer.reason)
            found.append(start + answer.sequence)
    if not found:
        return None
    at = _where(samples, distinct[found])
    first = infeasible(Batch(samples.sequences(at[:NAMED])))
    return TooLong(samples.ids[at].astype(np.int64), {int(a.sequence or 0): a.reason for a in first})


def _blocks(samples: Samples) -> Iterator[Shapes]:
    columns = [samples.column(name) for name in _SHAPE]
    for start in range(0, len(samples), _BLOCK):
        yield np.stack([column[start : start + _BLOCK] for column in columns], axis=1).astype(np.int64)


def _where(samples: Samples, wrong: Shapes) -> npt.NDArray[np.int64]:
    """Positions of the samples of these shapes."""
    exactly, hashes, found = set(map(tuple, wrong.tolist())), _hash(wrong), [np.zeros(0, np.int64)]
    for number, block in enumerate(_blocks(samples)):
        likely = np.flatnonzero(np.isin(_hash(block), hashes))
        sure = [tuple(shape) in exactly for shape in block[likely].tolist()]
        found.append(number * _BLOCK + likely[np.array(sure, bool)])
    return np.concatenate(found)


def _hash(shapes: Shapes) -> npt.NDArray[np.uint64]:
    """A number that two shapes seldom share."""
    return (shapes.astype(np.uint64) * _FACTORS).sum(axis=1, dtype=np.uint64)


def _distinct(shapes: Shapes) -> Shapes:
    order = np.lexsort(shapes.T)
    ranked = shapes[order]
    new = np.ones(len(ranked), bool)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    return ranked[new]


__all__ = ["NAMED", "TooLong", "too_long"]
