"""What `dhp train --result` writes: the spans of both clocks, by hand and over threads that act as ranks."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from dhp._core import Batch, Cluster, InputError, Link, Plan, Sequence, Task, read_cost_model, replay, try_plan
from dhp.settings.config import TrainConfig
from dhp.watch.record import Recorder, Stopwatch, check_result_options, chosen_clock, own_spans, replay_spans
from dhp.watch.result import Span, read_result
from made_results import CASES
from thread_run import ThreadRun

LINK = Link(bandwidth_bytes_per_s=2e9, latency_s=5e-5)


def named(spans: list[Span]) -> list[tuple[Any, ...]]:
    return sorted((s.rank, s.start_s, s.end_s, s.kind, s.task) for s in spans)


def test_replayed_spans_by_hand() -> None:
    """Rank 1 is alone in task 0 for 2 s; rank 0 waits for it, then both take 1 s together; rank 2 does nothing."""
    plan = Plan(ranks=3, tasks=[Task(0, [1], [5]), Task(1, [0, 1], [6])])
    spans = replay_spans(plan, replay(plan, [2.0, 1.0]), 10.0)
    assert named(spans) == [
        (0, 10.0, 12.0, "peer", 1),
        (0, 12.0, 13.0, "compute", 1),
        (1, 10.0, 12.0, "compute", 0),
        (1, 12.0, 13.0, "compute", 1),
    ]


def test_spans_by_the_clock_on_the_wall_by_hand() -> None:
    """The rank waits for its plan and reads until 1, is alone in task 0 until 3, comes to task 2 then, its peer at 4;
    it computes 1.5 of the 2 s that are left until 6. The last task of all ends at 7, so gradients are summed there."""
    watch = Stopwatch(
        started=100.0,
        data=(100.0, 101.0),
        tasks={0: (101.0, 103.0), 2: (103.0, 106.0)},
        tasks_s={0: 0.5, 2: 1.5},
        parts={"reduce": (106.0, 108.0), "optimizer": (108.0, 108.5)},
        parts_s={"reduce": 0.1, "optimizer": 0.1},
    )
    spans = own_spans(3, watch, 100.0, came=[1.0, 0.0, 4.0], finished=7.0, shared={2})
    assert named(spans) == [
        (3, 0.0, 1.0, "data", -1),
        (3, 1.0, 3.0, "compute", 0),
        (3, 3.0, 4.0, "peer", 2),
        (3, 4.0, 5.5, "compute", 2),
        (3, 5.5, 6.0, "transfer", 2),
        (3, 7.0, 8.0, "reduce", -1),
        (3, 8.0, 8.5, "optimizer", -1),
    ]


def recorded(file: Path, clock: str, steps: int = 3, step: int = 0) -> Plan:
    """Three ranks that take what the plan predicts, by both clocks, after 0.25 s of reading; then 0.5 s of gradients
    and 0.125 s of optimizer."""
    ranks = 3
    cost = read_cost_model(str(CASES / "cost_qwen3-vl-2b.json"))
    cluster = Cluster(nodes=1, ranks_per_node=ranks, memory_bytes=6.4e10, intra_node=LINK, inter_node=LINK)
    batch = Batch([Sequence(i, tokens) for i, tokens in enumerate([30_000, 9_000, 5_000, 800, 700, 600, 90])])
    plan = try_plan(batch, cluster, cost)
    assert isinstance(plan, Plan)
    shared: dict[str, Any] = {"values": [None] * ranks, "barrier": threading.Barrier(ranks)}
    settings = TrainConfig(model="m", data="clips.jsonl", ranks=ranks)

    def work(rank: int) -> None:
        run: Any = ThreadRun(rank, ranks, shared)
        recorder = Recorder(str(file), run, settings, clock=clock, step=step)
        recorder.begin(cluster, cost)
        seconds = [task.end_s - task.start_s for task in plan.tasks]
        for number in range(1, steps + 1):
            start = 50.0 * number
            own = [task for task in plan.tasks if rank in task.ranks]
            watch = Stopwatch(started=start, read_s=0.25 if rank == 1 else 0.125, data=(start, start + 0.25))
            ready = start + 0.25
            for task in own:
                watch.tasks[task.id] = (ready, start + 0.25 + task.end_s)
                watch.tasks_s[task.id] = task.end_s - task.start_s
                ready = start + 0.25 + task.end_s
            finished = start + 0.25 + plan.predicted.makespan_s
            watch.parts = {"reduce": (ready, finished + 0.5), "optimizer": (finished + 0.5, finished + 0.625)}
            watch.parts_s = {"reduce": 0.5, "optimizer": 0.125}
            recorder.step(number, plan, batch, 0.002, seconds, watch)
        recorder.write()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return plan


@pytest.mark.parametrize("clock", ["emulated", "wall"])
def test_both_clocks_give_back_a_run_that_went_as_planned(tmp_path: Path, clock: str) -> None:
    plan = recorded(tmp_path / "r.json", clock)
    makespan = plan.predicted.makespan_s
    result = read_result(tmp_path / "r.json")
    assert (result.kind, result.clock, result.ranks, result.ranks_per_node) == ("measured", clock, 3, 3)
    assert (result.name, result.planner) == ("free, clips, 3 ranks", "free")
    assert [step.step for step in result.steps] == [1, 2, 3]
    for step in result.steps:
        assert step.seconds == pytest.approx(0.25 + makespan + 0.625, abs=1e-9)
        assert step.tasks_s == pytest.approx(makespan, abs=1e-9)
        assert step.predicted_s == makespan
        assert step.tokens == 46_190
        assert step.idle_s["data"] == pytest.approx(0.75, abs=1e-9)
        assert ("transfer" in step.idle_s) == (clock == "wall")
        assert step.idle_s.get("transfer", 0.0) == pytest.approx(0.0, abs=1e-9)
        busy = sum(len(task.ranks) * (task.end_s - task.start_s) for task in plan.tasks)
        assert sum(step.idle_s.values()) - 0.75 == pytest.approx(3 * makespan - busy, abs=1e-9)
    assert result.tasks is not None
    assert result.tasks["seconds"] == pytest.approx(result.tasks["predicted_s"], abs=1e-9)
    assert result.tasks["step"].tolist() == [step for step in (1, 2, 3) for _ in plan.tasks]
    assert result.timeline is not None and result.timeline.step == 2
    totals = dict.fromkeys(("compute", "peer", "data", "reduce", "optimizer"), 0.0)
    for span in json.loads((tmp_path / "r.json").read_text())["timeline"]["spans"]:
        totals[span["kind"]] += span["end_s"] - span["start_s"]
    assert totals["compute"] == pytest.approx(busy, abs=1e-9)
    assert totals["peer"] == pytest.approx(result.steps[1].idle_s["peer"], abs=1e-9)
    assert (totals["data"], totals["reduce"], totals["optimizer"]) == pytest.approx((0.75, 1.5, 0.375), abs=1e-9)
    assert result.memory is not None and result.memory.budget_bytes is not None
    assert result.memory.peak_bytes is not None and 0 < result.memory.peak_bytes.max() <= result.memory.budget_bytes
    assert result.lengths is not None and result.lengths.sum() == 46_190


@pytest.mark.parametrize(("steps", "asked", "kept"), [(3, 0, 2), (1, 0, 1), (3, 3, 3), (3, 1, 1)])
def test_the_step_of_the_timeline(tmp_path: Path, steps: int, asked: int, kept: int) -> None:
    recorded(tmp_path / "r.json", "emulated", steps, asked)
    timeline = read_result(tmp_path / "r.json").timeline
    assert timeline is not None and timeline.step == kept


def test_options_are_checked_before_training(tmp_path: Path) -> None:
    check_result_options(str(tmp_path / "new" / "r.json"), 0, 5)
    check_result_options(str(tmp_path / "r.json"), 5, 5)
    with pytest.raises(InputError, match=r"--result-step: found 6, expected a step of the run, 1 to 5"):
        check_result_options(str(tmp_path / "r.json"), 6, 5)
    with pytest.raises(InputError, match=r"--result: .* cannot be written \(Is a directory\)"):
        check_result_options(str(tmp_path), 0, 5)


def test_the_clock_is_emulated_where_ranks_outnumber_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    for ranks, clock in ((1, "wall"), (4, "wall"), (5, "emulated")):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert chosen_clock("auto") == clock
    assert chosen_clock("wall") == "wall"
    assert chosen_clock("auto", "cuda") == "wall"
