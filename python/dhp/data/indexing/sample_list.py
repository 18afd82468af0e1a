"""The samples of an index as columns of numbers. What else a sample is, is read when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from dhp._core import Sequence as BatchSequence
from dhp.data.indexing.index_file import Column, IndexFile
from dhp.data.indexing.records import parts_of
from dhp.data.indexing.scan import Sample

Rows = npt.NDArray[np.int64]


class Samples(Sequence[Sample]):
    """Samples in order of their ids. A Sample is made of its record each time that it is asked for.

    tokens, patches, frame_patches, label_tokens, ids   [len], a number a sample; of the whole index without a copy
    """

    def __init__(self, file: IndexFile, folder: Path | str, rows: Rows | None = None) -> None:
        self._file, self._folder = file, folder
        self._rows = rows  # of the index, ascending; none: all

    def __len__(self) -> int:
        return len(self._file.columns["id"] if self._rows is None else self._rows)

    @overload
    def __getitem__(self, at: int) -> Sample: ...
    @overload
    def __getitem__(self, at: slice) -> Samples: ...
    def __getitem__(self, at: int | slice) -> Sample | Samples:
        if isinstance(at, slice):
            rows = np.arange(len(self), dtype=np.int64) if self._rows is None else self._rows
            return Samples(self._file, self._folder, rows[at])
        at = range(len(self))[at]  # IndexError where there is none
        return self._sample(at if self._rows is None else int(self._rows[at]))

    def __iter__(self) -> Iterator[Sample]:
        return (self[at] for at in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Samples):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def ids(self) -> Column:
        return self.column("id")

    @property
    def tokens(self) -> Column:
        return self.column("tokens")

    @property
    def patches(self) -> Column:
        return self.column("patches")

    @property
    def frame_patches(self) -> Column:
        return self.column("frame_patches")

    @property
    def label_tokens(self) -> Column:
        return self.column("label_tokens")

    def column(self, name: str) -> Column:
        """One of index_file.COLUMNS."""
        values = self._file.columns[name]
        return values if self._rows is None else values[self._rows]

    def numbers(self, name: str, at: Sequence[int] | Rows) -> list[int]:
        """Of these positions, without a look at any other."""
        rows = np.asarray(at, dtype=np.int64)
        found: list[int] = self._file.columns[name][rows if self._rows is None else self._rows[rows]].tolist()
        return found

    def sequences(self, at: Sequence[int] | Rows) -> list[BatchSequence]:
        """What planners see of the samples at these positions."""
        columns = (self.numbers(name, at) for name in ("id", "tokens", "patches", "frame_patches"))
        return [BatchSequence(*numbers) for numbers in zip(*columns, strict=True)]

    def position(self, sample_id: int) -> int:
        """Where the sample with this id is. Raises KeyError for an unknown id."""
        row = self._file.row(sample_id)
        if row is None:
            raise KeyError(sample_id)
        if self._rows is None:
            return row
        at = int(np.searchsorted(self._rows, row))
        if at == len(self._rows) or self._rows[at] != row:
            raise KeyError(sample_id)
        return at

    def without(self, ids: Iterable[int]) -> Samples:
        """All but those with these ids."""
        keep = np.flatnonzero(~np.isin(self.ids, np.fromiter(ids, np.int64)))
        return Samples(self._file, self._folder, keep if self._rows is None else self._rows[keep])

    def _sample(self, row: int) -> Sample:
        value: Any = self._file.record(row)
        try:
            messages, media, tools = parts_of(value, self._folder)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise self._file.damage(row, f"{type(error).__name__}: {error}") from None
        columns = self._file.columns
        number, tokens, patches = int(columns["id"][row]), int(columns["tokens"][row]), int(columns["patches"][row])
        return Sample(number, tokens, patches, int(columns["label_tokens"][row]), messages, media, tools)


__all__ = ["Samples"]
