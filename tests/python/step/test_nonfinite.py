"""Losses and gradients that are not finite, batches without samples: what they lead to."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from dhp._core import Plan, Task
from dhp.loop.batches import Drops
from dhp.loop.step_clock import StepClock
from dhp.run.runtime import RunStopped
from dhp.step.nonfinite import MOST_IN_A_ROW, Skips, trouble_of
from dhp.watch.steps import Reporter, StepRecord
from thread_run import on_threads

PLAN = Plan(ranks=3, tasks=[Task(0, [0, 1], [10, 11]), Task(1, [2], [12]), Task(2, [1, 2], [13])])


def first_bad(model: torch.nn.Module) -> str:
    return next((name for name, p in model.named_parameters() if not torch.isfinite(p.grad).all()), "")


def combined(losses: dict[tuple[int, int], float], finite: list[bool], norm: float) -> list[tuple[str, float]]:
    """What each rank makes of a step with these losses by (rank, task)."""
    model = torch.nn.Linear(2, 1)
    for p in model.parameters():
        p.grad = torch.full_like(p, norm)
    model.bias.grad = torch.zeros(1)

    def work(run: Any) -> tuple[str, float]:
        clock = StepClock()
        for task in PLAN.tasks:
            if run.rank in task.ranks:
                clock.add_loss(task, torch.tensor(losses.get((run.rank, task.id), 1.0)))
        clock.read([])
        bad = clock.combine(run, PLAN, finite[run.rank], norm)
        return trouble_of(PLAN, clock.bad_losses, bad, lambda: first_bad(model)), clock.loss.item()

    return on_threads(3, work)


def test_a_step_that_is_finite_is_no_trouble() -> None:
    assert combined({}, [True] * 3, 1.0) == [("", 5.0)] * 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_task_with_such_a_loss_is_named_on_all_ranks(value: float) -> None:
    found = combined({(1, 2): value}, [True] * 3, math.nan)
    assert {text for text, _ in found} == {"the loss of task 2 is not finite; its samples: 13"}
    found = combined({(2, 1): value, (1, 0): value}, [True, False, False], math.nan)
    assert {text for text, _ in found} == {"the loss of task 0 (as of 1 more) is not finite; its samples: 10, 11"}


def test_a_gradient_is_named_with_the_tasks_of_its_ranks() -> None:
    found = combined({}, [True, True, False], math.inf)
    assert {text for text, _ in found} == {
        "the gradient of weight is not finite; it comes from tasks 1, 2 with the samples 12, 13"
    }
    found = combined({}, [True] * 3, math.inf)  # only the sum is not
    assert {text for text, _ in found} == {
        "the gradient of weight is not finite; it comes from tasks 0, 1, 2 with the samples 10, 11, 12, 13"
    }


def test_stop_stops_and_skip_ends_after_ten_in_a_row() -> None:
    with pytest.raises(RunStopped, match=r'step 3: the loss .*; to leave such steps out, set on_nonfinite = "skip"'):
        Skips("stop").skip(3, "the loss of task 1 is not finite")
    assert not Skips("stop").skip(3, "")
    skips = Skips("skip")
    for _ in range(2):
        assert all(skips.skip(step, "it") for step in range(1, MOST_IN_A_ROW))
        assert not skips.skip(MOST_IN_A_ROW, "")
    assert all(skips.skip(step, "it") for step in range(1, MOST_IN_A_ROW))
    with pytest.raises(RunStopped, match="step 10: it; so were 9 steps before it: lower learning_rate"):
        skips.skip(MOST_IN_A_ROW, "it")


def record(step: int, loss: float, skipped: str) -> StepRecord:
    numbers = dict.fromkeys(StepRecord.__dataclass_fields__, 0.0)
    own = {"step": step, "loss": loss, "degrees": [1], "dropped": [], "rank_speed": [], "skipped": skipped}
    return StepRecord(**{**numbers, **own})


def test_skipped_steps_are_counted_and_json_stays_json(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    reporter = Reporter(9, file)
    for step, loss in ((1, math.nan), (2, 0.5), (3, math.inf)):
        reporter.step(record(step, loss, "" if step == 2 else "why"))
    reporter.close()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
    assert [(row["loss"], row["skipped"]) for row in rows] == [(None, "why"), (0.5, ""), (None, "why")]
    assert reporter.line(record(4, math.nan, "why")).endswith("| skipped (2 so far)")
    assert "skipped" not in reporter.line(record(4, 0.5, ""))


def test_no_room_for_metrics_and_nobody_who_reads_end_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        reporter = Reporter(9, "/dev/full", log_every=1, stream=stream)
        for step in (1, 2):
            reporter.step(record(step, 0.5, ""))
            reporter.say("text")
        reporter.close()
    message = "dhp: --metrics: /dev/full cannot be written (No space left on device): no more of them\n"
    assert capsys.readouterr().err == message, "once"


def test_a_batch_without_samples_ends_the_run() -> None:
    with pytest.raises(RunStopped, match="step 7: all 4 samples of the batch were dropped: nothing to train on"):
        Drops(1.0).add(7, 4, 4)


def feed(drops: Drops, steps: list[tuple[int, int]]) -> int | None:
    """The step, from 1, at which it ends."""
    for step, (samples, dropped) in enumerate(steps, start=1):
        try:
            drops.add(step, samples, dropped)
        except RunStopped as error:
            assert f"step {step}: " in str(error)
            assert "were dropped, more than max_dropped_share = " in str(error)
            return step
    return None


@pytest.mark.parametrize(
    ("share", "steps", "ends"),
    [
        (0.1, [(8, 1)], None),  # one of the first eight says little
        (0.1, [(4, 3)] * 10, 7),  # 21 of 28
        (0.1, [(10, 1)] * 500, None),  # a tenth is allowed
        (0.1, [(10, 1)] * 99 + [(10, 2)], 100),  # 101 of 1,000
        (0.1, [(10, 0)] * 200 + [(10, 9)] * 20, 212),  # 108 of the last 1,000
        (0.1, [(4000, 400), (4000, 401)], 2),
        (0.0, [(8, 0), (8, 1)], 2),
        (1.0, [(8, 7)] * 1000, None),
    ],
)
def test_a_share_of_the_newest_samples_ends_the_run(
    share: float, steps: list[tuple[int, int]], ends: int | None
) -> None:
    assert feed(Drops(share), steps) == ends
