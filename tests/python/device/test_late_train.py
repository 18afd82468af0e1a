"""`dhp train`'s loop on a device whose streams lag: losses and gradients of Hugging Face alone on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from parity import compare, run_parity

ALL = float(os.environ.get("DHP_TEST_SHARE", 1)) >= 1
RUNS = ["3-free-fp64-late_random_random"]
if ALL:
    RUNS += ["2-free-fp64-late_lazy_eager", "4-handmade@2-fp64-late_eager_lazy", "4-lockstep@2-fp64-late_random_random"]


@pytest.fixture(scope="module")
def results(mixed_data: Path) -> Path:
    run_parity(mixed_data, "reference-fp64", *RUNS)
    return mixed_data


@pytest.mark.parametrize("run", RUNS)
def test_losses_and_gradients_equal_hugging_face(results: Path, run: str) -> None:
    compare(results, run, "reference-fp64", 1e-6)


@pytest.mark.parametrize("run", RUNS)
def test_groups_are_counted_and_connected_before_tasks(results: Path, run: str) -> None:
    """The default group, near, and with two nodes far; transfers of tasks find the ranks connected. Ranks of two nodes
    meet on the far lane as hierarchical exchanges have them, and near where a task exchanges rows or another way."""
    found = torch.load(results / f"{run}.pt")
    groups = 3 if "@" in run else 2
    assert found["groups"] == groups
    assert any(near["to"] for _, near, *_ in found["contacts"])
    for contacts in found["contacts"]:
        assert len(contacts) == groups
        assert [lane["late"] for lane in contacts] == [[]] * groups
        assert contacts[0]["to"] == [], "nothing of DHP's is on the default group"
    if "@" in run:
        ranks = range(len(found["contacts"]))
        hierarchical = any(how == "hierarchical" for step in found["tasks"] for _, how in step)
        assert any(found["contacts"][rank][2]["to"] for rank in ranks) == hierarchical
        for rank in ranks:
            assert all(peer // 2 != rank // 2 for peer in found["contacts"][rank][2]["to"])
