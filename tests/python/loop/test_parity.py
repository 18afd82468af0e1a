"""Every planner on any number of ranks trains what Hugging Face trains alone: losses of ten steps (four in CI),
and all gradients. CI draws some of the runs that no other test looks at."""

import os
import random
from pathlib import Path

import pytest
import torch

from parity import compare, run_parity

FREE = ["4-free", "4-free@2"]  # on one node and on two
ALWAYS = [*FREE, "4-lockstep", "4-lockstep@2", "3-paper", "4-paper", "4-static:2"]
ALWAYS += ["4-handmade@2"]  # free plans with every exchange on two nodes: parity_worker.HANDMADE
DRAWN = ["1-free", "2-free", "3-free", "2-lockstep", "3-lockstep", "1-paper", "2-paper", "4-static:1", "2-static:2"]
IN_FP32 = [*FREE, "4-lockstep", "4-paper", "4-static:2", "4-handmade@2"]
ALWAYS, DRAWN = [f"{run}-fp64" for run in ALWAYS], [f"{run}-fp64" for run in DRAWN] + [f"{run}-fp32" for run in IN_FP32]
RECOMPUTED = ["recompute", "keep_attention"]
FROZEN = ["frozen_vit", "frozen_vision", "frozen_llm"]
TOLERANCE = {"fp64": 1e-6, "fp32": 1e-4}


@pytest.fixture(scope="module")
def results(mixed_data: Path) -> Path:
    """Runs everything once; `mixed_data` has pictures, clips and text, and a tiny checkpoint (conftest.py)."""
    drawn = DRAWN
    if float(os.environ.get("DHP_TEST_SHARE", 1)) < 1:
        seed = random.randrange(10**6)
        drawn = random.Random(seed).sample(DRAWN, 5)
        print(f"seed {seed}: {drawn}")
    names = [f"reference-{precision}" for precision in TOLERANCE] + ALWAYS + drawn
    names += [f"{kind}-fp64-{variant}" for variant in FROZEN for kind in ("reference", "4-free@2")]
    names += [f"4-free@2-fp64-{variant}" for variant in RECOMPUTED]
    run_parity(mixed_data, *names)
    return mixed_data


@pytest.mark.parametrize("case", ALWAYS + DRAWN)
def test_losses_and_gradients_equal_hugging_face(results: Path, case: str) -> None:
    if case in DRAWN and not (results / f"{case}.pt").exists():
        pytest.skip("not drawn this time")
    precision = case[-4:]
    compare(results, case, f"reference-{precision}", TOLERANCE[precision])


@pytest.mark.parametrize("variant", FROZEN)
def test_parts_that_do_not_train(results: Path, variant: str) -> None:
    gradients = compare(results, f"4-free@2-fp64-{variant}", f"reference-fp64-{variant}", 1e-6)
    vision = {name for name in gradients if ".visual." in name}
    aligner = {name for name in vision if "merger" in name}
    text = gradients.keys() - vision
    trained = {
        "frozen_vit": (False, True, True),
        "frozen_vision": (False, False, True),
        "frozen_llm": (True, True, False),
    }
    assert (bool(vision - aligner), bool(aligner), bool(text)) == trained[variant]


@pytest.mark.parametrize("variant", RECOMPUTED)
def test_recomputed_activations_change_nothing(results: Path, variant: str) -> None:
    compare(results, f"4-free@2-fp64-{variant}", "reference-fp64", 1e-6)


@pytest.mark.parametrize("run", [*FREE, "4-lockstep", "4-lockstep@2", "4-paper"])
def test_runs_use_groups_of_several_sizes(results: Path, run: str) -> None:
    degrees = {len(ranks) for tasks in tasks_of(results, run) for ranks, _ in tasks}
    assert degrees == {1, 2, 3, 4}


@pytest.mark.parametrize("run", FREE)
def test_free_plans_scatter_groups_and_give_ranks_different_numbers_of_tasks(results: Path, run: str) -> None:
    steps = tasks_of(results, run)
    groups = [sorted(ranks) for tasks in steps for ranks, _ in tasks]
    assert any(group[-1] - group[0] >= len(group) for group in groups), f"only consecutive ranks: {groups}"
    counts = [[sum(rank in ranks for ranks, _ in tasks) for rank in range(4)] for tasks in steps]
    assert any(min(of_ranks) < max(of_ranks) for of_ranks in counts), f"as many tasks on all ranks: {counts}"


def test_planners_choose_exchanges_by_where_ranks_are(results: Path) -> None:
    used = {run: {exchange for tasks in tasks_of(results, run) for _, exchange in tasks} for run in FREE}
    assert used == {"4-free": {"ring", "direct"}, "4-free@2": {"ring", "hierarchical"}}


def tasks_of(results: Path, run: str) -> list[list[tuple[list[int], str]]]:
    """Ranks and exchange of each task, of every step."""
    return torch.load(results / f"{run}-fp64.pt")["tasks"]


@pytest.mark.parametrize("run", [*FREE, "3-paper", "4-lockstep", "4-static:2", "4-handmade@2"])
def test_two_process_groups_however_many_groups_plans_use(results: Path, run: str) -> None:
    assert torch.load(results / f"{run}-fp64.pt")["groups"] == 2
