"""What must not grow: a long run keeps its memory, threads and open files. And plans for very many ranks are valid."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from budget import SEED, nightly
from growth import check_no_growth
from quick import QuickStart
from world import make_world, start_ranks, write_settings

from dhp import _core as core

CASES = Path(__file__).parents[2] / "bench" / "cases"
STEPS = 500


@nightly
def test_five_hundred_steps_take_no_more_than_a_hundred(tmp_path: Path, quick: QuickStart) -> None:
    folder = make_world(tmp_path)
    settings = write_settings(folder, steps=STEPS, global_batch_size=4, capacity_tokens=160, output_dir="out")
    ranks = start_ranks(quick, folder, 2, [settings, "--metrics", "steps.jsonl"], "run")

    check_no_growth(quick, ranks, folder / "steps.jsonl", STEPS, lambda: [rank.pid for rank in ranks])


@pytest.mark.parametrize("planner", ["free", "lockstep"])
def test_plans_for_very_many_ranks_are_valid(planner: str) -> None:
    print(f"\nseed {SEED}")
    draw = random.Random(SEED)
    lengths = [min(131072, max(64, int(draw.lognormvariate(7.8, 1.3)))) for _ in range(2 * 16384)]
    batch = core.Batch([core.Sequence(id=i, tokens=length) for i, length in enumerate(lengths)])
    cluster = core.read_cluster(str(CASES / "cluster_h100_8x8.json"))
    cluster.nodes = 2048
    cost = core.read_cost_model(str(CASES / "cost_qwen3-vl-8b_16384.json"))
    plan = core.try_plan(batch, cluster, cost, planner=planner, effort="fast")
    assert isinstance(plan, core.Plan), plan
    assert core.check_plan(plan, batch, cluster, cost) == []
    assert sum(len(task.sequences) for task in plan.tasks) == len(lengths)
