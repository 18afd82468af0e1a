"""bench/flexsp.py: its programs against all plans of a toy micro-batch, its costs against task time, its plans."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bench_script import load_bench
from dhp import _core as core

ROOT = Path(__file__).parents[3]
LINK = core.Link(bandwidth_bytes_per_s=2e9, latency_s=1e-4)


@pytest.fixture(scope="module")
def flexsp() -> ModuleType:
    return load_bench("flexsp")


def cost_of(**changes: float) -> core.CostModel:
    passes = [
        core.PassCost(
            token_s=part * 1e-4,
            pair_s=part * 1e-7,
            step_s=part * 1e-2,
            sequence_step_s=part * 1e-4,
            ring_bytes_per_token=part * 2e5,
            all_to_all_bytes_per_token=part * 1e5,
        )
        for part in (1, 2)
    ]
    cost = core.CostModel("toy", 4, 0.02, 1e-5, *passes, query_heads=8, kv_heads=8, token_bytes=1.0, state_bytes=0.0)
    for name, value in changes.items():
        setattr(cost, name, value)
    return cost


def cluster_of(nodes: int, ranks: int, memory_bytes: float) -> core.Cluster:
    return core.Cluster(nodes, ranks, memory_bytes, intra_node=LINK, inter_node=LINK)


def partitions(items: list[core.Sequence]) -> Iterator[list[list[core.Sequence]]]:
    """Every way to divide the items into sets."""
    if not items:
        yield []
        return
    for rest in partitions(items[1:]):
        yield [[items[0]], *rest]
        for place in range(len(rest)):
            yield [*rest[:place], [items[0], *rest[place]], *rest[place + 1 :]]


def least_slowest_s(sequences: list[core.Sequence], cluster: core.Cluster, cost: core.CostModel) -> float:
    """Of all divisions into groups of 1, 2 and 4 ranks that hold their sequences, timed by task_seconds()."""
    ranks = cluster.ranks

    def seconds(group: list[core.Sequence], degree: int) -> float:
        if core.task_memory_bytes(cost, group, degree) > core.activation_budget_bytes(cost, cluster):
            return float("inf")
        return core.task_seconds(cost, cluster, group, list(range(degree)), core.Exchange.all_to_all)

    return min(
        max(map(seconds, groups, degrees))
        for groups in partitions(sequences)
        for degrees in itertools.product((1, 2, 4), repeat=len(groups))
        if sum(degrees) <= ranks
    )


@pytest.mark.parametrize("seed", range(6))
def test_program_finds_the_optimum_of_a_toy_micro_batch(flexsp: ModuleType, seed: int) -> None:
    draw = random.Random(seed)
    sequences = [core.Sequence(i, draw.randrange(100, 4000), draw.randrange(0, 3000)) for i in range(5)]
    cluster, cost = cluster_of(1, 4, 4500.0), cost_of()
    model = flexsp.Model(cluster, cost, "all_to_all")
    program = flexsp.Program(model, [[s] for s in sorted(sequences, key=lambda s: s.tokens)], model.degrees(1))
    groups = program.solve(60.0)
    assert program.is_optimal()
    assert sorted(s.id for group in groups for s in group.sequences) == [0, 1, 2, 3, 4]
    best_s = least_slowest_s(sequences, cluster, cost)
    assert model.slowest_s(groups) == pytest.approx(best_s, rel=1.1e-4)  # HiGHS stops at a gap of 1e-4


@pytest.mark.parametrize(("exchange", "frames", "exact"), [("all_to_all", 0, True), ("all_to_all", 700, False),
                                                           ("ring", 700, False)])  # fmt: skip
def test_linear_time_is_task_time_or_more(flexsp: ModuleType, exchange: str, frames: int, exact: bool) -> None:
    draw = random.Random(3)
    cost = cost_of(patch_pair_s=1e-6)
    model = flexsp.Model(cluster_of(2, 4, 1e9), cost, exchange)
    off = []
    for _ in range(200):
        group = flexsp.Group(draw.choice([1, 2, 4, 8]), [])
        for i in range(draw.randrange(1, 6)):
            patches = draw.randrange(frames, 5000)
            group.sequences.append(core.Sequence(i, draw.randrange(1, 4000), patches, min(patches, frames)))
        linear_s = model.fixed_s(group.degree) + sum(model.sequence_s(s, group.degree) for s in group.sequences)
        off.append(linear_s / model.group_s(group) - 1)
    assert min(off) >= -1e-12
    assert (max(off) < 1e-12) == exact


def test_plans_are_valid_and_no_worse_than_one_degree(flexsp: ModuleType) -> None:
    draw = random.Random(1)
    batch = core.Batch([core.Sequence(i, int(200 * 1.2 ** draw.uniform(0, 16))) for i in range(40)])
    cluster, cost = cluster_of(2, 4, 2000.0), cost_of()
    for exchange in ("all_to_all", "ring"):
        model = flexsp.Model(cluster, cost, exchange)
        answer = flexsp.plan_flexsp(model, batch, flexsp.Limits(time_limit_s=0.5, counts=2, jobs=2))
        assert answer.plan.tasks[-1].micro_batch >= 1  # memory asks for several
        assert 0 <= answer.optimal <= answer.programs
        assert core.check_plan(answer.plan, batch, cluster, cost) == []
        for number in range(answer.plan.tasks[-1].micro_batch + 1):
            tasks = [task for task in answer.plan.tasks if task.micro_batch == number]
            ids = {one for task in tasks for one in task.sequences}
            part = [s for s in batch.sequences if s.id in ids]
            slowest_s = model.slowest_s(
                [flexsp.Group(task.degree, [s for s in part if s.id in task.sequences]) for task in tasks]
            )
            assert slowest_s <= model.slowest_s(flexsp.solve_one_degree(model, part, model.degrees(1))) * (1 + 1e-12)
