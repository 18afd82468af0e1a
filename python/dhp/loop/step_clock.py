"""Loss and times of a step, and the record that is made of them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

import torch

from dhp._core import Plan, Task, replay
from dhp.cost.fit import error_of
from dhp.cost.speeds import MemberTimes
from dhp.loop.batches import Prepared
from dhp.loop.spans import Span, spans_of
from dhp.run.devices import read_together
from dhp.run.runtime import Run
from dhp.watch.record import Stopwatch
from dhp.watch.steps import StepRecord


class StepClock:
    """Loss and times of one step, which begins now: first of this rank, after `combine` of all. In its record the step
    begins where the record of the step `after` which it comes was made, so that saving that one counts, too. Nothing
    here waits for the device of `run` but `read` and `finish`; without a run, times are those of this thread."""

    def __init__(self, run: Run | None = None, after: StepClock | None = None) -> None:
        self._started = time.perf_counter()  # first: a step leaves out nothing that its trace shows
        self.loss = torch.zeros((), dtype=torch.float64)
        self.watch = Stopwatch(started=time.time())
        self._recorded: float = 0.0
        self._counts_from = self._started if after is None else after._recorded
        self._plan_wait_s = self._read_wait_s = 0.0
        self._bad: set[int] = set()  # tasks whose loss is not finite
        self._unread: list[tuple[int, torch.Tensor]] = []  # losses, by task
        self._spans = spans_of(run)

    @contextlib.contextmanager
    def planning(self) -> Iterator[None]:
        """Waiting for the plan: what the step before did not hide."""
        yield
        self._plan_wait_s = time.perf_counter() - self._started
        self.watch.plan = (self.watch.started, time.time())

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        started, wall = time.perf_counter(), time.time()
        yield
        self._read_wait_s = time.perf_counter() - started
        self.watch.data = (wall, time.time())

    def has_read(self) -> None:
        """This rank's share is there; others may still read theirs."""
        self.watch.read_s = time.time() - self.watch.started

    @contextlib.contextmanager
    def task(self, task: Task, vision: tuple[int, int]) -> Iterator[None]:
        """What the task costs: CPU time of the computing thread, or the device's. `vision`: what of it this rank
        encodes (`TaskLayout.own_vision`)."""
        with self._spans.span(task.id, is_task=True):
            yield
        self.watch.tasks_vision[task.id] = vision
        self._collect()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Work of the step that is no task: reduce, optimizer, save."""
        with self._spans.span(name):
            yield
        self._collect()

    def finish(self) -> None:
        """Waits for the device, so that the watch has all that the step did."""
        self._spans.finish()
        self._collect()

    def _collect(self) -> None:
        for key, span in self._spans.take().items():
            self._add_span(key, span)

    def _add_span(self, key: int | str, span: Span) -> None:
        if isinstance(key, int):
            self.watch.tasks_s[key], self.watch.tasks[key] = span.seconds, (span.begin, span.end)
        else:
            self.watch.parts_s[key], self.watch.parts[key] = span.seconds, (span.begin, span.end)

    def add_loss(self, task: Task, loss: torch.Tensor) -> None:
        """Of this rank's share of a task; it is read later."""
        self._unread.append((task.id, loss.detach()))

    def read(self, scalars: list[torch.Tensor]) -> list[float]:
        """Their values, and in the same wait of the host those of the losses. Once a step, after the last task."""
        every = [*scalars, *(loss for _, loss in self._unread)]
        self._spans.before_reading()
        values = read_together(every)
        self._spans.after_reading()
        for (task, _), loss in zip(self._unread, values[len(scalars) :], strict=True):
            self.loss += loss
            if not math.isfinite(loss):
                self._bad.add(task)
        self._unread = []
        return values[: len(scalars)]

    def combine(self, run: Run, plan: Plan, finite: bool, norm: float) -> list[int]:
        """After `read`. Losses add up; all ranks learn what every member of every task took, and a task lasts as long
        as its slowest. `finite`: whether this rank's own gradients were, and `norm` that of their sum. Returns the
        ranks whose own were not, all of them where only the sum is not."""
        run.sum(self.loss)
        ids = [task.id for task in plan.tasks]
        own = self._own_members(run.rank, plan)
        bad_losses = torch.tensor([float(i in self._bad) for i in ids], dtype=torch.float64)
        bad = torch.zeros(run.world_size + 1, dtype=torch.float64)
        bad[run.rank] = float(not finite)
        bad[-1] = float(not math.isfinite(norm))
        most = run.max(torch.cat([own.flatten(), bad_losses, bad]))
        members, self.bad_losses, bad = most.split([own.numel(), len(ids), len(bad)])
        of_tasks = members.view(-1, 3).split([len(task.ranks) for task in plan.tasks])
        self.members = [MemberTimes(*(tuple(column) for column in of.T.tolist())) for of in of_tasks]
        self.task_s = torch.tensor([max(task.seconds) for task in self.members], dtype=torch.float64)
        ranks = bad[:-1].nonzero().flatten().tolist()
        return ranks or (list(range(run.world_size)) if bad[-1] else [])

    def _own_members(self, rank: int, plan: Plan) -> torch.Tensor:
        """[members of all tasks, 3]: seconds of computing, patches and pairs of patches, 0 for other ranks."""
        rows = [
            (self.watch.tasks_s.get(task.id, 0.0), *self.watch.tasks_vision.get(task.id, (0, 0)))
            if member == rank
            else (0.0, 0, 0)
            for task in plan.tasks
            for member in task.ranks
        ]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)

    def record(
        self, now: Prepared, valid_tokens: int, dropped: list[int], norm: float, rate: float, skipped: str
    ) -> StepRecord:
        tasks, predicted = now.plan.tasks, now.plan.predicted
        assert predicted is not None, "planners annotate their plans"
        emulated = replay(now.plan, self.task_s.tolist())
        planned_s = [(task.end_s or 0.0) - (task.start_s or 0.0) for task in tasks]
        planned = replay(now.plan, planned_s)
        tokens = sum(sequence.tokens for sequence in now.batch.sequences)
        self._recorded = time.perf_counter()
        seconds = self._recorded - self._counts_from
        return StepRecord(
            step=now.step + 1,
            loss=self.loss.item(),
            tokens=tokens,
            label_tokens=valid_tokens,
            samples=len(now.batch.sequences),
            degrees=sorted((len(task.ranks) for task in tasks), reverse=True),
            micro_batches=len({task.micro_batch for task in tasks}),
            seconds=seconds,
            tokens_per_s=tokens / seconds,
            plan_s=now.plan_s,
            plan_wait_s=self._plan_wait_s,
            read_wait_s=self._read_wait_s,
            idle_share=emulated.idle_share,
            emulated_step_s=emulated.makespan_s,
            predicted_step_s=predicted.makespan_s,
            predicted_idle_share=planned.idle_share,
            lower_bound_s=predicted.lower_bound_s,
            gap=predicted.gap,
            grad_norm=norm,
            learning_rate=rate,
            dropped=dropped,
            skipped=skipped,
            task_error=error_of(planned_s, self.task_s.tolist()).mean,
            rank_speed=list(now.rank_speed),
        )
