"""Fits a run's cost model again to what its own tasks took."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any

from dhp._core import (
    Batch,
    CostModel,
    InputError,
    PassCost,
    Plan,
    Sequence,
    parse_cost_model,
    to_json,
)
from dhp.cost.fit import TERMS, NoFit, TermSeconds, TimeSample, estimate_error, fit_times, terms_of
from dhp.run.runtime import Run

KEPT_TASKS = 1024  # the newest ones count
FORWARD_SHARE = 1 / 3  # of a coefficient that the cost model did not have; backward does about twice as much


class Recalibration:
    """The cost model that plans a run: as given, or, with `every` > 0, fitted anew every so many steps.

    cost        plans from now on
    cost_ahead  planned the batch that follows the last step added: it was planned before that step had ended

    Every rank adds the same plans and the same seconds (of each task the most of all ranks). Rank 0 fits, and all plan
    from what it found. Where tasks do not tell coefficients apart, the model given at the start does.
    """

    def __init__(self, cost: CostModel, every: int, run: Run) -> None:
        self.cost = cost
        self.cost_ahead = cost
        self._first = cost
        self._every = every
        self._run = run
        self._tasks: deque[tuple[list[Sequence], int, float]] = deque(maxlen=KEPT_TASKS)  # degree, seconds
        self._steps = 0

    def add(self, plan: Plan, batch: Batch, task_s: Iterable[float]) -> str:
        """One step's tasks. Returns a line for people where it led to a new fit, else nothing. Collective."""
        if not self._every:
            return ""
        self.cost_ahead = self.cost
        by_id = {sequence.id: sequence for sequence in batch.sequences}
        for task, seconds in zip(plan.tasks, task_s, strict=True):
            if seconds > 0.0:
                self._tasks.append(([by_id[i] for i in task.sequences], len(task.ranks), seconds))
        self._steps += 1
        if self._steps % self._every or not self._tasks:
            return ""
        cost, news = self._run.from_rank_0(self._fit() if self._run.rank == 0 else None)
        self.cost = parse_cost_model(cost, "cost of rank 0")
        return str(news)

    def _fit(self) -> tuple[str, str]:
        """The cost from now on, as JSON, and the line for people."""
        samples = [TimeSample(*task) for task in self._tasks]
        answer = fit_times(samples, TERMS, prior=terms_of(self._first))
        if isinstance(answer, NoFit):
            return to_json(self.cost), f"cost not fitted: {answer.reason}"
        before = estimate_error(terms_of(self.cost), samples)
        return to_json(with_terms(self._first, answer.seconds)), (
            f"cost fitted to {len(samples)} tasks: {answer.error.mean:.1%} off on average, "
            f"{answer.error.p95:.1%} at the 95th percentile (before: {before.mean:.1%}, {before.p95:.1%})"
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a run that continues plans as this one would have: JSON, every bit."""
        if not self._every:
            return {}
        return {
            "cost": json.loads(to_json(self.cost)),
            "cost_ahead": json.loads(to_json(self.cost_ahead)),
            "steps": self._steps,
            "tasks": [
                [[[s.id, s.tokens, s.patches, s.frame_patches] for s in sequences], degree, seconds]
                for sequences, degree, seconds in self._tasks
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` returned, where this run, too, fits its cost. Raises InputError for anything else."""
        if not self._every or not state:
            return
        try:
            self.cost = parse_cost_model(json.dumps(state["cost"]), "cost of the checkpoint")
            self.cost_ahead = parse_cost_model(json.dumps(state["cost_ahead"]), "cost of the checkpoint")
            self._steps = int(state["steps"])
            self._tasks.extend(
                ([Sequence(*values) for values in sequences], int(degree), float(seconds))
                for sequences, degree, seconds in state["tasks"]
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the cost that the checkpoint keeps is damaged ({error})") from None


def with_terms(cost: CostModel, terms: TermSeconds) -> CostModel:
    """`cost` with these coefficients, divided over forward and backward as they were."""
    old = terms_of(cost)

    def share(name: str) -> float:
        both = getattr(old, name)
        return getattr(cost.forward, name) / both if both > 0.0 else FORWARD_SHARE

    names = ("token_s", "pair_s", "step_s", "sequence_step_s")
    forward = {name: getattr(terms, name) * share(name) for name in names}
    backward = {name: getattr(terms, name) - forward[name] for name in names}
    return CostModel(
        name=cost.name,
        layers=cost.layers,
        task_s=terms.task_s,
        patch_s=terms.patch_s,
        forward=_pass(cost.forward, forward),
        backward=_pass(cost.backward, backward),
        query_heads=cost.query_heads,
        kv_heads=cost.kv_heads,
        token_bytes=cost.token_bytes,
        patch_bytes=cost.patch_bytes,
        state_bytes=cost.state_bytes,
        gradient_bytes=cost.gradient_bytes,
        optimizer_s=cost.optimizer_s,
        patch_pair_s=terms.patch_pair_s,
    )


def _pass(old: PassCost, seconds: dict[str, float]) -> PassCost:
    return PassCost(
        **seconds,
        ring_bytes_per_token=old.ring_bytes_per_token,
        all_to_all_bytes_per_token=old.all_to_all_bytes_per_token,
    )
