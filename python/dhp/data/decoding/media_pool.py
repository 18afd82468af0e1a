"""A rank's media decoded by several processes (media_worker.py), in order.

Decoding releases Python's interpreter lock, so threads would be as fast. Processes leave the lock to the thread that
trains, and a decoder that crashes ends a process that can be named, not the rank.

What is under way is bounded: at most AHEAD_BYTES of decoded parts are out or wait for one before them, and at least one
medium.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

import numpy as np

from dhp._core import InputError
from dhp.data.access.media_cache import MediaCache
from dhp.data.access.pieces import shown
from dhp.data.decoding import worker_process
from dhp.data.decoding.media import Medium, Pixels, part_size, parts_of
from dhp.data.errors import MediumError
from dhp.data.processor import Processor

WORKER = "dhp.data.decoding.media_worker"
AHEAD_BYTES = 256 << 20
_AT_ONCE = 2  # works that a process has: one to do, and one to go on with
_START_S = 120.0  # that a process may take to start, at least: it imports torch
_LOOK_S = 0.5  # between looks at whether the pool is closed
_CLOSE_S = 5.0  # for who waits for media to see that it is
Parts = dict[int, Pixels]


@dataclass(frozen=True)
class Setup:
    """What a process needs to know beside its media."""

    model: str
    media_roots: tuple[str, ...]
    media_cache: MediaCache | None
    frame_cache: str
    frame_cache_bytes: int


@dataclass(frozen=True)
class Work:
    """Parts of a medium to decode, at least one. name: of its sample, for messages; bytes: that they have then."""

    name: str
    medium: Medium
    numbers: tuple[int, ...]
    bytes: int

    def __str__(self) -> str:
        source = self.medium.source if isinstance(self.medium.source, str) else self.medium.source[0]
        return f"{self.name}, {shown(source)}"


def work_of(name: str, medium: Medium, start: int, stop: int, processor: Processor) -> Work:
    """Units start … stop-1."""
    numbers = parts_of(medium, start, stop, processor)
    height, width = part_size(medium, processor)
    return Work(name, medium, numbers, 3 * height * width * len(numbers))


class WorkerError(RuntimeError):
    """A process that has ended, or takes too long: which, over which sample and medium."""


@dataclass(eq=False)
class _Worker:
    number: int  # from 1
    started: worker_process.Started
    since: float  # when it began with what it does
    is_ready: bool = False
    has: collections.deque[tuple[int, Work]] = field(default_factory=collections.deque)

    def __str__(self) -> str:
        return f"data worker {self.number} (process {self.started.process.pid})"


class MediaPool:
    """`count` processes, which start with the first medium.

    limit_s  a process that takes longer for a medium is an error
    """

    def __init__(self, setup: Setup, count: int, limit_s: float) -> None:
        self._setup, self._count, self._limit_s = setup, count, limit_s
        self._workers: list[_Worker] = []
        self._is_closed = threading.Event()
        self._in_use = threading.Lock()

    def close(self) -> None:
        """Ends the processes; who waits for media gets WorkerError."""
        self._is_closed.set()
        is_free = self._in_use.acquire(timeout=_CLOSE_S)
        self._end()
        if is_free:
            self._in_use.release()

    def decode(self, works: Iterable[Work]) -> Generator[tuple[Work, Parts | MediumError], None, None]:
        """Their parts, in order, or why a medium cannot be read; few more works are taken than are given out. To be
        closed. Raises WorkerError, and whatever a process raises that is no MediumError."""
        with self._in_use:
            if self._is_closed.is_set():
                raise WorkerError("the data are closed")
            is_done = False
            try:
                yield from self._decode(iter(works))
                is_done = True
            finally:
                if not is_done:  # processes have works that nobody waits for
                    self._end()

    def _decode(self, works: Iterator[Work]) -> Iterator[tuple[Work, Parts | MediumError]]:
        waiting: collections.deque[tuple[int, Work]] = collections.deque()  # out, or done and not given, in order
        done: dict[int, Parts | MediumError] = {}
        numbered = enumerate(works)
        held = next(numbered, None)  # to be given next: the first, then one for which there was no room
        if held is None:
            return
        self._start()
        while not self._is_closed.is_set():
            while worker := self._free_worker():
                held = held or next(numbered, None)
                if held is None or (waiting and held[1].bytes + sum(work.bytes for _, work in waiting) > AHEAD_BYTES):
                    break
                self._give(worker, held)
                waiting.append(held)
                held = None
            if not waiting:
                return
            number, work = waiting[0]
            if number in done:
                yield work, done.pop(number)
                waiting.popleft()
            else:
                self._receive(done)
        raise WorkerError("the data were closed")

    # ---- processes

    def _start(self) -> None:
        try:
            for number in range(len(self._workers) + 1, self._count + 1):
                started = worker_process.start(WORKER, self._setup)
                self._workers.append(_Worker(number, started, time.monotonic()))
        except OSError as error:
            self._end()
            raise WorkerError(
                f"no process can be started to decode media ({error.strerror}); data_workers = 0 needs none"
            ) from None

    def _end(self) -> None:
        workers, self._workers = self._workers, []
        worker_process.end(worker.started for worker in workers)

    def _free_worker(self) -> _Worker | None:
        """The one that has least to do, if it can take more. Before they are ready, too: what waits in a pipe is
        small."""
        least = min(self._workers, key=lambda worker: len(worker.has))
        return least if len(least.has) < _AT_ONCE else None

    def _give(self, worker: _Worker, numbered: tuple[int, Work]) -> None:
        if not worker.has and worker.is_ready:
            worker.since = time.monotonic()
        worker.has.append(numbered)
        work = numbered[1]
        with contextlib.suppress(OSError):  # it has ended: its pipe says so when it is read
            worker.started.pipe.send((work.medium, work.numbers))

    def _receive(self, done: dict[int, Parts | MediumError]) -> None:
        """Waits for a while for what processes have done."""
        by_pipe: dict[Any, _Worker] = {worker.started.pipe: worker for worker in self._workers if worker.has}
        ready = connection.wait(list(by_pipe), _LOOK_S)
        for pipe in ready:
            self._receive_from(by_pipe[pipe], done)
        for worker in by_pipe.values() if not ready else ():
            seconds = time.monotonic() - worker.since
            limit = self._limit_s if worker.is_ready else max(self._limit_s, _START_S)
            if seconds > limit:
                what = f"reading {worker.has[0][1]}" if worker.is_ready else "starting"
                raise WorkerError(
                    f"{worker} has been {what} for {seconds:,.0f} s, longer than {limit:,.0f} s: a disk that does not "
                    "answer, or a medium that takes too long; raise timeout_s, or take it out of the data"
                )

    def _receive_from(self, worker: _Worker, done: dict[int, Parts | MediumError]) -> None:
        try:
            answer = worker.started.pipe.recv()
            if isinstance(answer, tuple):
                answer = self._parts(worker, *answer)
        except (EOFError, OSError):
            what = f"while it read {worker.has[0][1]}" if worker.is_ready else "before its first medium"
            raise WorkerError(
                f"{worker} was ended by {worker.started.how_ended()} {what}; look at the medium, and at whether memory "
                "has run out"
            ) from None
        worker.since = time.monotonic()
        if not worker.is_ready:
            worker.is_ready = True
            if isinstance(answer, InputError):
                raise answer
            return
        number, work = worker.has.popleft()
        if isinstance(answer, Exception) and not isinstance(answer, MediumError):
            answer.add_note(f"{worker}: {work}")
            raise answer
        done[number] = answer

    def _parts(self, worker: _Worker, numbers: tuple[int, ...], size: tuple[int, int]) -> Parts:
        """The pixels follow what was said of them."""
        height, width = size
        levels = (np.frombuffer(worker.started.pipe.recv_bytes(), np.uint8) for _ in numbers)
        return {number: one.reshape(height, width, 3) for number, one in zip(numbers, levels, strict=True)}


__all__ = ["MediaPool", "Setup", "Work", "WorkerError", "work_of"]
