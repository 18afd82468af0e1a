"""The cost of a run, fitted to its own tasks."""

import json
import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from dhp.settings.config import read_config
from programs import run_program
from thread_run import ThreadRun, on_threads
from tiny_run import copied_run


def cost(scale: float = 1.0) -> CostModel:
    forward = PassCost(2e-5 * scale, 3e-8 * scale, 1e-3 * scale, 1e-4 * scale, 512, 0)
    backward = PassCost(4e-5 * scale, 6e-8 * scale, 2e-3 * scale, 3e-4 * scale, 1024, 0)
    return CostModel("x", 4, 5e-3 * scale, 6e-5 * scale, forward, backward, 4, 2, 1.0, 0.0, 0.0)


ALONE: Any = SimpleNamespace(rank=0, from_rank_0=lambda value: value)


def recalibration(every: int, run: Any = ALONE) -> Recalibration:
    return Recalibration(cost(), every, run)


def planned(lengths: list[int]) -> tuple[Plan, Batch]:
    batch = Batch([Sequence(i, n, 2 * n if n % 2 else 0) for i, n in enumerate(lengths)])
    plan = try_plan(batch, local_cluster(4, capacity_tokens=600), cost())
    assert isinstance(plan, Plan)
    return plan, batch


def seconds(plan: Plan, batch: Batch, truth: CostModel) -> list[float]:
    of = {s.id: s for s in batch.sequences}
    return [estimate_s(terms_of(truth), [of[i] for i in t.sequences], len(t.ranks)) for t in plan.tasks]


def test_off_by_default_and_every_k_steps() -> None:
    plan, batch = planned([100, 301, 707, 50])
    task_s = seconds(plan, batch, cost(3.0))
    never = recalibration(0)
    assert never.add(plan, batch, task_s) == ""
    assert never.cost == cost()
    second = recalibration(2)
    assert second.add(plan, batch, task_s) == ""
    assert second.cost == cost()
    assert "cost fitted to" in second.add(plan, batch, task_s)
    assert second.cost != cost()
    # Nothing but the times changes.
    assert second.cost.forward.ring_bytes_per_token == 512
    assert second.cost.token_bytes == 1.0


def test_finds_times_that_are_another_machines() -> None:
    truth = cost(3.0)
    truth.patch_s = 1e-5  # one coefficient in another proportion
    fitted = recalibration(1)
    samples = []
    for shift in range(8):
        plan, batch = planned([100 + 40 * shift, 301 + 2 * shift, 907 + 100 * shift, 50, 63, 1500 + shift, 75 + shift])
        fitted.add(plan, batch, seconds(plan, batch, truth))
        samples.append((plan, batch))
    plan, batch = planned([140, 333, 1200, 61, 410])
    predicted, measured = seconds(plan, batch, fitted.cost), seconds(plan, batch, truth)
    assert predicted == pytest.approx(measured, rel=0.02)
    assert seconds(plan, batch, cost()) != pytest.approx(measured, rel=0.5)


def test_all_ranks_plan_from_what_rank_0_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    original = recalibrate.fit_times
    monkeypatch.setattr(recalibrate, "fit_times", lambda *a, **k: fits.append(1) or original(*a, **k))

    def rank(run: ThreadRun) -> tuple[str, str]:
        fitted = recalibration(2, run)
        plan, batch = planned([100, 301, 907, 50])
        # Seconds are the same on all ranks. Here they are not: what others have must not count.
        task_s = [s * (1 + run.rank) for s in seconds(plan, batch, cost(2))]
        return fitted.add(plan, batch, task_s) + fitted.add(plan, batch, task_s), to_json(fitted.cost)

    alone = rank(ThreadRun(0, 1, {"values": [None], "barrier": threading.Barrier(1)}))
    assert on_threads(3, rank) == [alone] * 3
    assert "cost fitted to" in alone[0]
    assert len(fits) == 2


def steps_from(fitted: Recalibration, first: int, last: int) -> list[tuple[str, str]]:
    """The costs that plan the batches of these steps, and the one kept for the batch after them, as train does it."""
    costs = []
    for shift in range(first, last):
        plan, batch = planned([100 + 40 * shift, 301, 907 + 100 * shift, 50])
        fitted.add(plan, batch, [s * (1 + 0.01 * (i % 3)) for i, s in enumerate(seconds(plan, batch, cost(2)))])
        costs.append((to_json(fitted.cost), to_json(fitted.cost_ahead)))
    return costs


@pytest.mark.parametrize("saved", [1, 2, 3, 4, 5])
def test_a_run_that_continues_plans_as_the_one_before_would_have(saved: int) -> None:
    whole = steps_from(recalibration(2), 0, 8)
    assert len(set(whole)) > 4
    assert whole[1][0] != whole[1][1], "the batch after a fit was planned before it"
    first, second = recalibration(2), recalibration(2)
    steps_from(first, 0, saved)
    second.restore(json.loads(json.dumps(first.state())))
    assert (to_json(second.cost), to_json(second.cost_ahead)) == whole[saved - 1]
    assert steps_from(second, saved, 8) == whole[saved:]


def test_a_damaged_state_is_refused_and_none_is_kept_where_nothing_is_fitted() -> None:
    assert recalibration(0).state() == {}
    fitted = recalibration(1)
    fitted.restore({})
    assert fitted.cost == cost()
    state = fitted.state()
    for damaged in (
        {"steps": 1},
        {**state, "tasks": [3]},
        {**state, "cost": {}},
        {**state, "tasks": [[[["x"]], 1, 2]]},
        {**state, "steps": "x"},
        {**state, "steps": math.inf},
    ):
        with pytest.raises(InputError):
            recalibration(1).restore(damaged)


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
