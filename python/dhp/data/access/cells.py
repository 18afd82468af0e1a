"""Media in the rows of Parquet files.

Parquet packs values into pages of a group of rows, so a medium is found by unpacking the column of its group up to its
row. Who reads rows in order, as an index is built, unpacks each once: the place that was reached is kept, and what was
unpacked last. Files whose groups are so large that reading rows in any order would take for ever are refused.
"""

from __future__ import annotations

import bisect
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from dhp.data.access.pieces import Cell
from dhp.data.access.remembered import remembered
from dhp.data.errors import DataError
from dhp.data.formats.table_values import Bytes, content_of, named, values_of

MOST_GROUP_BYTES = 512 << 20  # of a group of rows, unpacked
_KEPT_BYTES = 64 << 20  # of media that were unpacked last
_MOST_PLACES = 4  # of files and columns that are read in order at a time

_Version = tuple[str, int, int]  # path, time of change, size


class _Place:
    """In a column of a group, which is unpacked row by row. next: the row that comes next, counted in the file."""

    def __init__(self, version: _Version, group: int, column: int) -> None:
        file, self.group = opened(version[0], _metadata(*version)), group
        names = file.schema_arrow.names
        if column >= len(names):
            raise ValueError("its file has fewer columns than when it was indexed")
        self.next, name = _starts(*version)[group], names[column]
        batches = file.iter_batches(1, row_groups=[group], columns=[name], use_threads=False)
        self._media: Iterator[list[bytes]] = (
            _media_in(value) for batch in batches for value in values_of(batch.column(0))
        )

    def read(self) -> list[bytes]:
        self.next += 1
        media = next(self._media, None)
        if media is None:
            raise ValueError("its file has fewer rows than when it was indexed")
        return media


def _media_in(value: Any) -> list[bytes]:
    media: list[tuple[str, Bytes | bytes]] = []
    named(value, "", media)
    return [content_of(one) for _, one in media]


class _Kept:
    """Media of the rows that were unpacked last, by file, row and column."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[_Version, int, int], Sequence[bytes]] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[_Version, int, int]) -> Sequence[bytes] | None:
        return self._rows.get(key)

    def put(self, key: tuple[_Version, int, int], media: Sequence[bytes]) -> None:
        self._bytes += sum(map(len, media)) - sum(map(len, self._rows.pop(key, ())))
        self._rows[key] = media
        while self._bytes > _KEPT_BYTES and len(self._rows) > 1:
            _, old = self._rows.popitem(last=False)
            self._bytes -= sum(map(len, old))


_lock = threading.Lock()
_kept = _Kept()
_places: OrderedDict[tuple[_Version, int], _Place] = OrderedDict()  # by file and column


def read_cell(cell: Cell) -> bytes:
    """The bytes of a medium. Raises OSError or ValueError."""
    try:
        import pyarrow  # noqa: F401  # what follows needs it
    except ImportError:
        raise ValueError('reading it needs pyarrow: pip install "dhp[formats]"') from None
    version = _version(cell.path)
    with _lock:
        media = _kept.get((version, cell.row, cell.column))
        if media is None:
            media = _unpacked(version, cell.row, cell.column)
    if cell.nth >= len(media) or len(media[cell.nth]) != cell.size:
        raise ValueError("its row holds something else since it was indexed")
    return media[cell.nth]


def _unpacked(version: _Version, row: int, column: int) -> Sequence[bytes]:
    starts = _starts(*version)
    group = bisect.bisect_right(starts, row) - 1
    if not 0 <= row < starts[-1]:
        raise ValueError("its file has fewer rows since it was indexed")
    place = _places.pop((version, column), None)
    if place is None or place.group != group or place.next > row:
        place = _Place(version, group, column)
    while True:
        number, media = place.next, place.read()
        _kept.put((version, number, column), media)
        if number == row:
            break
    _places[version, column] = place  # not one that has failed
    while len(_places) > _MOST_PLACES:
        _places.popitem(last=False)
    return media


def keep(path: str, row: int, column: int, media: Sequence[bytes]) -> None:
    """For a while, what was unpacked of a row."""
    with _lock:
        _kept.put((_version(path), row, column), media)


def check_group(path: str, about: Any, group: int) -> None:
    """Raises DataError for a group of rows that is too large to be unpacked for one of its media."""
    if about.total_byte_size > MOST_GROUP_BYTES:
        raise DataError(
            f"{path}: group {group} of its rows has {about.total_byte_size:,} bytes, more than {MOST_GROUP_BYTES:,}, "
            f"which would be unpacked for every medium; write it with fewer rows a group (row_group_size = "
            f"{max(1, about.num_rows * (MOST_GROUP_BYTES // 8) // about.total_byte_size)}), or as Arrow: "
            "save_to_disk of `datasets`"
        )


def opened(path: str, metadata: Any = None) -> Any:
    """A ParquetFile that reads columns piece by piece."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, metadata=metadata, buffer_size=1 << 20, pre_buffer=False)


def _version(path: str) -> _Version:
    about = os.stat(path)
    return path, about.st_mtime_ns, about.st_size


@remembered(16)
def _metadata(path: str, _changed_ns: int, _bytes: int) -> Any:
    with opened(path) as file:
        return file.metadata


@remembered(16)
def _starts(path: str, changed_ns: int, size: int) -> list[int]:
    """The first row of every group, and the number of rows."""
    about = _metadata(path, changed_ns, size)
    counts = (about.row_group(group).num_rows for group in range(about.num_row_groups))
    return list(itertools.accumulate(counts, initial=0))


__all__ = ["MOST_GROUP_BYTES", "check_group", "keep", "opened", "read_cell"]
