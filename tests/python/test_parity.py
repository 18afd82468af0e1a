"""Every schedule on any number of ranks trains what Hugging Face trains alone: losses of ten steps, all gradients."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

RUNS = [(1, "paper"), (2, "paper"), (3, "paper"), (4, "paper")]
RUNS += [(ranks, "static:1") for ranks in (1, 2, 3, 4)] + [(2, "static:2"), (4, "static:2")]
RUNS += [(4, "handmade@2")]  # free plans with every exchange on two nodes: parity_worker.HANDMADE
FROZEN = ["frozen_vit", "frozen_vision", "frozen_llm"]
TOLERANCE = {"fp64": 1e-6, "fp32": 1e-4}


@pytest.fixture(scope="module")
def results(mixed_data: Path) -> Path:
    """Runs everything once; `mixed_data` has pictures, clips and text, and a tiny checkpoint (conftest.py)."""
    names = [f"reference-{p}" for p in TOLERANCE] + [f"{r}-{s}-{p}" for r, s in RUNS for p in TOLERANCE]
    names += [f"{kind}-fp64-{variant}" for variant in FROZEN for kind in ("reference", "4-paper")]
    names += ["4-paper-fp64-recompute"]
    worker = Path(__file__).with_name("parity_worker.py")
    done = subprocess.run([sys.executable, worker, mixed_data, *names], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return mixed_data


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(("ranks", "schedule"), RUNS)
def test_losses_and_gradients_equal_hugging_face(results: Path, ranks: int, schedule: str, precision: str) -> None:
    compare(results, f"{ranks}-{schedule}-{precision}", f"reference-{precision}", TOLERANCE[precision])


@pytest.mark.parametrize("variant", FROZEN)
def test_parts_that_do_not_train(results: Path, variant: str) -> None:
    gradients = compare(results, f"4-paper-fp64-{variant}", f"reference-fp64-{variant}", 1e-6)
    vision = {name for name in gradients if ".visual." in name}
    aligner = {name for name in vision if "merger" in name}
    text = gradients.keys() - vision
    trained = {
        "frozen_vit": (False, True, True),
        "frozen_vision": (False, False, True),
        "frozen_llm": (True, True, False),
    }
    assert (bool(vision - aligner), bool(aligner), bool(text)) == trained[variant]


def test_recomputed_activations_change_nothing(results: Path) -> None:
    compare(results, "4-paper-fp64-recompute", "reference-fp64", 1e-6)


def compare(results: Path, name: str, reference: str, tolerance: float) -> dict[str, torch.Tensor]:
    """Asserts equal losses and gradients of all steps; returns the gradients of the last."""
    ours, theirs = torch.load(results / f"{name}.pt"), torch.load(results / f"{reference}.pt")
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=tolerance)
    assert len(ours["gradients"]) == len(theirs["gradients"]) == 10
    worst = 0.0
    for step, (mine, expected) in enumerate(zip(ours["gradients"], theirs["gradients"], strict=True)):
        assert mine.keys() == expected.keys()
        # A gradient that is zero in exact arithmetic (a key bias, say) is rounding noise on both sides: measure against
        # the gradients' own scale, with a floor at that noise.
        floor = tolerance * max(g.norm().item() for g in expected.values())
        for parameter, gradient in expected.items():
            error = (mine[parameter] - gradient).norm().item() / max(gradient.norm().item(), floor)
            worst = max(worst, error)
            assert error <= tolerance, f"step {step + 1}, {parameter}: {error:.2e}"
    print(f"{name}: worst gradient {worst:.1e}")
    return mine


def test_runs_use_groups_of_several_sizes(results: Path) -> None:
    degrees = {d for step in torch.load(results / "4-paper-fp64.pt")["degrees"] for d in step}
    assert len(degrees) >= 3, degrees
    assert any(d & (d - 1) for d in degrees), f"no degree that is not a power of two: {degrees}"


@pytest.mark.parametrize("name", ["4-paper-fp64", "4-static:2-fp64", "3-paper-fp64", "4-handmade@2-fp64"])
def test_two_process_groups_however_many_groups_plans_use(results: Path, name: str) -> None:
    assert torch.load(results / f"{name}.pt")["groups"] == 2
