"""What `dhp` exports: all that inputs and answers need, documented; values that pickle, copy and compare."""

from __future__ import annotations

import copy
import enum
import inspect
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

import dhp
from ranks import World, run_processes, values

CASES = Path(__file__).parents[3] / "bench" / "cases"
LINK = dhp.Link(1e10, 1 / 3, links=7)
CLUSTER = dhp.Cluster(2, 3, 4e9, LINK, LINK, rank_speed=[1.0, 0.1, 1, 1, 1, 1])
ERRORS = dhp.ErrorSizes(0.03, 0.0, 1 / 3)
FACTOR = dhp.ResidualFactor(2, 1024, 1.1)
PASS = dhp.PassCost(token_s=1e-4 / 3, pair_s=1e-9, step_s=1e-3, ring_bytes_per_token=1e4)
COST = dhp.CostModel(
    "odd",
    4,
    0.01,
    1e-5,
    PASS,
    PASS,
    token_bytes=1e6,
    patch_bytes=1e5,
    state_bytes=1e9,
    expected_error=ERRORS,
    residuals=[FACTOR],
)
KINDS = 41  # that made_values makes
BATCH = dhp.Batch([dhp.Sequence(i, tokens, 12, 4) for i, tokens in enumerate((3000, 200, 1500, 9000))])


def made_values() -> Iterator[Any]:
    """One of every kind that has a state, nothing in it at its default where that can be."""
    plan = dhp.try_plan(BATCH, CLUSTER, COST)
    assert isinstance(plan, dhp.Plan)
    plan.most_peers = 3
    seconds = dhp.predict_task_seconds(plan, BATCH, CLUSTER, COST)
    simulation = dhp.simulate(plan, BATCH, CLUSTER, COST, steps=2, noise=0.1, record=True)
    explanation = dhp.explain_plan(plan, BATCH, CLUSTER, COST)
    changes = dhp.explain_changes(plan, BATCH, CLUSTER, COST)
    yield from (
        BATCH,
        BATCH.sequences[1],
        LINK,
        CLUSTER,
        PASS,
        ERRORS,
        FACTOR,
        COST,
        plan,
        plan.tasks[0],
        plan.predicted,
    )
    yield dhp.try_plan(dhp.Batch([dhp.Sequence(7, 10**6)]), CLUSTER, COST)
    yield from (dhp.replay(plan, seconds), dhp.plan_metrics(plan, BATCH, CLUSTER, COST))
    yield from (explanation, explanation.longest_waits[0], changes, changes.changes[0])
    yield dhp.explain_tasks(plan, BATCH, CLUSTER, COST)[0]
    yield from (simulation, simulation.steps[0], simulation.steps[0].tasks[0], simulation.rank_totals[0])
    yield simulation.steps[0].idle
    yield from (dhp.planners()[0], dhp.plan_options()[0], dhp.Freeze(vit=True), dhp.read_device("h100"))
    yield from (dhp.Exchange.direct, dhp.Schedule.lockstep, dhp.Placement.consecutive, dhp.Recompute.none)
    yield from (dhp.read_model_config("qwen3-vl-8b"), dhp.TokenRange(1, 5), dhp.Video(480, 640, 100, 30.0))
    yield from (dhp.MediumOptions(fps=0.1), dhp.image_tokens(dhp.token_rules("internvl"), 720, 1280))
    rules = dhp._core.qwen_vl.Rules(fps=1 / 3)
    clip = dhp._core.qwen_vl.sample_clip(rules, 240, 320, 100, 25.0)
    yield from (rules, clip, clip.grid, dhp._core.qwen_vl.Sampling(fps=0.3))


@pytest.mark.parametrize("number", range(KINDS))
def test_values_pickle_copy_and_compare(number: int) -> None:
    value = list(made_values())[number]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(value, protocol)) == value
    copies = [copy.copy(value), copy.deepcopy(value)]
    assert copies == [value, value]
    assert repr(copies[0]) == repr(value)
    assert value != 1
    assert value is not None
    if isinstance(value, enum.Enum):
        assert copies[1] is value  # and so it has a hash
        return
    with pytest.raises(TypeError, match="unhashable"):
        hash(value)
    assert copies[0] is not value


def test_every_kind_of_value_is_tried() -> None:
    unlike_values = {"TokenRules", "Preset", "InputError"}  # rules of a family, texts of the program, an exception
    modules = (dhp._core, dhp._core.qwen_vl)
    kinds = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    tried = [type(value) for value in made_values()]
    assert len(tried) == len(set(tried)) == KINDS
    missed = {kind.__name__ for kind in kinds - set(tried)}
    assert missed <= unlike_values | {"Processor"}


def test_a_changed_copy_leaves_the_value_alone() -> None:
    changed = copy.copy(CLUSTER)
    changed.memory_bytes += 1
    assert changed != CLUSTER
    task = dhp.Task(0, [2, 0], [1])
    other = copy.deepcopy(task)
    other.ranks = [0, 2]
    assert (task.ranks, task.degree, task == other) == ([2, 0], 2, False)


def test_a_recorded_simulation_makes_the_same_trace_after_pickling() -> None:
    plan = dhp.try_plan(BATCH, CLUSTER, COST)
    assert isinstance(plan, dhp.Plan)
    simulation = dhp.simulate(plan, BATCH, CLUSTER, COST, record=True)
    arguments = (plan, BATCH, CLUSTER, COST)
    assert dhp.chrome_trace(pickle.loads(pickle.dumps(simulation)), *arguments) == dhp.chrome_trace(
        simulation, *arguments
    )


class Batches(Dataset):
    """Plans made by the workers of a DataLoader."""

    def __init__(self, cluster: dhp.Cluster, cost: dhp.CostModel) -> None:
        self.cluster, self.cost = cluster, cost

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> tuple[dhp.Batch, dhp.Plan | dhp.Infeasible]:
        batch = dhp.Batch([dhp.Sequence(i, 100 * (number + 1) + i) for i in range(5)])
        return batch, dhp.try_plan(batch, self.cluster, self.cost)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_plan(start: str) -> None:
    data = Batches(CLUSTER, COST)
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=start)
    assert [tuple(one) for one in loader] == [data[i] for i in range(4)]


def _broadcast(world: World) -> list[Any]:
    mine = list(made_values())
    objects = mine if world.rank == 0 else [None] * KINDS
    dist.broadcast_object_list(objects, src=0)
    assert objects == mine
    return [repr(value) for value in objects]


def test_values_are_broadcast() -> None:
    assert values(run_processes(_broadcast, 2)) == [[repr(value) for value in made_values()]] * 2


def test_importing_and_planning_take_neither_torch_nor_transformers() -> None:
    code = f"""
import sys, dhp
batch = dhp.read_batch({str(CASES / "batch_openvid_512.json")!r})
cluster = dhp.read_cluster({str(CASES / "cluster_910b_8x8.json")!r})
cost = dhp.read_cost_model({str(CASES / "cost_qwen3-vl-8b_8192.json")!r})
plan = dhp.plan(batch, cluster, cost)
assert plan == dhp.try_plan(batch, cluster, cost)
dhp.simulate(plan, batch, cluster, cost), dhp.explain_plan(plan, batch, cluster, cost), dhp.local_cluster(2)
loaded = {{"torch", "transformers"}} & set(sys.modules)
assert not loaded, loaded
try:
    dhp.plan(dhp.Batch([dhp.Sequence(0, 10**9)]), cluster, cost)
except dhp.InfeasibleBatch as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sequence 0 needs")


def test_every_export_is_there_and_documented() -> None:
    assert set(dhp.__all__) <= set(dir(dhp))
    undocumented = [name for name in dhp.__all__ if name.isupper() is False and not described(getattr(dhp, name))]
    assert undocumented == []


def described(thing: Any) -> bool:
    """A docstring of its own, and for a class one for each method and value that is no field of a known name."""
    text = inspect.getdoc(thing) or ""
    if isinstance(thing, type) and not issubclass(thing, enum.Enum):
        methods = [m for name, m in vars(thing).items() if not name.startswith("_") and inspect.isroutine(m)]
        if not all(inspect.getdoc(method) for method in methods):
            return False
    # nanobind begins a docstring with the signature.
    return len([line for line in text.splitlines() if line.strip()]) > (1 if "nb_func" in type(thing).__name__ else 0)


def test_everything_that_an_export_takes_or_gives_is_exported() -> None:
    exported = {getattr(dhp, name) for name in dhp.__all__ if isinstance(getattr(dhp, name), type)}
    core = {kind for kind in vars(dhp._core).values() if isinstance(kind, type)}
    assert core <= exported


def test_old_names_are_read_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match=r"dhp.plan_batch is now dhp.try_plan"):
        assert dhp.plan_batch is dhp.try_plan  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="no attribute 'plan_batches'"):
        dhp.plan_batches  # type: ignore[attr-defined]  # noqa: B018
