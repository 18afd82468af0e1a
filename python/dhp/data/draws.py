"""Which samples a step trains on: drawn from one file or several, a pure function of step, size and seed.

An epoch is shuffled by a keyed permutation (order.py), of which a batch is drawn without the rest. Without weights, all
files are shuffled as one, and an epoch's incomplete last batch is left out. With weights (sources.py), each file has
its own epochs, which follow each other without a gap.

A sample's id is its id in its file, plus the highest ids of the files before it: with one file, its line. Where a batch
holds a sample twice, as a small file with a large weight may have it, the second has another id that is the same
sample's: all ids of a batch differ.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from dhp._core import Batch, InputError
from dhp._core import Sequence as BatchSequence
from dhp.data.access.pieces import shown
from dhp.data.indexing.index import Index
from dhp.data.indexing.sample_list import Samples
from dhp.data.indexing.scan import Sample
from dhp.data.order import Rows, key_of, permuted
from dhp.data.sources import Source, pattern_of

_LENGTHS = ("id", "tokens", "patches", "frame_patches")


@dataclass(frozen=True)
class Part:
    """A data file's samples that can be drawn. `base`: added to their ids."""

    index: Index
    samples: Samples
    base: int


class Draws:
    """The samples of all files. Raises InputError where a file of a mixture has none."""

    def __init__(self, sources: tuple[Source, ...], indexes: Iterable[Index]) -> None:
        base, parts = 0, []
        for index in indexes:
            parts.append(Part(index, index.samples, base))
            base += int(index.file.columns["id"][-1])
        self.parts = tuple(parts)
        self.weights = tuple(source.weight for source in sources if source.weight is not None)
        self._span = base  # ids from 1 to this
        self._firsts = [part.base for part in parts]

    def __len__(self) -> int:
        return sum(len(part.samples) for part in self.parts)

    def leave_out(self, part: int, ids: Iterable[int]) -> None:
        """Takes samples of a file out, by their ids there. Raises InputError where one with a weight has none left."""
        before = self.parts[part]
        kept = before.samples.without(ids)
        if not kept and self.weights:
            raise InputError(
                f"{shown(str(before.index.data))}: no samples left, all are left out as too long; leave the file out"
            )
        self.parts = (*self.parts[:part], replace(before, samples=kept), *self.parts[part + 1 :])

    # ---- batches

    def steps_per_epoch(self, size: int) -> int:
        """Batches of an epoch; of a mixture with weights, of as many samples as all files have."""
        return len(self) // size

    def steps(self, size: int, epochs: float) -> int:
        """Steps of so many epochs, the last step begun where they end within it; at least 1."""
        return max(1, math.ceil(epochs * self.steps_per_epoch(size) - 1e-9))

    def batch(self, step: int, size: int, seed: int) -> Batch:
        per_epoch = self.steps_per_epoch(size)
        if per_epoch == 0:
            raise InputError(f"global_batch_size: found {size}, but the data has {len(self)} samples")
        if self.weights:
            part, row = self._weighted(np.arange(step * size, (step + 1) * size), seed)
        else:
            epoch, at = divmod(step, per_epoch)
            part, row = self._joined(np.arange(at * size, (at + 1) * size), key_of(seed, epoch))
        numbers = np.empty((len(_LENGTHS), size), np.int64)
        for i, one in enumerate(self.parts):
            of_part = np.flatnonzero(part == i)
            for column, name in zip(numbers, _LENGTHS, strict=True):
                column[of_part] = one.samples.numbers(name, row[of_part])
            numbers[0][of_part] += one.base
        numbers[0] = _made_unique(numbers[0], self._span)
        return Batch([BatchSequence(*lengths) for lengths in numbers.T.tolist()])

    def _joined(self, positions: Rows, key: int) -> tuple[Rows, Rows]:
        """The file and the row in it of these positions of an epoch of all files."""
        ends = np.cumsum([len(part.samples) for part in self.parts])
        rows = permuted(positions, int(ends[-1]), key)
        part = np.searchsorted(ends, rows, side="right")
        return part, rows - np.concatenate([[0], ends])[part]

    def _weighted(self, positions: Rows, seed: int) -> tuple[Rows, Rows]:
        """The same of these positions of the endless row of a mixture."""
        source, number = pattern_of(self.weights).at(positions)
        rows = np.empty(len(positions), np.int64)
        for i, part in enumerate(self.parts):
            epochs, places = np.divmod(number, len(part.samples))
            for epoch in np.unique(epochs[source == i]).tolist():
                here = (source == i) & (epochs == epoch)
                rows[here] = permuted(places[here], len(part.samples), key_of(seed, epoch, i))
        return source.astype(np.int64), rows

    # ---- samples

    def _place(self, sample_id: int) -> tuple[Part, int]:
        """The file of a sample, and its id there."""
        if sample_id < 1:
            raise KeyError(sample_id)
        number = (sample_id - 1) % self._span + 1
        part = self.parts[bisect.bisect_left(self._firsts, number) - 1]
        return part, number - part.base

    def sample(self, sample_id: int) -> Sample:
        """The sample with this id of a batch. Raises KeyError for an unknown id."""
        part, number = self._place(sample_id)
        try:
            return replace(part.index.sample(number), id=sample_id)
        except KeyError:
            raise KeyError(sample_id) from None

    def name(self, sample_id: int) -> str:
        """For messages: its number, and its file where there are several."""
        if len(self.parts) == 1:
            return f"sample {sample_id}"
        part, number = self._place(sample_id)
        return f"sample {number} of {shown(str(part.index.data))}"

    def label_tokens(self, ids: Iterable[int]) -> int:
        """Tokens with a loss of all of these."""
        total = 0
        for sample_id in ids:
            part, number = self._place(sample_id)
            total += part.index.samples.numbers("label_tokens", [part.index.samples.position(number)])[0]
        return total


def _made_unique(ids: Rows, span: int) -> Rows:
    """The second of an id, in order, becomes id + span, the third id + 2·span …"""
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    first = np.concatenate([[0], np.flatnonzero(np.diff(ranked)) + 1])
    sizes = np.diff(np.append(first, len(ids)))
    repeats = np.empty(len(ids), np.int64)
    repeats[order] = np.arange(len(ids)) - np.repeat(first, sizes)
    return ids + span * repeats


__all__ = ["Draws", "Part"]
