"""bench/peers_planning.py: schedulers out of a checkout, and their groups as plans of ours."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from bench_script import load_bench
from dhp import _core as core

CHECKOUT = {
    "__init__.py": "raise AssertionError('the package itself needs a GPU')",
    "package_info.py": "MAJOR = 0\nMINOR = 19\nPATCH = 3\nPRE_RELEASE = 'rc0'\n",
    "pipeline_parallel/hybrid_cp_schedule.py": """
from megatron.core import parallel_state
from megatron.core.rerun_state_machine import RerunDataIterator

class BalancedCPScheduler:
    def __init__(self, most, dp_cp_group):
        self.most, self.ranks = most, dp_cp_group.size()

    def get_groups_and_subsamples(self, lengths, config):
        return None, [[[one[0] for one in lengths[rank :: self.ranks]] for rank in range(self.ranks)]]
""",
}


@pytest.fixture(scope="module")
def planning() -> ModuleType:
    return load_bench("peers_planning")


def case_of(planning: ModuleType, ranks: int, count: int) -> object:
    cases = planning.CASES
    cluster = core.read_cluster(str(cases / "cluster_910b_8x8.json"))
    cluster.nodes, cluster.ranks_per_node = 1, ranks
    cost = core.read_cost_model(str(cases / "cost_qwen3-vl-8b_8192.json"))
    return planning.Case(ranks, core.Batch([core.Sequence(i, 1000 + i) for i in range(count)]), cluster, cost)


def test_schedulers_are_imported_without_the_rest_of_megatron(planning: ModuleType, tmp_path: Path) -> None:
    for name, text in CHECKOUT.items():
        file = tmp_path / "megatron/core" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = planning.import_schedulers(tmp_path)
    assert list(found) == ["hcp"], "the checkout has no file of the other"
    assert found["hcp"]([(7, 10), (8, 20), (9, 30)], 2, 100) == [[[7, 9], [8]]]
    assert planning.version_of(tmp_path) == "megatron-core 0.19.3"
    assert not any(isinstance(finder, planning.MegatronFinder) for finder in sys.meta_path)


def test_groups_become_plans(planning: ModuleType) -> None:
    case = case_of(planning, 4, 5)
    rounds = [[[0, 1], [0, 1], [2], [3]], [[4], [4], [4], [4]]]
    hybrid, dynamic = planning.plan_of(case, "hcp", rounds), planning.plan_of(case, "dcp", rounds)
    assert [(t.ranks, t.sequences, t.micro_batch) for t in dynamic.tasks] == [
        ([0, 1], [0, 1], 0), ([2], [2], 0), ([3], [3], 0), ([0, 1, 2, 3], [4], 1)
    ]  # fmt: skip
    assert [t.sequences for t in hybrid.tasks] == [[0], [1], [2], [3], [4]]
    assert (hybrid.schedule, dynamic.schedule) == (core.Schedule.rounds, core.Schedule.lockstep)
    free = planning.plan_of(case, "hcp", rounds, barriers=False)
    assert 1.0 <= case.over_bound(free) <= case.over_bound(hybrid)


def test_slices_begin_at_multiples_of_their_size(planning: ModuleType) -> None:
    assert planning.has_communicators([[0], [0], [1], [2], [3], [3], [3], [3]], 8)
    assert not planning.has_communicators([[1], [0], [0], [2], [3], [3], [3], [3]], 8)
    assert planning.has_communicators([[0]] * 6, 6), "a group of all ranks"


def test_capacity_is_what_the_sequence_with_most_bytes_a_token_leaves(planning: ModuleType) -> None:
    case = case_of(planning, 4, 3)
    most, longest = case.most_tokens(), case.batch.sequences[-1]
    budget = core.activation_budget_bytes(case.cost, case.cluster)
    assert most * core.task_memory_bytes(case.cost, [longest], 1) / longest.tokens <= budget
    assert (most + 1) * core.task_memory_bytes(case.cost, [longest], 1) / longest.tokens > budget


@pytest.mark.parametrize("planner", ["hybrid", "dynamic"])
def test_best_capacity_is_that_of_our_own_copy(planning: ModuleType, planner: str) -> None:
    """The copies of their rules stand in for the checkout."""
    case = case_of(planning, 4, 12)
    name = {"hybrid": "hcp", "dynamic": "dcp"}[planner]

    def scheduler(lengths: list[tuple[int, int]], ranks: int, most: int) -> list[list[list[int]]]:
        plan = core.try_plan(case.batch, case.cluster, case.cost, planner=f"megatron-{planner}:{most}")
        if isinstance(plan, core.Infeasible):
            raise AssertionError(plan.reason)
        rounds = [[[] for _ in range(ranks)] for _ in range(plan.tasks[-1].micro_batch + 1)]
        for task in plan.tasks:
            for rank in task.ranks:
                rounds[task.micro_batch][rank] += task.sequences
        return rounds

    most, rounds = planning.best_capacity(case, name, scheduler)
    best = core.try_plan(case.batch, case.cluster, case.cost, planner=f"megatron-{planner}")
    assert f"megatron-{planner}:{most}" == best.planner
    assert case.over_bound(planning.plan_of(case, name, rounds)) == pytest.approx(case.over_bound(best), rel=1e-12)
