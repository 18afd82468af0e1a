"""Dynamic hybrid parallelism: train vision-language models on long, uneven data.

A training loop of your own (examples/own_loop.py is this, runnable):

    with dhp.init() as run:                                    # one process a rank: torchrun, SLURM, or alone
        adapter = dhp.attach(model)                            # a Hugging Face model
        data = dhp.Dataset("train.jsonl", "checkpoint")        # ms-swift JSONL
        for step in range(steps):
            batch = data.batch(step, size=64)
            plan = dhp.plan(batch, cluster, cost, run=run)     # who shares what; the same on every rank
            for task in dhp.tasks(plan):                       # this rank's, in plan order
                loss = adapter.loss(data.read(task, run.rank), task, data.label_tokens(batch))
                loss.backward()
            dhp.reduce_gradients(model)                        # exactly the gradients of one process
            optimizer.step()
            optimizer.zero_grad()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    InputError,
    Plan,
    Task,
    check_plan,
    plan_batch,
    read_batch,
    read_cluster,
    read_cost_model,
    read_plan,
)

if TYPE_CHECKING:
    from dhp.cost.local import local_cluster, local_cost
    from dhp.data.dataset import Dataset
    from dhp.models import attach
    from dhp.run.entry import init, join
    from dhp.run.runtime import InfeasibleBatch, RankFailed, Run, plan, tasks
    from dhp.step.gradients import reduce_gradients

# Planning needs no torch: what does is imported when it is first used.
_LATER = {
    "Dataset": "dhp.data.dataset",
    "InfeasibleBatch": "dhp.run.runtime",
    "RankFailed": "dhp.run.runtime",
    "Run": "dhp.run.runtime",
    "attach": "dhp.models",
    "init": "dhp.run.entry",
    "join": "dhp.run.entry",
    "local_cluster": "dhp.cost.local",
    "local_cost": "dhp.cost.local",
    "plan": "dhp.run.runtime",
    "reduce_gradients": "dhp.step.gradients",
    "tasks": "dhp.run.runtime",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'dhp' has no attribute '{name}'")


__all__ = [
    "Batch",
    "Cluster",
    "CostModel",
    "Dataset",
    "InfeasibleBatch",
    "InputError",
    "Plan",
    "RankFailed",
    "Run",
    "Task",
    "attach",
    "check_plan",
    "init",
    "join",
    "local_cluster",
    "local_cost",
    "plan",
    "plan_batch",
    "read_batch",
    "read_cluster",
    "read_cost_model",
    "read_plan",
    "reduce_gradients",
    "tasks",
]
