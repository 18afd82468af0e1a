"""Chrome trace events of a run: open the file in Perfetto (ui.perfetto.dev) or chrome://tracing."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dhp._core import Task
from dhp.runtime import Run


class Tracer:
    """Collects what one rank does; `write` merges the ranks into one file. Without a file it does nothing.

    One process ("pid") a rank; its compute is thread 0, its reader thread 1. Times are microseconds of the wall clock.
    """

    def __init__(self, file: str | Path | None, run: Run) -> None:
        self._file = Path(file) if file else None
        self._run = run
        self._events: list[dict[str, Any]] = []
        self._main = threading.get_ident()
        self._name("process_name", 0, f"rank {run.rank}")
        self._name("thread_name", 0, "compute")
        self._name("thread_name", 1, "read")

    def _name(self, kind: str, thread: int, name: str) -> None:
        self._events.append({"ph": "M", "name": kind, "pid": self._run.rank, "tid": thread, "args": {"name": name}})

    @contextlib.contextmanager
    def span(self, name: str, category: str, **details: Any) -> Iterator[None]:
        """One bar in the trace."""
        if self._file is None:
            yield
            return
        start = time.time_ns()
        try:
            yield
        finally:
            thread = 0 if threading.get_ident() == self._main else 1
            self._events.append(
                {
                    "ph": "X",
                    "name": name,
                    "cat": category,
                    "pid": self._run.rank,
                    "tid": thread,
                    "ts": start / 1000,
                    "dur": (time.time_ns() - start) / 1000,
                    "args": details,
                }
            )

    def task(self, task: Task) -> contextlib.AbstractContextManager[None]:
        """A bar for a task, with its group and exchange."""
        details = {"ranks": list(task.ranks), "sequences": list(task.sequences), "exchange": task.exchange.name}
        return self.span(f"task {task.id}", "task", **details)

    def write(self) -> None:
        """Collective: every rank writes its part, rank 0 joins them."""
        if self._file is None:
            return
        parts = [self._file.with_name(f"{self._file.name}.rank{rank}") for rank in range(self._run.world_size)]
        parts[self._run.rank].write_text(json.dumps(self._events))
        self._run.barrier()
        if self._run.rank == 0:
            events = [event for part in parts for event in json.loads(part.read_text())]
            self._file.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))
            for part in parts:
                part.unlink()
        self._run.barrier()
