"""`dhp train`'s loop on a device whose streams lag: losses and gradients of Hugging Face alone on a CPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
