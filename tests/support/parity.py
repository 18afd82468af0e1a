"""Runs of parity_worker.py, and what they have in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch


def run_parity(folder: Path, *names: str) -> None:
    """Trains in every way that is named, into NAME.pt; `folder` is as the fixture mixed_data has it."""
    worker = Path(__file__).parent / "parity_worker.py"
    done = subprocess.run([sys.executable, worker, folder, *names], capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def compare(results: Path, name: str, reference: str, tolerance: float) -> dict[str, torch.Tensor]:
    """Asserts equal losses and gradients of all steps; returns the gradients of the last."""
    ours, theirs = torch.load(results / f"{name}.pt"), torch.load(results / f"{reference}.pt")
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=tolerance)
    assert len(ours["gradients"]) == len(theirs["gradients"]) >= 2
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
