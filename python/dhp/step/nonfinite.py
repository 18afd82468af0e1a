"""Losses and gradients that are not finite: where they are from, and whether the run goes on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dhp._core import Plan
from dhp.run.runtime import RunStopped
from dhp.step.sharded import ShardedAdamW, names_of

MOST_IN_A_ROW = 10  # steps skipped: the weights are where no batch helps
SHOWN = 8  # ids in one message


def trouble_of(plan: Plan, bad_losses: torch.Tensor, bad_ranks: list[int], first_gradient: Callable[[], str]) -> str:
    """What is not finite in a step, with the tasks and the samples that it comes from; nothing where all is. The same
    on every rank.

    bad_losses      by task, not 0 where its loss is not finite
    bad_ranks       ranks whose gradients are not finite
    first_gradient  names the first parameter whose gradient is not finite, or "" where only their norm is not; every
                    rank calls it
    """
    tasks = [plan.tasks[i] for i in bad_losses.nonzero().flatten().tolist()]
    if tasks:
        more = f" (as of {len(tasks) - 1} more)" if len(tasks) > 1 else ""
        return f"the loss of task {tasks[0].id}{more} is not finite; its samples: {_some(tasks[0].sequences)}"
    if not bad_ranks:
        return ""
    first = first_gradient()
    suspects = [task for task in plan.tasks if not set(bad_ranks).isdisjoint(task.ranks)]
    samples = [sequence for task in suspects for sequence in task.sequences]
    where = f"the gradient of {first}" if first else "the norm of all gradients together"
    tasks_text = f"task{'s' if len(suspects) > 1 else ''} {_some([task.id for task in suspects])}"
    return f"{where} is not finite; it comes from {tasks_text} with the samples {_some(samples)}"


def first_not_finite(model: torch.nn.Module, adamw: ShardedAdamW) -> str:
    """The name of the first parameter, in the optimizer's order, whose gradient is not finite; every rank calls it."""
    place = adamw.first_not_finite()
    return "" if place < 0 else names_of(model, adamw)[place]


class Skips:
    """Decides what a step with trouble leads to, by the setting on_nonfinite; the same on every rank."""

    def __init__(self, on_nonfinite: str) -> None:
        self._stop = on_nonfinite == "stop"
        self._row = 0

    def skip(self, step: int, trouble: str) -> bool:
        """Whether to leave weights and optimizer as they are. Raises RunStopped where the run is to end."""
        if not trouble:
            self._row = 0
            return False
        if self._stop:
            raise RunStopped(f'step {step}: {trouble}; to leave such steps out, set on_nonfinite = "skip"')
        self._row += 1
        if self._row == MOST_IN_A_ROW:
            raise RunStopped(
                f"step {step}: {trouble}; so were {MOST_IN_A_ROW - 1} steps before it: lower learning_rate, or look at "
                "the data"
            )
        return True


def _some(ids: list[int]) -> str:
    return ", ".join(map(str, ids[:SHOWN])) + (f" and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else "")
