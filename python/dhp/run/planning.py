"""A plan, or the reason why there is none as an exception. Needs no torch without a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dhp._core import Batch, Cluster, CostModel, Infeasible, Plan, check_plan, try_plan

if TYPE_CHECKING:
    from dhp.run.runtime import Run


class InfeasibleBatch(Exception):
    """The batch is well formed, but no plan of this kind can hold it. The message names the sequence and its needs."""


def plan(
    batch: Batch, cluster: Cluster, cost: CostModel, *, run: Run | None = None, rows: bool = False, **options: Any
) -> Plan:
    """Decides which ranks share which sequences of the batch: `dhp.try_plan`, then `dhp.check_plan`. `options` are
    those of `dhp plan`: planner="lockstep", max_degree=8, exchanges=["ring"], ….

    With `run`, makes sure that all ranks have the same plan (one small collective), and that the plan is for as many
    ranks as the run has; `dhp.agree_on` does that for a plan from elsewhere. On accelerators it also connects ranks
    that meet for the first time; `rows=adapter.exchanges_rows` says whether all members of a task exchange rows, as for
    a router loss. Raises InfeasibleBatch with the reason if no plan can hold the batch, InputError for
    bad input, and RankFailed if plans differ.
    """
    result = try_plan(batch, cluster, cost, **options)
    if isinstance(result, Infeasible):
        raise InfeasibleBatch(result.reason)
    violations = check_plan(result, batch, cluster, cost)
    if violations:
        raise RuntimeError("the planner made an invalid plan: " + "; ".join(violations))
    if run is not None:
        from dhp.run.runtime import agree_on, connect

        agree_on(result, run)
        connect(result, batch, run, cluster, rows=rows)
    return result
