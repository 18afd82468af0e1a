"""Dynamic hybrid parallelism: train vision-language models on long, uneven data.

A training loop of your own (examples/own_loop.py is this, runnable):

    with dhp.init() as run:                                    # one process per rank: torchrun, SLURM, or alone
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

In a program that already has a process group (Accelerate, Trainer, Megatron, FSDP), call `dhp.join()` instead of
`dhp.init()`. Planning, simulating and explaining need neither torch nor a run: `dhp.plan(batch, cluster, cost)` returns
a plan or raises InfeasibleBatch; `dhp.try_plan(batch, cluster, cost)` returns a Plan, or an Infeasible that gives the
reason.
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from dhp._core import (
    Batch,
    Change,
    Cluster,
    CostModel,
    Device,
    ErrorSizes,
    Exchange,
    Explanation,
    Freeze,
    IdleTime,
    Infeasible,
    InputError,
    Link,
    MediumOptions,
    MediumTokens,
    NamedText,
    OptionInfo,
    PassCost,
    Placement,
    Plan,
    PlanMetrics,
    PlannerInfo,
    Prediction,
    Preset,
    Recompute,
    ResidualFactor,
    Schedule,
    Sequence,
    SimulatedRank,
    SimulatedStep,
    SimulatedTask,
    Simulation,
    Task,
    TaskReason,
    Timeline,
    TokenRange,
    TokenRules,
    Video,
    Wait,
    WhatIf,
    activation_budget_bytes,
    analytic_cost,
    annotate,
    check_options,
    check_plan,
    chrome_trace,
    cluster_presets,
    device_presets,
    explain_changes,
    explain_plan,
    explain_tasks,
    image_tokens,
    infeasible_sequences,
    min_degree,
    model_presets,
    noise_factors,
    noisy_makespans,
    padded_tokens,
    parse_batch_json,
    parse_cluster,
    parse_cost_model,
    parse_error_sizes,
    parse_freeze,
    parse_plan,
    plan_hash,
    plan_metrics,
    plan_options,
    planners,
    predict_task_seconds,
    rank_trace_name,
    read_batch,
    read_cluster,
    read_cost_model,
    read_device,
    read_model_config,
    read_plan,
    read_token_rules,
    refuse_unused,
    replay,
    result_json,
    shard_ranges,
    simple_lower_bound_s,
    simulate,
    task_memory_bytes,
    task_seconds,
    tighter_lower_bound_s,
    to_json,
    token_rules,
    try_plan,
    validate_options,
    video_tokens,
)
from dhp.run.planning import InfeasibleBatch, plan

if TYPE_CHECKING:
    from dhp.cost.local import local_cluster, local_cost
    from dhp.data.dataset import Dataset
    from dhp.models import Adapter, attach, detach, freeze
    from dhp.run.entry import init, join
    from dhp.run.runtime import RankFailed, Run, RunStopped, agree_on, current_run, tasks
    from dhp.step.gradients import reduce_gradients
    from dhp.task.input import TaskInput
    from dhp.task.layout import TaskLayout
    from dhp.watch.result import Result, read_result

# Planning needs no torch: what does is imported when it is first used.
_LATER = {
    "Adapter": "dhp.models",
    "Dataset": "dhp.data.dataset",
    "RankFailed": "dhp.run.runtime",
    "Result": "dhp.watch.result",
    "Run": "dhp.run.runtime",
    "RunStopped": "dhp.run.runtime",
    "TaskInput": "dhp.task.input",
    "TaskLayout": "dhp.task.layout",
    "agree_on": "dhp.run.runtime",
    "attach": "dhp.models",
    "current_run": "dhp.run.runtime",
    "detach": "dhp.models",
    "freeze": "dhp.models",
    "init": "dhp.run.entry",
    "join": "dhp.run.entry",
    "local_cluster": "dhp.cost.local",
    "local_cost": "dhp.cost.local",
    "read_result": "dhp.watch.result",
    "reduce_gradients": "dhp.step.gradients",
    "tasks": "dhp.run.runtime",
}
_RENAMED = {"plan_batch": "try_plan"}  # then: now


def __getattr__(name: str) -> Any:
    if name in _LATER:
        try:
            return getattr(importlib.import_module(_LATER[name]), name)
        except ModuleNotFoundError as error:
            if (error.name or "dhp").split(".")[0] == "dhp":
                raise
            torch = "torch " * (error.name == "torch")
            words = f'dhp.{name} needs {error.name}: pip install {torch}"dhp[train]"'
            raise ModuleNotFoundError(words, name=error.name) from None
    if name in _RENAMED:
        # A DeprecationWarning is hidden unless the call stands in the main program.
        words = f"dhp.{name} is now dhp.{_RENAMED[name]}; the next release drops the old name"
        warnings.warn(words, FutureWarning, stacklevel=2)
        return globals()[_RENAMED[name]]
    raise AttributeError(f"module 'dhp' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "Adapter",
    "Batch",
    "Change",
    "Cluster",
    "CostModel",
    "Dataset",
    "Device",
    "ErrorSizes",
    "Exchange",
    "Explanation",
    "Freeze",
    "IdleTime",
    "Infeasible",
    "InfeasibleBatch",
    "InputError",
    "Link",
    "MediumOptions",
    "MediumTokens",
    "NamedText",
    "OptionInfo",
    "PassCost",
    "Placement",
    "Plan",
    "PlanMetrics",
    "PlannerInfo",
    "Prediction",
    "Preset",
    "RankFailed",
    "Recompute",
    "ResidualFactor",
    "Result",
    "Run",
    "RunStopped",
    "Schedule",
    "Sequence",
    "SimulatedRank",
    "SimulatedStep",
    "SimulatedTask",
    "Simulation",
    "Task",
    "TaskInput",
    "TaskLayout",
    "TaskReason",
    "Timeline",
    "TokenRange",
    "TokenRules",
    "Video",
    "Wait",
    "WhatIf",
    "activation_budget_bytes",
    "agree_on",
    "analytic_cost",
    "annotate",
    "attach",
    "check_options",
    "check_plan",
    "chrome_trace",
    "cluster_presets",
    "current_run",
    "detach",
    "device_presets",
    "explain_changes",
    "explain_plan",
    "explain_tasks",
    "freeze",
    "image_tokens",
    "infeasible_sequences",
    "init",
    "join",
    "local_cluster",
    "local_cost",
    "min_degree",
    "model_presets",
    "noise_factors",
    "noisy_makespans",
    "padded_tokens",
    "parse_batch_json",
    "parse_cluster",
    "parse_cost_model",
    "parse_error_sizes",
    "parse_freeze",
    "parse_plan",
    "plan",
    "plan_hash",
    "plan_metrics",
    "plan_options",
    "planners",
    "predict_task_seconds",
    "rank_trace_name",
    "read_batch",
    "read_cluster",
    "read_cost_model",
    "read_device",
    "read_model_config",
    "read_plan",
    "read_result",
    "read_token_rules",
    "reduce_gradients",
    "refuse_unused",
    "replay",
    "result_json",
    "shard_ranges",
    "simple_lower_bound_s",
    "simulate",
    "task_memory_bytes",
    "task_seconds",
    "tasks",
    "tighter_lower_bound_s",
    "to_json",
    "token_rules",
    "try_plan",
    "validate_options",
    "video_tokens",
]
