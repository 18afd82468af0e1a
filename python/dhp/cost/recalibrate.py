"""Fits a run's cost model, with how far it is off, and the speeds of its ranks again to what its own tasks took."""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    ErrorSizes,
    InputError,
    Plan,
    parse_cluster,
    parse_cost_model,
    residual_factor,
    to_json,
)
from dhp._core import Sequence as BatchSequence
from dhp.cost.errors import error_sizes, residuals_of, sizes_text
from dhp.cost.fit import (
    TERMS,
    EstimateError,
    NoFit,
    TermSeconds,
    TimeSample,
    error_of,
    estimates_s,
    fit_times,
    terms_of,
)
from dhp.cost.residuals import learn_factors, longest
from dhp.cost.speeds import MemberTimes, SpeedHistory, TimedTask, learn, member_estimates_s, speeds_of
from dhp.run.runtime import Run

KEPT_TASKS = 1024  # the newest ones count, for the cost
KEPT_OF_RANK = 32  # for its speed, at least
FORWARD_SHARE = 1 / 3  # of a coefficient that the cost model did not have; backward does about twice as much


@dataclass(frozen=True)
class Basis:
    """What batches are planned with."""

    cost: CostModel
    cluster: Cluster

    def speeds(self) -> list[float]:
        """By rank."""
        return list(self.cluster.rank_speed) or [1.0] * self.cluster.ranks


class Recalibration:
    """What plans a run: as given, or, with `every` > 0, cost and speeds of ranks fitted anew every so many steps.

    now    plans from now on
    ahead  planned the batch that follows the last step added: it was planned before that step had ended

    Every rank adds the same plans and the same seconds. Rank 0 fits, and all plan from what it found. Where tasks do
    not tell coefficients apart, the model given at the start does; speeds are those given until tasks say otherwise.
    """

    def __init__(self, cost: CostModel, cluster: Cluster, every: int, run: Run) -> None:
        self.now = self.ahead = self._first = Basis(cost, cluster)
        self._every = every
        self._run = run
        self._tasks: deque[TimedTask] = deque(maxlen=KEPT_TASKS)  # for the cost
        most = max(KEPT_TASKS, KEPT_OF_RANK * cluster.ranks)
        self._since: deque[TimedTask] = deque(maxlen=most)  # the last fit, for speeds
        self._history = SpeedHistory.empty(cluster.ranks)
        self._steps = 0

    def add(self, plan: Plan, batch: Batch, members: Sequence[MemberTimes]) -> str:
        """One step's tasks. Returns a line for people where it led to a new fit, else nothing. Collective."""
        if not self._every:
            return ""
        self.ahead = self.now
        by_id = {sequence.id: sequence for sequence in batch.sequences}
        for task, times in zip(plan.tasks, members, strict=True):
            if max(times.seconds) > 0.0:
                self._since.append(TimedTask([by_id[i] for i in task.sequences], tuple(task.ranks), times))
        self._steps += 1
        if self._steps % self._every or not (self._since or self._tasks):
            return ""
        self._tasks.extend(self._since)
        found = self._run.from_rank_0(self._fit() if self._run.rank == 0 else None)
        cost, rank_speed, self._history, news = found
        self.now = Basis(parse_cost_model(cost, "cost of rank 0"), with_speeds(self._first.cluster, rank_speed))
        self._since.clear()
        return str(news)

    def _fit(self) -> tuple[str, list[float], SpeedHistory, str]:
        """The cost from now on, as JSON, the speeds, what they follow from, and the line for people."""
        speeds = self.now.speeds()
        terms = self._fit_cost(speeds)
        believed = terms_of(self.now.cost) if isinstance(terms, NoFit) else terms
        history = learn(self._history, self._since, member_estimates_s(believed, self._since))
        learned = speeds_of(history, self._first.speeds())
        if learned != speeds:
            terms = self._fit_cost(learned)
        rank_speed = learned if self._first.cluster.rank_speed or min(learned) < 1.0 else []
        if isinstance(terms, NoFit):
            return to_json(self.now.cost), rank_speed, history, f"cost not fitted: {terms.reason}"
        cost = with_terms(self._first.cost, terms)
        cost.residuals = learn_factors(self._samples(learned), terms)
        residuals = residuals_of(self._tasks, terms, learned, cost)
        cost.expected_error = error_sizes(residuals, self._first.cost.expected_error or ErrorSizes())
        before, after = self._error(self.now.cost, speeds), self._error(cost, learned)
        news = (
            f"cost fitted to {len(self._tasks)} tasks: {after.mean:.1%} off on average, {after.p95:.1%} at the 95th "
            f"percentile (before: {before.mean:.1%}, {before.p95:.1%}); {sizes_text(cost.expected_error)}"
        )
        return to_json(cost), rank_speed, history, news

    def _fit_cost(self, speeds: list[float]) -> TermSeconds | NoFit:
        answer = fit_times(self._samples(speeds), TERMS, prior=terms_of(self._first.cost))
        return answer if isinstance(answer, NoFit) else answer.seconds

    def _error(self, cost: CostModel, speeds: list[float]) -> EstimateError:
        samples = self._samples(speeds)
        factors = [residual_factor(cost, s.degree, longest(s.sequences)) for s in samples]
        return error_of(estimates_s(terms_of(cost), samples) * factors, [s.seconds for s in samples])

    def _samples(self, speeds: list[float]) -> list[TimeSample]:
        """The tasks as they would have been at nominal speed."""
        return [TimeSample(task.sequences, len(task.ranks), task.nominal_s(speeds)) for task in self._tasks]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a run that continues plans as this one would have: JSON, every bit."""
        if not self._every:
            return {}
        return {
            "now": _basis_state(self.now),
            "ahead": _basis_state(self.ahead),
            "ranks": self._first.cluster.ranks,
            "speeds": [list(self._history.log_speed), list(self._history.precision)],
            "steps": self._steps,
            "tasks": [_task_state(task) for task in self._tasks],
            "tasks_since": [_task_state(task) for task in self._since],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` returned, where this run, too, fits its cost. On another number of ranks nothing is
        known of their speeds. Raises InputError for anything else."""
        if not self._every or not state:
            return
        try:
            same = int(state["ranks"]) == self._first.cluster.ranks  # else the speeds are those of other devices
            self.now, self.ahead = (self._basis(state[key], same) for key in ("now", "ahead"))
            self._steps = int(state["steps"])
            ranks = int(state["ranks"])
            tasks, since = ([_task(task, ranks) for task in state[key]] for key in ("tasks", "tasks_since"))
            history = SpeedHistory(*(tuple(float(value) for value in values) for values in state["speeds"]))
            if not len(history.log_speed) == len(history.precision) == int(state["ranks"]):
                raise ValueError("speeds")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"the cost that the checkpoint keeps is damaged ({error})") from None
        if same:
            self._tasks.extend(tasks)
            self._since.extend(since)
            self._history = history

    def _basis(self, state: dict[str, Any], same_ranks: bool) -> Basis:
        cost = parse_cost_model(json.dumps(state["cost"]), "cost of the checkpoint")
        cluster = self._first.cluster
        if same_ranks:
            changed = with_speeds(cluster, [float(speed) for speed in state["rank_speed"]])
            cluster = parse_cluster(to_json(changed), "cluster of the checkpoint")
        return Basis(cost, cluster)


def _basis_state(basis: Basis) -> dict[str, Any]:
    return {"cost": json.loads(to_json(basis.cost)), "rank_speed": list(basis.cluster.rank_speed)}


def _task_state(task: TimedTask) -> list[Any]:
    sequences = [[s.id, s.tokens, s.patches, s.frame_patches] for s in task.sequences]
    times = task.members
    return [sequences, list(task.ranks), list(times.seconds), list(times.patches), list(times.patch_pairs)]


def _task(state: Any, among: int) -> TimedTask:
    sequences, ranks, *columns = state
    members = MemberTimes(*(tuple(float(value) for value in column) for column in columns))
    if not len(ranks) == len(members.seconds) == len(members.patches) == len(members.patch_pairs) > 0:
        raise ValueError("a task's members")
    if not all(0 <= rank < among for rank in ranks):
        raise ValueError("a task's ranks")
    return TimedTask([BatchSequence(*values) for values in sequences], tuple(int(rank) for rank in ranks), members)


def with_speeds(cluster: Cluster, rank_speed: list[float]) -> Cluster:
    """`cluster` with these speeds."""
    changed = copy.copy(cluster)
    changed.rank_speed = rank_speed
    return changed


def with_terms(cost: CostModel, terms: TermSeconds) -> CostModel:
    """`cost` with these coefficients, divided over forward and backward as they were."""
    old = terms_of(cost)

    def share(name: str) -> float:
        both = getattr(old, name)
        return getattr(cost.forward, name) / both if both > 0.0 else FORWARD_SHARE

    new = copy.copy(cost)
    new.task_s, new.patch_s, new.patch_pair_s = terms.task_s, terms.patch_s, terms.patch_pair_s
    for name in ("token_s", "pair_s", "step_s", "sequence_step_s"):
        forward = getattr(terms, name) * share(name)
        setattr(new.forward, name, forward)
        setattr(new.backward, name, getattr(terms, name) - forward)
    return new
