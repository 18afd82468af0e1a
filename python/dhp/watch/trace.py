"""Chrome trace events of a run: open them in Perfetto (ui.perfetto.dev) or chrome://tracing.

A path that ends in .json is one file of all ranks. Any other is a folder with a file a rank, in the form that Holistic
Trace Analysis reads (facebookresearch/HolisticTraceAnalysis: hta/common/trace_parser.py, hta/common/types.py): who the
rank is under "distributedInfo", "ProfilerStep#K" over each step, and what a device would run as events of the category
"kernel" that name a stream and, by "correlation", the call that launched them. Names that begin with "nccl" count as
communication there, all others as computing.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dhp._core import InputError, Task
from dhp.base.output import check_writable, write_atomically
from dhp.run.runtime import Run

COMPUTE_STREAM, REDUCE_STREAM = 7, 20
# What each category of span is for Holistic Trace Analysis; others, such as reading, are no work of a device.
KERNELS = {
    "task": (COMPUTE_STREAM, "dhp_task"),
    "reduce": (REDUCE_STREAM, "ncclDevKernel_AllReduce_Sum_f32"),
    "optimizer": (COMPUTE_STREAM, "dhp_optimizer"),
}
FIRST_CORRELATION = 1 << 20  # small ones would be read as small integers, which later hold no number of an event


def file_of(rank: int) -> str:
    """In a folder of traces."""
    return f"rank-{rank:05d}.json"


def check_folder(folder: str) -> None:
    """Makes the folder; raises InputError where that is not possible, where it cannot be written, or where it holds
    files of other ranks, which tools would take for this run's."""
    check_writable("--trace", str(Path(folder) / file_of(0)))
    others = sorted(Path(folder).glob("*.json*"))
    if others:
        raise InputError(f"--trace: {folder} holds {others[0].name} already; give an empty or a new folder")


class Tracer:
    """Collects what one rank does; `write` writes it. Without a path it does nothing.

    One process ("pid") a rank; its compute is thread 0, its reader thread 1. Times are microseconds of the wall clock.
    """

    def __init__(self, path: str | Path | None, run: Run) -> None:
        self._path = Path(path) if path else None
        self._folder = self._path is not None and self._path.suffix != ".json"
        self._run = run
        self._events: list[dict[str, Any]] = []
        self._launches = FIRST_CORRELATION
        self._step: tuple[str, float] | None = None
        self._main = threading.get_ident()
        self._name("process_name", 0, f"rank {run.rank}")
        self._name("thread_name", 0, "compute")
        self._name("thread_name", 1, "read")

    def _name(self, kind: str, thread: int, name: str) -> None:
        self._events.append({"ph": "M", "name": kind, "pid": self._run.rank, "tid": thread, "args": {"name": name}})

    @contextlib.contextmanager
    def span(self, name: str, category: str, **details: Any) -> Iterator[None]:
        """One bar in the trace."""
        if self._path is None:
            yield
            return
        start = time.time_ns() / 1000
        try:
            yield
        finally:
            lasted = time.time_ns() / 1000 - start
            thread = 0 if threading.get_ident() == self._main else 1
            self._add(name, category, thread, start, lasted, details)
            if self._folder and category in KERNELS:
                self._add_kernel(*KERNELS[category], start, lasted)

    def _add(self, name: str, category: str, thread: int, start: float, lasted: float, details: dict[str, Any]) -> None:
        event = {"ph": "X", "name": name, "cat": category, "pid": self._run.rank, "tid": thread}
        self._events.append(event | {"ts": start, "dur": lasted, "args": details})

    def _add_kernel(self, stream: int, name: str, start: float, lasted: float) -> None:
        """What a device ran, and the call that launched it."""
        self._launches += 1
        link = {"correlation": self._launches}
        self._add("cudaLaunchKernel", "cuda_runtime", 0, start, 0.0, link)
        self._add(name, "kernel", stream, start, lasted, link | {"stream": stream, "device": self._run.rank})

    def begin_step(self, number: int) -> None:
        """A bar over everything until the next step begins or the trace is written; in a folder only, where tools look
        for it."""
        now = time.time_ns() / 1000
        if self._step is not None:
            name, start = self._step
            self._add(name, "user_annotation", 0, start, now - start, {})
            # Empty kernels at both ends, so that waiting there counts as idle time.
            self._add_kernel(COMPUTE_STREAM, "dhp_step_begin", start, 0.0)
            self._add_kernel(COMPUTE_STREAM, "dhp_step_end", now - 1, 0.0)
        self._step = (f"ProfilerStep#{number}", now) if self._folder else None

    def task(self, task: Task) -> contextlib.AbstractContextManager[None]:
        """A bar for a task, with its group and exchange."""
        details = {"ranks": list(task.ranks), "sequences": list(task.sequences), "exchange": task.exchange.name}
        return self.span(f"task {task.id}", "task", **details)

    def write(self) -> None:
        """Collective: every rank writes its own file, or rank 0 one of all. Raises InputError."""
        if self._path is None:
            return
        self.begin_step(0)  # ends the last one
        if self._folder:
            who = {"backend": "gloo", "rank": self._run.rank, "world_size": self._run.world_size}
            trace = {"distributedInfo": who, "traceEvents": self._events, "displayTimeUnit": "ms"}
            write_atomically("--trace", str(self._path / file_of(self._run.rank)), json.dumps(trace))
            return
        everyone = self._run.gather(self._events)
        if self._run.rank == 0:
            events = [event for own in everyone for event in own]
            text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
            write_atomically("--trace", str(self._path), text)
