"""Chrome trace events of a run: open them in Perfetto (ui.perfetto.dev) or chrome://tracing.

A path that ends in .json is one file of all ranks. Any other is a folder with a file a rank, in the form that Holistic
Trace Analysis reads (facebookresearch/HolisticTraceAnalysis: hta/common/trace_parser.py, hta/common/types.py): who the
rank is under "distributedInfo", "ProfilerStep#K" over each step, and what a device would run as events of the category
"kernel" that name a stream and, by "correlation", the call that launched them. Names that begin with "nccl" count as
communication there, all others as computing.
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

from dhp._core import COMPUTE_STREAM, FIRST_CORRELATION, TRANSFER_STREAM, InputError, Plan, rank_trace_name
from dhp.base.output import check_writable, write_atomically
from dhp.run.devices import backend_of
from dhp.run.runtime import Run
from dhp.watch.record import Interval, Stopwatch

NAMES = {"reduce": "gradients"}  # of parts of a step; others are called as their category
# What each category is for Holistic Trace Analysis; others, such as reading, are no work of a device.
KERNELS = {
    "task": (COMPUTE_STREAM, "dhp_task"),
    "reduce": (TRANSFER_STREAM, "ncclDevKernel_AllReduce_Sum_f32"),
    "optimizer": (COMPUTE_STREAM, "dhp_optimizer"),
}


def check_folder(folder: str) -> None:
    """Makes the folder; raises InputError where that is not possible, where it cannot be written, or where it holds
    files of other ranks, which tools would take for this run's."""
    check_writable("--trace", str(Path(folder) / rank_trace_name(0)))
    others = sorted(Path(folder).glob("*.json*"))
    if others:
        raise InputError(f"--trace: {folder} holds {others[0].name} already; give an empty or a new folder")


class Tracer:
    """Collects what one rank does; `write` writes it. Without a path it does nothing.

    One process ("pid") a rank. Times are microseconds of the wall clock.
    """

    def __init__(self, path: str | Path | None, run: Run) -> None:
        self._path = Path(path) if path else None
        self._folder = self._path is not None and self._path.suffix != ".json"
        self._run = run
        name = {"ph": "M", "name": "process_name", "pid": run.rank, "tid": 0, "args": {"name": f"rank {run.rank}"}}
        self._events: list[dict[str, Any]] = [name]
        self._launches = FIRST_CORRELATION
        self._steps: list[tuple[str, float]] = []  # and when they begin

    @property
    def traces(self) -> bool:
        return self._path is not None

    def step(self, number: int, plan: Plan, watch: Stopwatch) -> None:
        """Adds what this rank did in a step."""
        if not self.traces:
            return
        self._steps.append((f"ProfilerStep#{number}", watch.started * 1e6))
        self._bar("wait for the plan", "plan", watch.plan)
        self._bar("wait for data", "data", watch.data)
        for task in plan.tasks:
            if task.id in watch.tasks:
                about = {"ranks": list(task.ranks), "sequences": list(task.sequences), "exchange": task.exchange.name}
                self._bar(f"task {task.id}", "task", watch.tasks[task.id], about)
        for part, interval in watch.parts.items():
            self._bar(NAMES.get(part, part), part, interval)

    def _bar(self, name: str, category: str, interval: Interval, about: dict[str, Any] | None = None) -> None:
        start, end = (time_s * 1e6 for time_s in interval)
        self._add(name, category, 0, start, end - start, about or {})
        if self._folder and category in KERNELS:
            self._add_kernel(*KERNELS[category], start, end - start)

    def _add(self, name: str, category: str, thread: int, start: float, lasted: float, about: dict[str, Any]) -> None:
        event = {"ph": "X", "name": name, "cat": category, "pid": self._run.rank, "tid": thread}
        self._events.append(event | {"ts": start, "dur": lasted, "args": about})

    def _add_kernel(self, stream: int, name: str, start: float, lasted: float) -> None:
        """What a device ran, and the call that launched it."""
        self._launches += 1
        link = {"correlation": self._launches}
        self._add("cudaLaunchKernel", "cuda_runtime", 0, start, 0.0, link)
        self._add(name, "kernel", stream, start, lasted, link | {"stream": stream, "device": self._run.rank})

    def _add_steps(self) -> None:
        """A bar over everything until the next step begins or the trace is written."""
        for (name, start), (_, end) in itertools.pairwise([*self._steps, ("", time.time() * 1e6)]):
            self._add(name, "user_annotation", 0, start, end - start, {})
            # Empty kernels at both ends, so that waiting there counts as idle time.
            self._add_kernel(COMPUTE_STREAM, "dhp_step_begin", start, 0.0)
            self._add_kernel(COMPUTE_STREAM, "dhp_step_end", end - 1, 0.0)

    def write(self) -> None:
        """Collective: every rank writes its own file, or rank 0 one of all. Raises InputError."""
        if self._path is None:
            return
        if self._folder:
            self._add_steps()
            who = {"backend": backend_of(self._run.device), "rank": self._run.rank, "world_size": self._run.world_size}
            trace = {"distributedInfo": who, "traceEvents": self._events, "displayTimeUnit": "ms"}
            write_atomically("--trace", str(self._path / rank_trace_name(self._run.rank)), json.dumps(trace))
            return
        everyone = self._run.gather(self._events)
        if self._run.rank == 0:
            events = [event for own in everyone for event in own]
            text = json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})
            write_atomically("--trace", str(self._path), text)
