"""Ranks that are processes learn each other's speeds, each from its own seconds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dhp._core import Batch, CostModel, PassCost, Sequence, to_json
from dhp.cost.fit import estimate_s, terms_of
from dhp.cost.local import local_cluster
from dhp.run.launch import run_local

RANKS, SLOW, SPEED, STEPS = 4, 2, 0.94, 8
COST = CostModel("x", 4, 5e-3, 6e-5, PassCost(2e-5, 3e-8, 1e-3), PassCost(4e-5, 6e-8, 2e-3), 4, 2, 1.0, 0.0, 0.0)


def work(folder: Path) -> int:
    from dhp.cost.recalibrate import Recalibration
    from dhp.loop.batches import Prepared
    from dhp.loop.step_clock import StepClock
    from dhp.run import entry, planning
    from dhp.watch.steps import Reporter

    run = entry.init(timeout_s=240)
    learned = Recalibration(COST, local_cluster(RANKS, capacity_tokens=900), 2, run)
    random, noise = np.random.default_rng(7), np.random.default_rng(run.rank)
    said = []
    for step in range(STEPS):
        batch = Batch([Sequence(i, int(n)) for i, n in enumerate(random.integers(40, 1200, 12))])
        basis = learned.now
        plan = planning.plan(batch, basis.cluster, basis.cost)
        by_id = {s.id: s for s in batch.sequences}
        clock = StepClock()
        for task in plan.tasks:
            if run.rank in task.ranks:
                nominal = estimate_s(terms_of(COST), [by_id[i] for i in task.sequences], len(task.ranks))
                factor = np.exp(0.005 * noise.standard_normal()) / (SPEED if run.rank == SLOW else 1.0)
                clock.watch.tasks_s[task.id] = nominal * factor
                clock.watch.tasks_vision[task.id] = (run.rank, 10 * run.rank)
        assert clock.combine(run, plan, True, 1.0) == []
        for task, members in zip(plan.tasks, clock.members, strict=True):
            assert members.patches == tuple(float(rank) for rank in task.ranks)
            assert members.patch_pairs == tuple(10.0 * rank for rank in task.ranks)
            assert clock.task_s[task.id].item() == max(members.seconds)
            if run.rank in task.ranks:
                assert members.seconds[list(task.ranks).index(run.rank)] == clock.watch.tasks_s[task.id]
        news = learned.add(plan, batch, clock.members)
        now = Prepared(step, batch, plan, 0.0, basis.cluster.rank_speed, None)  # type: ignore[arg-type]
        line = Reporter(STEPS, None).line(clock.record(now, 1, [], 1.0, 0.1, ""))
        said.append((news, "of the others" in line and line.split(" | ")[-1], plan.hash))
    found = [said, to_json(learned.now.cluster), to_json(learned.now.cost), learned.state()]
    (folder / f"{run.rank}.json").write_text(json.dumps(found))
    run.close()
    return 0


def test_a_slow_rank_is_learned_alike_on_all_ranks_and_shown(tmp_path: Path) -> None:
    assert run_local(RANKS, lambda: work(tmp_path)) == 0
    first, *others = ((tmp_path / f"{rank}.json").read_text() for rank in range(RANKS))
    assert others == [first] * (RANKS - 1)
    said, cluster, *_ = json.loads(first)
    speeds = json.loads(cluster)["rank_speed"]
    assert speeds[:SLOW] + speeds[SLOW + 1 :] == [1.0, 1.0, 1.0]
    assert speeds[SLOW] == pytest.approx(SPEED, abs=0.0051)  # speeds are in steps of 0.5 %, as large as the noise
    assert [bool(news) for news, _, _ in said] == [False, True] * (STEPS // 2)
    assert said[0][1] is False
    assert re.fullmatch(r"rank 2 at 0\.9[45] of the others", said[-1][1])
