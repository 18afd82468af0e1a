"""Building an index: what is found in a data file, kept on disk as it comes, and put together at the end."""

from __future__ import annotations

import array
import collections
import contextlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from dhp.base.output import new_beside, write_atomically
from dhp.data.index_file import COLUMNS, check_of, pieces
from dhp.data.records import record_of
from dhp.data.scan import Line, Problem, Sample, describe

OUTPUT = "the index (-o of dhp index, `index` of dhp train)"
_MOST_IGNORED_KEYS = 1000  # whose lines are counted


class Found:
    """What was found so far: numbers and problems in memory, records in a file without a name, which is gone when this
    process is."""

    def __init__(self, folder: Path, records: IO[bytes]) -> None:
        self.problems: list[Problem] = []
        self.ignored: collections.Counter[str] = collections.Counter()
        self._folder, self._records = folder, records
        self._columns = {name: array.array("q") for name in COLUMNS}
        self._end = 0

    @property
    def samples(self) -> int:
        return len(self._columns["id"])

    @property
    def counts(self) -> dict[str, int]:
        """Lines left out, by kind of problem."""
        return dict(sorted(collections.Counter(problem.kind for problem in self.problems).items()))

    def describe(self, data: str | os.PathLike[str], kinds: Collection[str]) -> str:
        """The first problems of these kinds, and how many more there are."""
        return describe([problem for problem in self.problems if problem.kind in kinds], data)

    def add(self, line: Line) -> None:
        counted = self.ignored
        counted.update(key for key in line.ignored if key in counted or len(counted) < _MOST_IGNORED_KEYS)
        if isinstance(line.sample, Problem):
            self.problems.append(line.sample)
        else:
            self._add_sample(line.sample)

    def _add_sample(self, sample: Sample) -> None:
        record = record_of(sample.messages, sample.media, sample.tools, self._folder)
        self._records.write(record)
        self._end += len(record)
        clips = sum(medium.kind == "video" for medium in sample.media)
        numbers = {
            "id": sample.id,
            "tokens": sample.tokens,
            "patches": sample.patches,
            "frame_patches": sample.frame_patches,
            "label_tokens": sample.label_tokens,
            "pictures": len(sample.media) - clips,
            "clips": clips,
            "end": self._end,
            "check": check_of(record),
        }
        for name, number in numbers.items():
            self._columns[name].append(number)

    def write(self, path: Path, facts: dict[str, Any]) -> None:
        """Writes the index, whole or not at all. `facts` are further fields of its header."""
        described = {**facts, "problems": self.counts, "ignored": dict(sorted(self.ignored.items()))}
        columns = {name: np.frombuffer(values, np.int64) for name, values in self._columns.items()}
        problems = [json.dumps(compact(asdict(problem)), ensure_ascii=False).encode() for problem in self.problems]
        self._records.seek(0)
        write_atomically(OUTPUT, str(path), pieces(described, columns, problems, _blocks(self._records)))


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(1 << 20):
        yield block


@contextlib.contextmanager
def kept_beside(path: Path) -> Iterator[IO[bytes]]:
    """An empty file on the disk of `path`, to write and to read again."""
    handle, name = new_beside(path)
    os.close(handle)
    try:
        with open(name, "r+b") as file:
            yield file
    finally:
        name.unlink(missing_ok=True)


def problems_from(lines: Iterable[bytes]) -> Iterator[Problem]:
    """What `Found.write` has written. Raises TypeError or ValueError for anything else."""
    for line in lines:
        problem = Problem(**json.loads(line))
        if type(problem.id) is not int or not all(isinstance(text, str) for text in (problem.message, problem.kind)):
            raise TypeError(f"a problem {line[:40]!r}")
        yield problem


def compact(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != ()}


__all__ = ["OUTPUT", "Found", "compact", "kept_beside", "problems_from"]
