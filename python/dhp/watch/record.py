"""What a training run was like, as a `dhp.result/1` file: `dhp train --result`; docs/report.md has the format.

Two clocks. *wall* is what a clock on the wall shows. *emulated* replays each plan with the seconds that its tasks took,
on CPUs those of their ranks' compute threads: where ranks share cores, wall time shows the machine and not the plan.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    InputError,
    Plan,
    activation_budget_bytes,
    replay,
    task_memory_bytes,
)
from dhp._core import Timeline as Replay
from dhp.base.output import check_writable, write_atomically
from dhp.run.runtime import Run
from dhp.settings.config import TrainConfig
from dhp.watch.result import CAUSES, Memory, Result, Span, Step, TaskTime, Timeline, columns

CLOCKS = ("auto", "emulated", "wall")
MOST_TASKS = 100_000  # kept: a long run would fill rank 0's memory
PARTS = ("reduce", "optimizer", "save")  # of a step, after its tasks
WARM_UP = 1  # steps before the one whose timeline is kept, unless asked otherwise

Interval = tuple[float, float]


@dataclass
class Stopwatch:
    """When this rank did what in a step: wall time (time.time), and seconds of computing: CPU time of its thread, or
    its device's without waits for other ranks."""

    started: float  # wall
    plan: Interval = (0.0, 0.0)  # waiting for the plan
    read_s: float = 0.0  # from the start until this rank's share was there
    data: Interval = (0.0, 0.0)  # waiting for the media of all ranks
    tasks: dict[int, Interval] = field(default_factory=dict)
    tasks_s: dict[int, float] = field(default_factory=dict)
    tasks_vision: dict[int, tuple[int, int]] = field(default_factory=dict)  # own patches, and pairs within frames
    parts: dict[str, Interval] = field(default_factory=dict)  # those of PARTS, in this order
    parts_s: dict[str, float] = field(default_factory=dict)


def chosen_clock(clock: str, device: str = "cpu") -> str:
    """`auto`: emulated where ranks share CPUs, more than this machine has. A device is a rank's own."""
    if clock != "auto":
        return clock
    if device != "cpu":
        return "wall"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return "emulated" if local > len(os.sched_getaffinity(0)) else "wall"


def check_result_options(file: str, step: int, steps: int) -> None:
    """Raises InputError if the file cannot be written, or its timeline's step is none of the run's. Before training:
    after it would be late."""
    if step and not 1 <= step <= steps:
        raise InputError(f"--result-step: found {step}, expected a step of the run, 1 to {steps}")
    check_writable("--result", file)


@dataclass(frozen=True)
class Measured:
    """A step by one of the clocks; `spans` of all ranks on rank 0."""

    seconds: float
    tasks_s: float
    idle_s: dict[str, float]
    task_s: list[float]
    spans: list[Span]


class Recorder:
    """Collects the steps of a run on rank 0 and writes them as one file. `step` and `write` are collective.

    file   "" records nothing
    clock  auto, emulated or wall
    step   whose timeline to keep; 0: the second of the run, or the first where there is no other
    """

    def __init__(self, file: str, run: Run, settings: TrainConfig, *, clock: str = "auto", step: int = 0) -> None:
        self._file, self._run, self._settings = file, run, settings
        self._clock = chosen_clock(clock, run.device.type)
        self._wanted, self._first = step, 0
        self._steps: list[Step] = []
        self._tasks: list[TaskTime] = []
        self._timeline: Timeline | None = None
        self._lengths: list[int] = []  # of its step
        self._peak = np.zeros(run.world_size)

    @property
    def records(self) -> bool:
        return bool(self._file)

    def begin(self, cluster: Cluster, cost: CostModel) -> None:
        """What the run is planned with."""
        self._cluster, self._cost = cluster, cost

    def step(
        self, number: int, plan: Plan, batch: Batch, planning_s: float, task_s: list[float], watch: Stopwatch
    ) -> None:
        """Adds a step. `task_s`: of the slowest member of each task, equal on all ranks; `watch`: this rank's."""
        if not self._file:
            return
        assert plan.predicted is not None, "planners annotate their plans"
        self._first = self._first or number
        keep = number == self._wanted or (not self._wanted and number - self._first <= WARM_UP)
        emulated = self._clock == "emulated"
        measured = self._emulated(plan, task_s, watch) if emulated else self._wall(plan, watch, keep)
        self._steps.append(
            Step(
                step=number,
                seconds=measured.seconds,
                tasks_s=measured.tasks_s,
                predicted_s=plan.predicted.makespan_s,
                expected_s=None,  # the step tells
                lower_bound_s=plan.predicted.lower_bound_s if plan.predicted.lower_bound_s > 0 else None,
                tokens=sum(sequence.tokens for sequence in batch.sequences),
                planning_s=planning_s,
                idle_s=measured.idle_s,
            )
        )
        self._add_tasks(number, plan, batch, measured.task_s)
        if keep and measured.spans:
            self._timeline = Timeline.of(number, measured.spans)
            self._lengths = [sequence.tokens for sequence in batch.sequences]
        if not self._settings.capacity_tokens:  # else "memory" counts tokens
            self._add_memory(plan, batch)

    def write(self) -> None:
        """Writes the file, on rank 0. Raises InputError where that is not possible any more."""
        if self._file and self._run.rank == 0 and self._steps:
            write_atomically("--result", self._file, self._result().to_json())

    def _result(self) -> Result:
        settings, ranks = self._settings, self._run.world_size
        memory = None
        if not settings.capacity_tokens:
            memory = Memory(activation_budget_bytes(self._cost, self._cluster), self._peak, None)
        return Result(
            source=self._file,
            kind="measured",
            name=f"{settings.planner}, {Path(settings.data_name).stem}, {ranks} ranks",
            planner=settings.planner,
            ranks=ranks,
            ranks_in_service=ranks,
            ranks_per_node=self._cluster.ranks_per_node,
            clock=self._clock,
            steps=self._steps,
            tasks=columns(self._tasks) if self._tasks else None,
            timeline=self._timeline,
            memory=memory,
            lengths=np.array(self._lengths) if self._timeline else None,
        )

    def _add_tasks(self, number: int, plan: Plan, batch: Batch, seconds: list[float]) -> None:
        if len(self._tasks) + len(plan.tasks) > MOST_TASKS:
            return
        tokens = {sequence.id: sequence.tokens for sequence in batch.sequences}
        self._tasks += [
            TaskTime(
                step=number,
                id=task.id,
                degree=len(task.ranks),
                sequences=len(task.sequences),
                tokens=sum(tokens[i] for i in task.sequences),
                predicted_s=(task.end_s or 0.0) - (task.start_s or 0.0),
                seconds=took,
            )
            for task, took in zip(plan.tasks, seconds, strict=True)
        ]

    def _add_memory(self, plan: Plan, batch: Batch) -> None:
        by_id = {sequence.id: sequence for sequence in batch.sequences}
        for task in plan.tasks:
            held = task_memory_bytes(self._cost, [by_id[i] for i in task.sequences], len(task.ranks))
            for rank in task.ranks:
                self._peak[rank] = max(self._peak[rank], held)

    def _emulated(self, plan: Plan, task_s: list[float], watch: Stopwatch) -> Measured:
        """The replay, between the longest wait for plan and data, which all ranks share, and the slowest rank's other
        work."""
        parts = [part for part in PARTS if part in watch.parts]  # the same on all ranks
        slowest = torch.tensor([watch.read_s, *(watch.parts_s[part] for part in parts)], dtype=torch.float64)
        data_s, *parts_s = self._run.max(slowest).tolist()
        lines = replay(plan, task_s)
        spans = replay_spans(plan, lines, data_s)
        at = data_s + lines.makespan_s
        for rank in range(plan.ranks):
            if data_s > 0:
                spans.append(Span(rank, "data", 0.0, data_s))
            begin = at
            for part, seconds in zip(parts, parts_s, strict=True):
                spans.append(Span(rank, part, begin, begin + seconds))
                begin += seconds
        idle = dict.fromkeys(CAUSES, 0.0)
        del idle["transfer"]  # waiting takes no CPU time: not known
        for span in spans:
            if span.kind in idle:
                idle[span.kind] += span.end_s - span.start_s
        idle["no_task"] = max(0.0, plan.ranks * lines.makespan_s - sum(lines.busy_s) - idle["peer"])
        return Measured(at + sum(parts_s), lines.makespan_s, idle, task_s, spans)

    def _wall(self, plan: Plan, watch: Stopwatch, keep: bool) -> Measured:
        """Every rank's own times. A task begins once its last member has come; time from there on that is not computing
        is waiting for shards. Gradients are summed once the last task has ended."""
        run = self._run
        began = -run.max(torch.tensor([-watch.started], dtype=torch.float64)).item()
        times = torch.full((2, len(plan.tasks)), -float("inf"), dtype=torch.float64)
        for task, (start, end) in watch.tasks.items():
            times[0, task], times[1, task] = start - began, end - began
        came, went = run.max(times).tolist()  # the last member of each task
        data_end, step_end = watch.data[1] - began, max(end for _, end in watch.parts.values()) - began
        seconds, first = run.max(torch.tensor([step_end, -data_end], dtype=torch.float64)).tolist()
        finished = max(went, default=data_end)
        spans = own_spans(run.rank, watch, began, came, finished, {t.id for t in plan.tasks if len(t.ranks) > 1})
        last = max([end - began for _, end in watch.tasks.values()], default=data_end)
        idle = torch.zeros(len(CAUSES), dtype=torch.float64)
        idle[CAUSES.index("no_task")] = max(0.0, finished - last)
        for span in spans:
            if span.kind in CAUSES:
                idle[CAUSES.index(span.kind)] += span.end_s - span.start_s
        run.sum(idle)
        everyone = [span for own in run.gather(spans) for span in own] if keep else []
        took = [max(0.0, end - start) for start, end in zip(came, went, strict=True)]
        idle_s = dict(zip(CAUSES, idle.tolist(), strict=True))
        return Measured(seconds, max(0.0, finished + first), idle_s, took, everyone)


def replay_spans(plan: Plan, lines: Replay, start_s: float) -> list[Span]:
    """What ranks compute, and wait for members of their next task, in a replay that begins at `start_s`."""
    spans: list[Span] = []
    free = [0.0] * plan.ranks
    for task, start, end in zip(plan.tasks, lines.start_s, lines.end_s, strict=True):
        for rank in task.ranks:
            if start > free[rank]:
                spans.append(Span(rank, "peer", start_s + free[rank], start_s + start, task.id))
            if end > start:
                spans.append(Span(rank, "compute", start_s + start, start_s + end, task.id))
            free[rank] = end
    return spans


def own_spans(
    rank: int, watch: Stopwatch, began: float, came: list[float], finished: float, shared: set[int]
) -> list[Span]:
    """What one rank did by the clock on the wall, from `began`. `came`: when the last member of each task did;
    `finished`: when the last task of all had ended; `shared`: tasks of several ranks."""
    spans: list[Span] = []

    def add(kind: str, start: float, end: float, task: int = -1) -> None:
        if end > start:
            spans.append(Span(rank, kind, max(0.0, start), end, task))

    add("data", watch.started - began, watch.data[1] - began)  # for the plan, too
    for task, (start, end) in watch.tasks.items():
        start, end = start - began, end - began
        begins = max(start, came[task])
        waits = max(0.0, end - begins - watch.tasks_s[task]) if task in shared else 0.0
        add("peer", start, begins, task)
        add("compute", begins, end - waits, task)
        add("transfer", end - waits, end, task)
    for kind, (start, end) in watch.parts.items():
        add(kind, max(start - began, finished), end - began)
    return spans
