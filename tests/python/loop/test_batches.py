"""Batches planned ahead in a thread, and the clock of a step."""

import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from command_line import CASES
from dhp._core import Batch, Cluster, CostModel, Link, Plan, Sequence, Task, read_cost_model, simple_lower_bound_s
from dhp.cost.recalibrate import Basis
from dhp.data.dataset import Share
from dhp.data.text import IGNORED, Encoded
from dhp.loop import batches
from dhp.loop.batches import Ahead
from dhp.loop.step_clock import StepClock
from dhp.run import planning
from dhp.run.planning import InfeasibleBatch
from dhp.settings.config import TrainConfig
from dhp.task.input import TaskInput
from thread_run import on_threads

LINK = Link(bandwidth_bytes_per_s=2e9, latency_s=5e-5)
COST = read_cost_model(str(CASES / "cost_qwen3-vl-2b.json"))
CLUSTER = Cluster(nodes=1, ranks_per_node=2, memory_bytes=6.4e10, intra_node=LINK, inter_node=LINK)
SETTINGS = TrainConfig(model="m", data="d.jsonl", ranks=2)


class Lengths:
    """Data whose batch of each step has these lengths."""

    def __init__(self, *steps: list[int]) -> None:
        self._steps = steps
        self.read: list[str] = []

    def batch(self, step: int, size: int, seed: int) -> Batch:
        return Batch([Sequence(i, tokens) for i, tokens in enumerate(self._steps[step])])

    def read_ahead(self, plan: Plan, rank: int) -> Future[Any]:
        self.read.append(plan.hash)
        return Future()


def ahead_of(data: Any, rank: int = 0, costs: Any = None, steps: int = 3) -> Ahead:
    costs = costs or SimpleNamespace(now=Basis(COST, CLUSTER), ahead=Basis(COST, CLUSTER))
    return Ahead(range(steps), data, costs, SETTINGS, rank)


def test_one_batch_is_planned_and_read_while_another_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[tuple[str, float]] = []
    make_plan, second = planning.plan, threading.Event()

    def plan(batch: Batch, cluster: Cluster, cost: CostModel, **options: Any) -> Plan:
        planned.append((threading.current_thread().name, cost.task_s))
        if len(planned) == 2:
            assert second.wait(60)
        return make_plan(batch, cluster, cost, **options)

    monkeypatch.setattr(batches.planning, "plan", plan)

    def costs_with(task_s: float) -> Basis:
        fitted = read_cost_model(str(CASES / "cost_qwen3-vl-2b.json"))
        fitted.task_s = task_s
        return Basis(fitted, CLUSTER)

    data = Lengths([900, 800], [700, 600], [500])
    costs = SimpleNamespace(now=costs_with(2.0), ahead=costs_with(1.0))
    ahead = ahead_of(data, costs=costs)
    first = ahead.take()
    ahead.begin(1)
    assert (first.step, [s.tokens for s in first.batch.sequences]) == (0, [900, 800])
    costs.now = costs_with(3.0)  # what is fitted after step 1 plans step 3
    second.set()  # step 1 is trained; the next was begun before
    assert [s.tokens for s in ahead.take().batch.sequences] == [700, 600]
    ahead.begin(2)
    assert ahead.take().plan.hash == data.read[2]
    assert len(data.read) == 3
    assert [cost for _, cost in planned] == [1.0, 2.0, 3.0]
    assert {name for name, _ in planned} == {"dhp-plan_0"}


def test_a_batch_without_a_plan_is_no_concern_of_the_step_before() -> None:
    ahead = ahead_of(Lengths([900], [10**9], [5]))
    ahead.take()
    ahead.begin(1)
    with pytest.raises(InfeasibleBatch, match="sequence 0 needs"):
        ahead.take()


def test_only_rank_0_works_out_the_tighter_bound() -> None:
    lengths = [30_000, 20_000, 16_000]
    first, second = (ahead_of(Lengths(lengths), rank, steps=1).take().plan for rank in (0, 1))
    assert first.hash == second.hash
    simple = simple_lower_bound_s(Batch([Sequence(i, n) for i, n in enumerate(lengths)]), CLUSTER, COST)
    assert second.predicted.lower_bound_s == simple
    assert first.predicted.lower_bound_s > simple


def test_steps_leave_no_time_out() -> None:
    def work(run: Any) -> None:
        ahead = ahead_of(Lengths([900, 800]), run.rank, steps=1)
        began = time.perf_counter()
        clock = StepClock()
        with clock.planning():
            now = ahead.take()
            time.sleep(0.02)
        with clock.reading():
            time.sleep(0.03)
        for name in ("reduce", "optimizer"):
            with clock.part(name):
                time.sleep(0.01)
        assert clock.combine(run, now.plan, True, 1.0) == []
        record = clock.record(now, 7, [], 1.0, 0.1, "")
        assert record.plan_wait_s >= 0.02 and record.read_wait_s >= 0.03
        assert 0.07 <= record.seconds <= time.perf_counter() - began
        with clock.part("save"):
            time.sleep(0.04)
        following = StepClock(after=clock)
        following.combine(run, now.plan, True, 1.0)
        assert (
            0.04 <= following.record(now, 7, [], 1.0, 0.1, "").seconds <= time.perf_counter() - began - record.seconds
        )
        assert record.tokens_per_s == pytest.approx(1700 / record.seconds)
        watch = clock.watch
        assert watch.started == watch.plan[0] < watch.plan[1] <= watch.data[0] < watch.data[1]
        assert list(watch.parts) == ["reduce", "optimizer", "save"]

    assert on_threads(2, work) == [None, None]


def test_what_was_made_of_an_input_goes_with_its_labels() -> None:
    """An adapter has made tensors of it ahead of time; then a sample is dropped on all ranks."""
    plan = Plan(ranks=1, tasks=[Task(0, [0], [7, 8]), Task(1, [0], [9])])
    share = Share()
    for task in plan.tasks:
        encoded = [Encoded(np.arange(3), np.arange(3), np.zeros(3, np.int8)) for _ in task.sequences]
        layout: Any = None
        share.inputs[task.id] = TaskInput(layout, encoded, [[]] * len(encoded), torch.empty(0), made="tensors")
    share.drop(plan, [8])
    assert [share.inputs[task].made for task in (0, 1)] == [None, "tensors"]
    labels = [encoded.labels.tolist() for encoded in share.inputs[0].encoded]
    assert labels == [[0, 1, 2], [IGNORED] * 3]
