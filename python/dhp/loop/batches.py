"""Global batches: drawn and planned on every rank, each rank's share read while the batch before it trains."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from dhp._core import Batch, Cluster, CostModel, InputError, Plan
from dhp.base.output import complain
from dhp.cost.recalibrate import Recalibration
from dhp.data.dataset import Dataset, Share
from dhp.run import runtime
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
    plan_s: float
    share: Future[Share]


def prepare_ahead(
    steps: range, data: Dataset, cluster: Cluster, costs: Recalibration, settings: TrainConfig, run: Run
) -> Iterator[Prepared]:
    """The batches of these steps; each is planned, and its share being read, while the one before it trains. So
    a cost that is fitted after a step first plans the second step from there."""
    ahead: Prepared | None = None
    for step in steps:
        cost = costs.cost if ahead else costs.cost_ahead  # a run that continues plans as the one before would have
        now, ahead = ahead, prepare(step, data, cluster, cost, settings, run)
        if now:
            yield now
    if ahead:
        yield ahead


def prepare(step: int, data: Dataset, cluster: Cluster, cost: CostModel, settings: TrainConfig, run: Run) -> Prepared:
    """Draws and plans a global batch, as every rank does, and starts to read this rank's share."""
    with run.at(f"step {step + 1}, planning"):
        batch = data.batch(step, settings.global_batch_size, settings.seed)
        started = time.perf_counter()
        options = {"tighter_bound": True, **settings.plan}  # a step takes far longer than the bound
        plan = runtime.plan(batch, cluster, cost, planner=settings.planner, **options)
        plan_s = time.perf_counter() - started
        runtime.agree_on(plan, run)
        return Prepared(step, batch, plan, plan_s, data.read_ahead(plan, run.rank))


def agree_on_dropped(share: Share, now: Prepared, data: Dataset, settings: TrainConfig, run: Run) -> list[int]:
    """Sample ids that some rank could not read. All ranks drop the same, so the batch stays one batch."""
    for sample_id, problem in share.failed.items():
        complain(f"dhp: sample {sample_id}: {problem}")
    ids = [sequence.id for sequence in now.batch.sequences]
    flags = run.max(torch.tensor([i in share.failed for i in ids], dtype=torch.uint8))
    dropped = [i for i, flag in zip(ids, flags.tolist(), strict=True) if flag]
    if dropped and settings.on_bad_media == "fail":
        problems = run.all(next(iter(share.failed.values()), ""))
        raise InputError(
            f"{settings.data}: samples {dropped} cannot be read: {next(filter(None, problems), '')}; "
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
