"""The cost of a run and the speeds of its ranks, fitted to its own tasks."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dhp._core import (
    Batch,
    CostModel,
    InputError,
    PassCost,
    Plan,
    Sequence,
    parse_cost_model,
    to_json,
    try_plan,
)
from dhp.cost import recalibrate
from dhp.cost.fit import estimate_s, terms_of
from dhp.cost.local import local_cluster
from dhp.cost.recalibrate import Recalibration, with_terms
from dhp.cost.speeds import MemberTimes
from dhp.settings.config import read_config
from programs import run_program
from thread_run import ThreadRun, on_threads
from tiny_run import copied_run


def cost(scale: float = 1.0) -> CostModel:
    forward = PassCost(2e-5 * scale, 3e-8 * scale, 1e-3 * scale, 1e-4 * scale, 512, 0)
    backward = PassCost(4e-5 * scale, 6e-8 * scale, 2e-3 * scale, 3e-4 * scale, 1024, 0)
    return CostModel("x", 4, 5e-3 * scale, 6e-5 * scale, forward, backward, 4, 2, 1.0, 0.0, 0.0)


CLUSTER = local_cluster(4, capacity_tokens=600)
ALONE: Any = SimpleNamespace(rank=0, from_rank_0=lambda value: value)


def recalibration(every: int, run: Any = ALONE) -> Recalibration:
    return Recalibration(cost(), CLUSTER, every, run)


def planned(lengths: list[int]) -> tuple[Plan, Batch]:
    batch = Batch([Sequence(i, n, 2 * n if n % 2 else 0) for i, n in enumerate(lengths)])
    plan = try_plan(batch, CLUSTER, cost())
    assert isinstance(plan, Plan)
    return plan, batch


def members(plan: Plan, batch: Batch, truth: CostModel, slow: dict[int, float] | None = None) -> list[MemberTimes]:
    """What each member took by `truth`; ranks in `slow` are at these speeds."""
    patches = {s.id: s.patches for s in batch.sequences}
    times = []
    for task, nominal in zip(plan.tasks, seconds(plan, batch, truth), strict=True):
        own = sum(patches[i] for i in task.sequences) / len(task.ranks)  # no frames: as divided
        took = tuple(nominal / (slow or {}).get(rank, 1.0) for rank in task.ranks)
        times.append(MemberTimes(took, (own,) * len(task.ranks), (0.0,) * len(task.ranks)))
    return times


def seconds(plan: Plan, batch: Batch, truth: CostModel) -> list[float]:
    of = {s.id: s for s in batch.sequences}
    return [estimate_s(terms_of(truth), [of[i] for i in t.sequences], len(t.ranks)) for t in plan.tasks]


def test_off_by_default_and_every_k_steps() -> None:
    plan, batch = planned([100, 301, 707, 50])
    task_s = members(plan, batch, cost(3.0))
    never = recalibration(0)
    assert never.add(plan, batch, task_s) == ""
    assert never.now.cost == cost()
    second = recalibration(2)
    assert second.add(plan, batch, task_s) == ""
    assert second.now.cost == cost()
    assert "cost fitted to" in second.add(plan, batch, task_s)
    assert second.now.cost != cost()
    # Nothing but the times changes.
    assert second.now.cost.forward.ring_bytes_per_token == 512
    assert second.now.cost.token_bytes == 1.0
    assert second.now.cluster == CLUSTER


def test_finds_times_that_are_another_machines() -> None:
    truth = cost(3.0)
    truth.patch_s = 1e-5  # one coefficient in another proportion
    fitted = recalibration(1)
    samples = []
    for shift in range(8):
        plan, batch = planned([100 + 40 * shift, 301 + 2 * shift, 907 + 100 * shift, 50, 63, 1500 + shift, 75 + shift])
        fitted.add(plan, batch, members(plan, batch, truth))
        samples.append((plan, batch))
    plan, batch = planned([140, 333, 1200, 61, 410])
    predicted, measured = seconds(plan, batch, fitted.now.cost), seconds(plan, batch, truth)
    assert predicted == pytest.approx(measured, rel=0.02)
    assert seconds(plan, batch, cost()) != pytest.approx(measured, rel=0.5)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_errors_to_expect_is_measured(seed: int) -> None:
    """Tasks are off by 3 %, whatever is in them, and their members by 1 %."""
    random, fitted = np.random.default_rng(seed), recalibration(40)
    for step in range(40):
        plan, batch = planned([100 + 60 * (step % 11), 301, 907 + 15 * step, 50, 590, 580 - 10 * step, 1290, 560, 333])
        task_s = []
        for times in members(plan, batch, cost(2)):
            factor = np.exp(0.03 * random.standard_normal() + 0.01 * random.standard_normal(len(times.seconds)))
            task_s.append(replace(times, seconds=tuple((np.array(times.seconds) * factor).tolist())))
        news = fitted.add(plan, batch, task_s)
    found = fitted.now.cost.expected_error
    assert found is not None
    assert found.rank == 0.01
    assert math.hypot(found.sequence, found.task) == pytest.approx(0.03, abs=0.008)
    assert news.endswith(f"errors: {found.sequence:.1%} a sequence, {found.task:.1%} a task, 1.0% a rank")
    assert fitted.now.cost.residuals == []


def test_groups_that_are_off_again_and_again_are_corrected() -> None:
    """Groups of 2 take 8 % longer than terms that grow with the degree can say, for 1 and 3 do not."""
    fitted, factors = recalibration(60), {}
    for step in range(60):
        plan, batch = planned(
            [100 + 60 * (step % 11), 301, 907 + 10 * step, 50, 790, 680 + step, 1290 - step, 860, 333]
        )
        slow = [1.08 if len(task.ranks) == 2 else 1.0 for task in plan.tasks]
        took = members(plan, batch, cost(2))
        task_s = [replace(m, seconds=tuple(s * f for s in m.seconds)) for m, f in zip(took, slow, strict=True)]
        news = fitted.add(plan, batch, task_s)
    for residual in fitted.now.cost.residuals:
        factors.setdefault(residual.degree, []).append(residual.factor)
    assert min(factors[2]) > 1.0, news
    assert min(factors[2]) > max(factors.get(3, [1.0]))


def test_all_ranks_plan_from_what_rank_0_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    original = recalibrate.fit_times
    monkeypatch.setattr(recalibrate, "fit_times", lambda *a, **k: fits.append(1) or original(*a, **k))

    def rank(run: ThreadRun) -> tuple[str, str]:
        fitted = recalibration(2, run)
        news = []
        for shift in range(8):
            plan, batch = planned([100 + 60 * shift, 301, 907 + 100 * shift, 50, 590, 580 - 60 * shift, 1290, 560, 333])
            # Seconds are the same on all ranks. Here they are not: what others have must not count.
            task_s = members(plan, batch, cost(2 * (1 + run.rank)), {2: 0.9 - 0.1 * run.rank})
            news.append(fitted.add(plan, batch, task_s))
        return "".join(news), to_json(fitted.now.cost), to_json(fitted.now.cluster)

    alone = rank(ThreadRun(0, 1, {"values": [None], "barrier": threading.Barrier(1)}))
    by_one = len(fits)
    assert on_threads(3, rank) == [alone] * 3
    assert alone[0].count("cost fitted to") == 4
    assert json.loads(alone[2])["rank_speed"] == pytest.approx([1.0, 1.0, 0.9, 1.0], abs=0.02)
    assert len(fits) == 2 * by_one


def steps_from(fitted: Recalibration, first: int, last: int) -> list[list[str]]:
    """What plans the batches of these steps, and what is kept for the batch after them, as train does it."""
    costs = []
    for shift in range(first, last):
        plan, batch = planned([100 + 40 * shift, 301, 907 + 100 * shift, 50, 590, 580 - shift, 570, 400, 1290])
        fitted.add(plan, batch, members(plan, batch, cost(2), {shift % 4: 0.98, 3: 0.93}))
        costs.append(shown(fitted))
    return costs


def shown(fitted: Recalibration) -> list[str]:
    return [to_json(value) for basis in (fitted.now, fitted.ahead) for value in (basis.cost, basis.cluster)]


@pytest.mark.parametrize("saved", [1, 2, 3, 4, 5])
def test_a_run_that_continues_plans_as_the_one_before_would_have(saved: int) -> None:
    whole = steps_from(recalibration(2), 0, 8)
    assert len({row[0] for row in whole}) > 3 and len({row[1] for row in whole}) > 2
    assert whole[1][0] != whole[1][2], "the batch after a fit was planned before it"
    first, second = recalibration(2), recalibration(2)
    steps_from(first, 0, saved)
    second.restore(json.loads(json.dumps(first.state())))
    assert shown(second) == whole[saved - 1]
    assert steps_from(second, saved, 8) == whole[saved:]


def test_a_damaged_state_is_refused_and_none_is_kept_where_nothing_is_fitted() -> None:
    assert recalibration(0).state() == {}
    fitted = recalibration(1)
    fitted.restore({})
    assert fitted.now.cost == cost()
    steps_from(fitted, 0, 3)
    state = fitted.state()
    for damaged in (
        {"steps": 1},
        {**state, "tasks": [3]},
        {**state, "now": {"cost": {}, "rank_speed": []}},
        {**state, "now": {**state["now"], "rank_speed": [0.5]}},
        {**state, "ahead": {**state["ahead"], "rank_speed": [2.0] * 4}},
        {**state, "tasks": [[[["x"]], [1], [2], [0], [0]]]},
        {**state, "tasks": [[[[0, 9]], [1, 2], [0.5], [0], [0]]]},
        {**state, "tasks_since": [[[[0, 9]], [4], [0.5], [0], [0]]]},
        {**state, "speeds": [[0.0], [0.0]]},
        {**state, "ranks": "x"},
        {**state, "steps": "x"},
        {**state, "steps": math.inf},
    ):
        with pytest.raises(InputError):
            recalibration(1).restore(damaged)


def test_on_another_number_of_ranks_only_the_cost_goes_on() -> None:
    fitted = recalibration(2)
    steps_from(fitted, 0, 4)
    assert fitted.now.cluster.rank_speed
    three = local_cluster(3, capacity_tokens=600)
    other = Recalibration(cost(), three, 2, ALONE)
    other.restore(json.loads(json.dumps(fitted.state())))
    assert other.now.cost == fitted.now.cost
    assert other.now.cluster == other.ahead.cluster == three


def test_coefficients_are_divided_as_they_were() -> None:
    terms = terms_of(cost(2.0))
    doubled = with_terms(cost(), terms)
    for name in ("token_s", "pair_s", "step_s", "sequence_step_s"):
        assert getattr(doubled.forward, name) == pytest.approx(2 * getattr(cost().forward, name), rel=1e-12)
        assert getattr(doubled.backward, name) == pytest.approx(2 * getattr(cost().backward, name), rel=1e-12)
    assert (doubled.task_s, doubled.patch_s) == (2 * cost().task_s, 2 * cost().patch_s)
    bare = cost()
    bare.forward = PassCost(0, 0, 0, 0, 512, 0)
    bare.backward = PassCost(0, 0, 0, 0, 1024, 0)
    assert terms_of(with_terms(bare, terms)).pair_s == pytest.approx(terms.pair_s, rel=1e-12)
    assert with_terms(bare, terms).forward.token_s == pytest.approx(terms.token_s / 3)


def test_setting_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('model = "m"\ndata = "d"\nrecalibrate_every = -1\n')
    with pytest.raises(InputError, match="recalibrate_every: found -1, expected at least 0"):
        read_config(file)


def test_ranks_agree_on_plans_and_predictions_come_nearer(mixed_data: Path, tmp_path: Path) -> None:
    """Three ranks start with a cost that is a hundred times too quick, and fit it every second step. That plans stay
    the same on all ranks is what lets the run end well: `agree_on` compares them at every step."""
    wrong = cost(0.01)
    (tmp_path / "cost.json").write_text(to_json(wrong))
    assert parse_cost_model((tmp_path / "cost.json").read_text(), "cost") == wrong
    settings = {"steps": 9, "capacity_tokens": 80, "log_every": 1, "recalibrate_every": 2}
    run = copied_run(mixed_data, tmp_path, cost=str(tmp_path / "cost.json"), ranks=3, **settings)
    done = run_program("dhp.train", run, "--metrics", tmp_path / "m.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cost fitted to") == 4, done.stdout
    errors = [json.loads(line)["task_error"] for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    # Step 1 and, planned while it ran, step 2 and 3 know nothing of the first fit, which follows step 2.
    assert min(errors[:3]) > 0.9
    assert max(errors[4:]) < 0.6
    assert sum(errors[4:]) / 5 < 0.4
