"""bench/noise.py: what shares an error."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bench_script import load_bench
from dhp import _core as core

ROOT = Path(__file__).parents[3]
CASES = ROOT / "bench" / "cases"
TRIALS = 20


@pytest.fixture(scope="module")
def noise() -> ModuleType:
    return load_bench("noise")


def hand_made(noise: ModuleType) -> tuple[core.Plan, np.ndarray, object]:
    """Four tasks: two of one kind, one of two sequences, one of three ranks."""
    cluster = core.read_cluster(str(CASES / "cluster_910b_1x6.json"))
    cost = core.read_cost_model(str(CASES / "cost_qwen3-vl-8b_8192.json"))
    tokens = [600, 700, 600, 2000, 9000]
    batch = core.Batch([core.Sequence(10 + i, length) for i, length in enumerate(tokens)])
    groups = [([0], [10]), ([1], [11]), ([0], [12, 13]), ([2, 3, 4], [14])]
    tasks = [core.Task(i, ranks, ids) for i, (ranks, ids) in enumerate(groups)]
    plan = core.Plan(core.Schedule.free, cluster.ranks, tasks, "hand")
    assert core.check_plan(plan, batch, cluster, cost) == []
    task_s = np.array(core.predict_task_seconds(plan, batch, cluster, cost))
    return plan, task_s, noise.Errors(noise.Case([], batch, cluster, cost), 0.3, TRIALS)


def test_errors_are_those_of_dhp_compare(noise: ModuleType) -> None:
    plan, task_s, errors = hand_made(noise)
    case = errors.case
    for error, sizes in errors.sizes.items():
        steps = [core.replay(plan, list(task_s * factors)).makespan_s for factors in errors.of(error, plan)]
        trials = 1 if error == "none" else TRIALS
        assert steps == core.noisy_makespans(plan, case.batch, case.cluster, case.cost, sizes, trials, noise.SEED)


def test_what_shares_an_error(noise: ModuleType) -> None:
    plan, _, errors = hand_made(noise)
    alike = errors.of("alike", plan)
    np.testing.assert_array_equal(alike[:, 0], alike[:, 1])  # 600 and 700 tokens alone
    assert len({tuple(column) for column in alike.T}) == 3  # 2,000 tokens, and three ranks, are other kinds
    np.testing.assert_array_equal(errors.of("none", plan), np.ones((1, 4)))
    assert set(errors.sizes) | {"alike"} == set(noise.ERRORS)
