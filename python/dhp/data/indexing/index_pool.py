"""Lines read by several processes, in order. A process that ends over a line, as a decoder may crash, costs that line
alone: those that it had are given to others one by one.

The processes (index_worker.py) end when their pipe does.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

from dhp._core import InputError
from dhp.data.access.media_cache import MediaCache
from dhp.data.decoding import worker_process
from dhp.data.errors import DataError
from dhp.data.indexing.scan import Item, Line, Problem

WORKER = "dhp.data.indexing.index_worker"
CHUNK = 16  # lines that a process gets at a time
_CHUNKS_AHEAD = 8  # of each process that may wait for the slowest


@dataclass(frozen=True)
class Setup:
    """What a process needs to know beside its lines; see LineReader."""

    data: str
    model: str
    media_roots: tuple[str, ...]
    media_cache: MediaCache | None
    verify: bool


@dataclass(eq=False)
class _Reader:
    started: worker_process.Started
    is_ready: bool = False
    has: list[tuple[int, Item]] = field(default_factory=list)


class Pool:
    """`count` processes. Use as a context manager: at its end they are gone."""

    def __init__(self, setup: Setup, count: int) -> None:
        self._setup = setup
        self._retry: collections.deque[list[tuple[int, Item]]] = collections.deque()
        self._readers: list[_Reader] = []
        self._count = count
        self._is_all = False  # of the lines are out

    def __enter__(self) -> Pool:
        try:
            self._readers = [self._start() for _ in range(self._count)]
        except OSError as error:
            self.__exit__()
            raise DataError(
                f"no process can be started to read lines ({error.strerror}); --workers 1 needs none"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        worker_process.end(reader.started for reader in self._readers)

    def read(self, items: Iterable[Item]) -> Iterator[Line]:
        """What becomes of these lines, in order; few more of them are taken than are given out."""
        numbered = enumerate(items)
        ready: dict[int, Line] = {}
        given = 0  # out, all in order
        while True:
            self._feed(numbered, len(ready))
            busy: dict[Any, _Reader] = {
                reader.started.pipe: reader for reader in self._readers if reader.has or not reader.is_ready
            }
            if self._is_all and not any(reader.has for reader in self._readers) and not self._retry and not ready:
                return
            for pipe in connection.wait(list(busy)):
                self._receive(busy[pipe], ready)
            while given in ready:
                yield ready.pop(given)
                given += 1

    def _start(self) -> _Reader:
        return _Reader(worker_process.start(WORKER, self._setup))

    def _feed(self, numbered: Iterator[tuple[int, Item]], waiting: int) -> None:
        """Lines for every process that waits for some; new ones only while few lines wait for one before them."""
        for reader in self._readers:
            if not reader.is_ready or reader.has:
                continue
            chunk = self._retry.popleft() if self._retry else []
            if not chunk and waiting < self._count * CHUNK * _CHUNKS_AHEAD:
                chunk = list(itertools.islice(numbered, CHUNK))
                self._is_all = len(chunk) < CHUNK
            if chunk:
                reader.has = chunk
                with contextlib.suppress(OSError):  # it has ended: its pipe says so when it is read
                    reader.started.pipe.send([item for _, item in chunk])

    def _receive(self, reader: _Reader, ready: dict[int, Line]) -> None:
        try:
            answer = reader.started.pipe.recv()
        except (EOFError, OSError):
            self._replace(reader, ready)
            return
        if isinstance(answer, InputError):
            raise answer
        if reader.is_ready:
            ready.update(zip((number for number, _ in reader.has), answer, strict=True))
            reader.has = []
        reader.is_ready = True

    def _replace(self, reader: _Reader, ready: dict[int, Line]) -> None:
        """Of one that has ended."""
        reader.started.pipe.close()
        how = reader.started.how_ended()
        if not reader.is_ready:
            raise DataError(f"a process to read lines has ended before its first ({how}); --workers 1 needs none")
        if len(reader.has) == 1:
            number, item = reader.has[0]
            ready[number] = Line(Problem(item.read.line, f"ended the process that read it ({how})", "unexpected"))
        else:
            self._retry.extend([one] for one in reader.has)
        self._readers[self._readers.index(reader)] = self._start()


def processes_for(workers: int, data_bytes: int) -> int:
    """How many: as many as asked for; else one a core, at most 8, and one where starting more would take longer."""
    few = data_bytes < 2_000_000
    return workers or (1 if few else min(8, len(os.sched_getaffinity(0))))


__all__ = ["Pool", "Setup", "processes_for"]
