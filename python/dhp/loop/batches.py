"""Global batches: drawn and planned on every rank, each rank's share read, while the batch before it trains."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from dhp._core import Batch, InputError, Plan
from dhp.base.output import complain
from dhp.cost.recalibrate import Basis, Recalibration
from dhp.data.dataset import Dataset, Share
from dhp.run import planning
from dhp.run.runtime import Run, RunStopped
from dhp.settings.config import TrainConfig

SAMPLES = 1_000  # that Drops looks back over
FEWEST = 20  # dropped ones that end a run before it has seen so many


@dataclass
class Prepared:
    """A batch, its plan, and this rank's share of it, which is being read."""

    step: int  # from 0
    batch: Batch
    plan: Plan
    plan_s: float  # to draw, plan and check it
    rank_speed: list[float]  # that it was planned with; empty: all alike
    share: Future[Share]


class Ahead:
    """The batches of `steps`, planned in a thread, one ahead: while a batch trains, the next one is planned and this
    rank's share of it begins to be read. The first is planned from now on; `begin` follows each `take`. So a cost that
    is fitted after a step first plans the second step from there.
    """

    def __init__(self, steps: range, data: Dataset, costs: Recalibration, settings: TrainConfig, rank: int) -> None:
        self.steps = steps
        self._data, self._costs, self._settings, self._rank = data, costs, settings, rank
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dhp-plan")
        self._next: Future[Prepared] | None = None
        self._begin(steps.start, costs.ahead)  # as the run before would have, where one continues

    def take(self) -> Prepared:
        """The batch of the next step, once it is planned. Raises whatever planning has raised."""
        assert self._next is not None, f"no batch is left of {self.steps}"
        return self._next.result()

    def begin(self, step: int) -> None:
        """Begins with the batch of this step, if the run has it."""
        self._begin(step, self._costs.now)

    def close(self) -> None:
        """Ends the thread, once it has planned what it plans."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _begin(self, step: int, basis: Basis) -> None:
        self._next = None
        if step in self.steps:
            self._next = self._thread.submit(prepare, step, self._data, basis, self._settings, self._rank)


def prepare(step: int, data: Dataset, basis: Basis, settings: TrainConfig, rank: int) -> Prepared:
    """Draws and plans a global batch, as every rank does, and starts to read this rank's share. Rank 0 alone, which
    tells the gap, works out the tighter bound."""
    started = time.perf_counter()
    batch = data.batch(step, settings.global_batch_size, settings.seed)
    bound = {"tighter_bound": rank == 0 and settings.plan.get("tighter_bound", True)}
    plan = planning.plan(batch, basis.cluster, basis.cost, planner=settings.planner, **(settings.plan | bound))
    seconds = time.perf_counter() - started
    return Prepared(step, batch, plan, seconds, basis.cluster.rank_speed, data.read_ahead(plan, rank))


def agree_on_dropped(share: Share, now: Prepared, data: Dataset, settings: TrainConfig, run: Run) -> list[int]:
    """Sample ids that some rank could not read. All ranks drop the same, so the batch stays one batch."""
    for sample_id, problem in share.failed.items():
        complain(f"dhp: {data.draws.name(sample_id)}: {problem}")
    ids = [sequence.id for sequence in now.batch.sequences]
    flags = run.max(torch.tensor([i in share.failed for i in ids], dtype=torch.uint8))
    dropped = [i for i, flag in zip(ids, flags.tolist(), strict=True) if flag]
    if dropped and settings.on_bad_media == "fail":
        problems = run.all(next(iter(share.failed.values()), ""))
        named = ", ".join(map(data.draws.name, dropped))
        raise InputError(
            f"{settings.data_name}: {named} cannot be read: {next(filter(None, problems), '')}; "
            'mend or remove them, or set on_bad_media = "skip"'
        )
    share.drop(now.plan, dropped)
    return dropped


class Drops:
    """How many of the newest samples were dropped. Counted from the start of the process: who mends a mount and resumes
    starts anew."""

    def __init__(self, most_share: float) -> None:
        self._most_share = most_share
        self._steps: deque[tuple[int, int]] = deque()  # samples, dropped; the newest SAMPLES and what their steps add

    def add(self, step: int, samples: int, dropped: int) -> None:
        """One step's. Raises RunStopped, on every rank alike, where it has nothing to train on, or where too many of
        the newest SAMPLES were dropped. Until there are so many, FEWEST must be: one of the first eight says little.
        """
        if dropped == samples:
            raise RunStopped(f"step {step}: all {samples} samples of the batch were dropped: nothing to train on")
        self._steps.append((samples, dropped))
        while sum(count for count, _ in self._steps) - self._steps[0][0] >= SAMPLES:
            self._steps.popleft()
        seen, lost = (sum(column) for column in zip(*self._steps, strict=True))
        enough = lost >= FEWEST or seen >= SAMPLES or self._most_share == 0
        if lost > self._most_share * seen and enough:
            raise RunStopped(
                f"step {step}: {lost} of the last {seen:,} samples were dropped, more than max_dropped_share = "
                f"{self._most_share:g} of them; make their media readable, or raise it"
            )
