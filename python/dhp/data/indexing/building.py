"""Building an index: what is found is kept in a file as it comes, so that who is interrupted goes on from there, and
put together at the end.

The file, INDEX.unfinished, is a line that says what it was made with, then of each sample a line of numbers and its
record. A sample is looked up by its line, here or in an index that was there before, and taken over if neither the line
nor its media have changed (records.ignored_if_same). So it does no harm if the data grew or changed meanwhile.
"""

from __future__ import annotations

import array
import collections
import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from dhp._core import InputError
from dhp.base.output import check_links, new_beside, write_atomically
from dhp.data.errors import DataError
from dhp.data.indexing.index_file import AGAIN, COLUMNS, IndexFile, check_of, open_index, pieces
from dhp.data.indexing.scan import NUMBERS, Line, Problem, Row, describe

OUTPUT = "the index (-o of dhp index, `index` of dhp train)"
UNFINISHED = ".unfinished"
_FORMAT = "dhp.index.unfinished/1"
_MOST_IGNORED_KEYS = 1000  # whose lines are counted
_MOST_HEADER_BYTES = 1 << 20


class Found:
    """What was found so far: problems, and numbers of samples, in memory; records in `file`.

    made_with  what results depend on beside a line and its media
    before     an index that was there, made with the same
    """

    def __init__(self, file: IO[bytes], made_with: dict[str, Any], before: IndexFile | None = None) -> None:
        self.problems: list[Problem] = []
        self.ignored: collections.Counter[str] = collections.Counter()
        self._file, self._before = file, before
        self._rows = {name: array.array("q") for name in (*NUMBERS, "begin", "bytes", "check")}
        self._chosen = array.array("q")  # rows that the index will have, in its order
        self._read(json.dumps({"format": _FORMAT, **made_with}, sort_keys=True).encode() + b"\n")
        lines = np.frombuffer(self._rows["id"], np.int64) if self._rows["id"] else np.zeros(0, np.int64)
        self._by_line = np.argsort(lines, kind="stable")
        self._lines = lines[self._by_line]

    @property
    def kept(self) -> int:
        """Samples in the file when it was opened."""
        return len(self._lines)

    @property
    def is_worth_it(self) -> bool:
        """Whether whoever begins anew would do something twice without the file."""
        return bool(self._rows["id"])

    @property
    def samples(self) -> int:
        return len(self._chosen)

    @property
    def counts(self) -> dict[str, int]:
        """Lines left out, by kind of problem."""
        return dict(sorted(collections.Counter(problem.kind for problem in self.problems).items()))

    def describe(self, data: str | os.PathLike[str], kinds: Collection[str]) -> str:
        """The first problems of these kinds, and how many more there are."""
        return describe([problem for problem in self.problems if problem.kind in kinds], data)

    def known(self, line: int) -> Row | None:
        """What a line was when it was read last."""
        at = int(np.searchsorted(self._lines, line, side="right")) - 1  # the last of them, if there are several
        if at >= 0 and self._lines[at] == line:
            row = int(self._by_line[at])
            return Row.of({name: self._rows[name][row] for name in NUMBERS}, self._record(row))
        return _row_of(self._before, line) if self._before else None

    def add(self, line: Line) -> None:
        counted = self.ignored
        counted.update(key for key in line.ignored if key in counted or len(counted) < _MOST_IGNORED_KEYS)
        if isinstance(line.sample, Problem):
            self.problems.append(line.sample)
            return
        at = int(np.searchsorted(self._lines, line.sample.id, side="right")) - 1
        row = int(self._by_line[at]) if at >= 0 and self._lines[at] == line.sample.id else -1
        same = row >= 0 and self._rows["check"][row] == check_of(line.sample.record)
        self._chosen.append(row if same and self._record(row) == line.sample.record else self._append(line.sample))

    def write(self, path: Path, facts: dict[str, Any]) -> None:
        """Writes the index, whole or not at all. `facts` are further fields of its header."""
        described = {**facts, "problems": self.counts, "ignored": dict(sorted(self.ignored.items()))}
        chosen = np.frombuffer(self._chosen, np.int64)
        columns = {name: np.frombuffer(self._rows[name], np.int64)[chosen] for name in (*NUMBERS, "check")}
        columns["end"] = np.cumsum(np.frombuffer(self._rows["bytes"], np.int64)[chosen])
        problems = [json.dumps(compact(asdict(problem)), ensure_ascii=False).encode() for problem in self.problems]
        records = (self._record(row) for row in self._chosen)
        write_atomically(OUTPUT, str(path), pieces(described, {n: columns[n] for n in COLUMNS}, problems, records))

    # ---- the file

    def _read(self, header: bytes) -> None:
        """What an earlier process has left; of another kind, or behind a place that is damaged, nothing."""
        self._file.seek(0)
        if self._file.readline(_MOST_HEADER_BYTES) == header:
            end = len(header)
            for numbers, size, check in _rows_in(self._file):
                self._note(numbers, self._file.tell() - size - 1, size, check)
                end = self._file.tell()
        else:
            self._file.seek(0)
            self._file.write(header)
            end = len(header)
        self._file.truncate(end)
        self._file.seek(end)
        self._file.flush()
        self._end = end

    def _append(self, row: Row) -> int:
        check, size = check_of(row.record), len(row.record)
        head = json.dumps([*row.numbers(), size, check]).encode() + b"\n"
        self._file.write(head + row.record + b"\n")
        self._file.flush()  # so that whoever kills this process loses nothing
        self._note(row.numbers(), self._end + len(head), size, check)
        self._end += len(head) + size + 1
        return len(self._rows["id"]) - 1

    def _note(self, numbers: Iterable[int], begin: int, size: int, check: int) -> None:
        for name, number in zip(self._rows, (*numbers, begin, size, check), strict=True):
            self._rows[name].append(number)

    def _record(self, row: int) -> bytes:
        size = self._rows["bytes"][row]
        record = os.pread(self._file.fileno(), size, self._rows["begin"][row])
        if len(record) != size:
            raise DataError(f"{self._file.name}: has become shorter while the index was built; {AGAIN}")
        return record


def _rows_in(file: IO[bytes]) -> Iterator[tuple[list[int], int, int]]:
    """Numbers of a sample, bytes and checksum of its record; until something is not as it was written."""
    while line := file.readline(1 << 12):
        try:
            numbers = json.loads(line)
            *numbers, size, check = numbers
        except (ValueError, TypeError, RecursionError):
            return
        whole = all(type(number) is int and abs(number) < 1 << 50 for number in (*numbers, size, check))
        if not whole or len(numbers) != len(NUMBERS) or size < 0:
            return
        record = file.read(size + 1) if size < 1 << 30 else b""
        if len(record) != size + 1 or record[-1:] != b"\n" or check_of(record[:-1]) != check:
            return
        yield numbers, size, check


def _row_of(index: IndexFile, line: int) -> Row | None:
    at = index.row(line)
    if at is None:
        return None
    try:
        return Row.of({name: int(index.columns[name][at]) for name in NUMBERS}, index.record_bytes(at))
    except DataError:  # damaged: it is read again
        return None


@contextlib.contextmanager
def unfinished(path: Path, made_with: dict[str, Any]) -> Iterator[Found]:
    """What an earlier process has left of this index, which goes on from now on. It is gone once the index is written;
    another process that builds the same index has a file of its own, which is gone at the end of that."""
    before = index_before(path, made_with)
    name = Path(f"{os.path.realpath(path)}{UNFINISHED}")
    file = _locked(name)
    own = Path()
    if file is None:
        handle, own = new_beside(path)
        os.close(handle)
        file, name = open(own, "r+b"), own  # noqa: SIM115  # closed below
    try:
        with file:
            found = Found(file, made_with, before)
            is_worth_it = False
            try:
                yield found
            except BaseException:
                is_worth_it = found.is_worth_it and name != own
                raise
            finally:
                if not is_worth_it:
                    name.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{OUTPUT}: {name} cannot be written ({error.strerror}); make room, or give another path"
        ) from None


def _locked(name: Path) -> IO[bytes] | None:
    """The file, made where it is missing; None where another process has it, and where it cannot be had."""
    try:
        check_links(name)
        file = os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    except OSError:
        file.close()
        return None


def index_before(path: Path, made_with: dict[str, Any]) -> IndexFile | None:
    """The index that is there, if it was made with the same: whatever else it is, an index is being built."""
    try:
        index = open_index(path, lambda: None)
    except DataError:
        return None
    return index if all(index.header.get(key) == value for key, value in made_with.items()) else None


def problems_from(lines: Iterable[bytes]) -> Iterator[Problem]:
    """What `Found.write` has written. Raises TypeError or ValueError for anything else."""
    for line in lines:
        problem = Problem(**json.loads(line))
        if type(problem.id) is not int or not all(isinstance(text, str) for text in (problem.message, problem.kind)):
            raise TypeError(f"a problem {line[:40]!r}")
        yield problem


def compact(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != ()}


__all__ = ["OUTPUT", "UNFINISHED", "Found", "compact", "problems_from", "unfinished"]
