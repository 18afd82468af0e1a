"""The file of an index: a header, columns of numbers that are mapped into memory, and records that are read one by one.

    {"format": "dhp.index/2", "samples": N, "columns": {"id": {"at": 0, "bytes": 4, "crc32": …}, …}, "problems": …}
    columns   N whole numbers each, little-endian, of 4 or 8 bytes
    problems  JSON lines
    records   JSON, one behind the other: what is needed of a sample to train on it

The header is one line. Whatever follows begins at a multiple of 64 bytes; `at` counts from the first of them behind the
header. src/formats/index_file.cpp reads header and columns too: planning needs no more.

Opening reads every column once, to compare it with its checksum; what stays in memory are pages of the file, which all
processes share. Sizes are compared with the file's before anything is made of them. What is wrong is a DataError that
names the file, the place and what to do.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dhp.data.errors import DataError, StaleIndexError
from dhp.data.formats.lines import opened

FORMAT = "dhp.index/2"
AGAIN = "build it again with dhp index"
COLUMNS = (
    "id",  # line in the data file, from 1; ascending
    "tokens",
    "patches",
    "frame_patches",
    "label_tokens",
    "pictures",
    "clips",
    "end",  # of its record, counted from the first one's begin
    "check",  # CRC-32 of its record, as a signed number
)
LENGTHS = COLUMNS[:5]  # what batches and plans follow from
_OLD = b'{"format": "dhp.index/1"'
_ALIGN = 64
_MOST_HEADER_BYTES = 64 << 20
_BLOCK = 1 << 18  # numbers looked at together
_MOST = 1 << 50  # of a number

Column = npt.NDArray[np.int64] | npt.NDArray[np.int32]


@dataclass(frozen=True)
class IndexFile:
    """An open index. Columns are views of the file; a record is read from it when it is asked for."""

    path: Path
    header: dict[str, Any]
    columns: dict[str, Column]
    handle: int
    problems: range  # bytes of the file
    records: range

    def row(self, sample_id: int) -> int | None:
        """Of the sample with this id."""
        ids = self.columns["id"]
        if not len(ids) or not ids[0] <= sample_id <= ids[-1]:
            return None
        row = int(np.searchsorted(ids, ids.dtype.type(sample_id)))  # of another type, all would be copied first
        return row if ids[row] == sample_id else None

    def record(self, row: int) -> Any:
        """The JSON of one record. Raises DataError where it is damaged."""
        try:
            return json.loads(self.record_bytes(row))
        except DataError:
            raise
        except (ValueError, RecursionError) as error:
            raise self.damage(row, f"{type(error).__name__}: {error}") from None

    def record_bytes(self, row: int) -> bytes:
        start = int(self.columns["end"][row - 1]) if row else 0
        size = int(self.columns["end"][row]) - start
        text = os.pread(self.handle, size, self.records.start + start)
        if len(text) != size or check_of(text) != self.columns["check"][row]:
            raise self.damage(row, "its record is not what was written")
        return text

    def damage(self, row: int, what: str) -> DataError:
        return DataError(f"{self.path}: is damaged (sample {self.columns['id'][row]}: {what}); {AGAIN}")

    def problem_lines(self) -> Iterator[bytes]:
        at, rest = self.problems.start, b""
        while at < self.problems.stop:
            block = os.pread(self.handle, min(1 << 16, self.problems.stop - at), at)
            if not block:
                raise DataError(f"{self.path}: is cut off; {AGAIN}")
            at += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from lines


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def check_of(record: bytes) -> int:
    """What the column `check` holds of a record."""
    return _signed(zlib.crc32(record))


# ---- writing --------------------------------------------------------------------------------------------------------


def pieces(
    facts: Mapping[str, Any],
    columns: Mapping[str, npt.NDArray[np.int64]],
    problems: list[bytes],
    records: Iterable[bytes],
) -> Iterator[bytes]:
    """An index, piece by piece. `facts` are further fields of the header."""
    samples = len(columns["id"])
    at, described, parts = 0, {}, []
    for name in COLUMNS:
        values = columns[name]
        small = not samples or -(1 << 31) <= values.min() <= values.max() < 1 << 31
        part = np.ascontiguousarray(values, dtype="<i4" if small else "<i8")
        described[name] = {"at": at, "bytes": part.itemsize, "crc32": zlib.crc32(part.data)}
        parts.append(part)
        at = _aligned(at + part.nbytes)
    problem_text = b"".join(line + b"\n" for line in problems)
    begin = _aligned(at + len(problem_text))
    header = {
        "format": FORMAT,
        "samples": samples,
        "columns": described,
        "problem_lines": {"at": at, "bytes": len(problem_text)},
        "records": {"at": begin, "bytes": int(columns["end"][-1]) if samples else 0},
        "lengths": lengths_digest(columns),
        **facts,
    }
    yield from _padded(json.dumps(header, ensure_ascii=False).encode() + b"\n")
    for part in parts:
        yield from _padded(part.tobytes())
    yield from _padded(problem_text)
    yield from records


def lengths_digest(columns: Mapping[str, Column]) -> str:
    """SHA-256 of what batches and plans follow from."""
    digest = hashlib.sha256()
    for name in LENGTHS:
        for start in range(0, len(columns[name]), _BLOCK):
            digest.update(columns[name][start : start + _BLOCK].astype("<i8").data)
    return digest.hexdigest()


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _padded(part: bytes) -> Iterator[bytes]:
    yield part
    yield b"\0" * (_aligned(len(part)) - len(part))


# ---- opening --------------------------------------------------------------------------------------------------------


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The header alone. Raises StaleIndexError for the format before this one, DataError for what is no index."""
    with opened(path) as file:
        return _header(path, file.readline(_MOST_HEADER_BYTES))


def _header(path: str | os.PathLike[str], line: bytes) -> dict[str, Any]:
    if line.startswith(_OLD):
        raise StaleIndexError(f"{path}: is stale: it is of an older version of dhp (format dhp.index/1); {AGAIN}")
    try:
        header = json.loads(line or b"null")
    except (ValueError, RecursionError) as error:
        if line.startswith(b"{"):
            raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); {AGAIN}") from None
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(f"{path}: is not an index (format {FORMAT}); build it with dhp index")
    return header


def open_index(path: str | os.PathLike[str], progress: Callable[[], None]) -> IndexFile:
    """Opens an index; `progress` is called again and again. Raises DataError."""
    with opened(path) as file:
        line = file.readline(_MOST_HEADER_BYTES)
        header = _header(path, line)
        try:
            columns, problems, records = _places(header, _aligned(len(line)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); {AGAIN}") from None
        size = os.fstat(file.fileno()).st_size
        if size != records.stop:
            what = "is cut off" if size < records.stop else "is longer than it says"
            raise DataError(f"{path}: {what}: {size:,} of {records.stop:,} bytes; {AGAIN}")
        mapped = mmap.mmap(file.fileno(), problems.start, access=mmap.ACCESS_READ)
        handle = os.dup(file.fileno())
    views = {name: np.frombuffer(mapped, f"<i{place.step}", len(place), place.start) for name, place in columns.items()}
    index = IndexFile(Path(path), header, views, handle, problems, records)
    weakref.finalize(index, os.close, handle)
    _check_columns(index, progress)
    return index


def _places(header: dict[str, Any], body: int) -> tuple[dict[str, range], range, range]:
    """Where in the file columns (in steps of their numbers), problems and records are. Raises ValueError and the like
    for places that no index of ours has: they lie one behind the other."""
    samples = _whole(header["samples"], "samples")
    at, columns = body, {}
    for name in COLUMNS:
        about = header["columns"][name]
        width = about["bytes"]
        if width not in (4, 8) or type(width) is not int or body + _whole(about["at"], "at") != at:
            raise ValueError(f"column {name} of {width} bytes a number at {about['at']}")
        columns[name] = range(at, at + samples * width, width)
        at = _aligned(at + samples * width)
    parts = []
    for name in ("problem_lines", "records"):
        begin, size = (_whole(header[name][key], f"{name}.{key}") for key in ("at", "bytes"))
        if body + begin != at:
            raise ValueError(f"{name} at {begin}")
        parts.append(range(at, at + size))
        at = _aligned(at + size)
    return columns, parts[0], parts[1]


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(f"{what}: found {json.dumps(value)[:40]} for a whole number")
    return value


def _check_columns(index: IndexFile, progress: Callable[[], None]) -> None:
    """Raises DataError for a column whose numbers are not those that were written, or that no index of ours has."""
    for name, values in index.columns.items():
        check, before = 0, 0
        least, most = _limits_of(name)
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            check = zlib.crc32(block.data, check)
            wrong = (block < least) | (block > most)
            if name in ("id", "end"):
                wrong |= np.diff(block, prepend=block.dtype.type(before)) <= 0
                before = int(block[-1])
            if wrong.any():
                row = start + int(np.argmax(wrong))
                raise DataError(f"{index.path}: is damaged (column {name}, row {row}: found {values[row]}); {AGAIN}")
            progress()
        if check != index.header["columns"][name].get("crc32"):
            raise DataError(f"{index.path}: is damaged (column {name}: its checksum is another); {AGAIN}")
    ends = index.columns["end"]
    if (int(ends[-1]) if len(ends) else 0) != len(index.records):
        raise DataError(f"{index.path}: is damaged (its records do not end where they should); {AGAIN}")


def _limits_of(name: str) -> tuple[int, int]:
    if name == "check":
        return -(1 << 31), (1 << 31) - 1
    return int(name in ("id", "tokens", "end")), _MOST


__all__ = ["AGAIN", "COLUMNS", "FORMAT", "IndexFile", "check_of", "lengths_digest", "open_index", "pieces"]
