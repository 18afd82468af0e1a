"""Global batches: drawn and planned on every rank, each rank's share read while the batch before it trains."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from dhp import runtime
from dhp._core import Batch, Cluster, CostModel, InputError, Plan
from dhp.config import TrainConfig
from dhp.dataset import Dataset, Share
from dhp.output import complain
from dhp.recalibrate import Recalibration
from dhp.runtime import Run


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
    """The batches of all steps; each is planned, and its share being read, while the one before it trains. So
    a cost that is fitted after a step first plans the second step from there."""
    ahead: Prepared | None = None
    for step in steps:
        now, ahead = ahead, prepare(step, data, cluster, costs.cost, settings, run)
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
        plan = runtime.plan(batch, cluster, cost, schedule=settings.schedule, **options)
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
        problem = next(iter(share.failed.values()), "another rank names the file")
        raise InputError(
            f"{settings.data}: samples {dropped} cannot be read: {problem}; "
            'mend or remove them, or set on_bad_media = "skip"'
        )
    share.drop(now.plan, dropped)
    return dropped
