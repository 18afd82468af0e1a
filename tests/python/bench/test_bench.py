"""What the benchmarks decide before they measure."""

from pathlib import Path
from types import ModuleType

import pytest

from bench_script import load_bench
from dhp.cost.local import local_cost


@pytest.fixture
def calibration() -> ModuleType:
    return load_bench("calibration")


def test_a_gpu_measures_the_longest_tasks_that_its_memory_holds(calibration: ModuleType, mixed_data: Path) -> None:
    cost = local_cost(mixed_data / "model", 1)
    cost.state_bytes, cost.token_bytes, cost.patch_bytes = 2e9, 640_000.0, 100_000.0  # 1 MB a token with its vision
    assert calibration.tokens_that_fit(cost, 80e9) == 32768, "53.3 GB of 80, less 2 for the state"
    assert calibration.tokens_that_fit(cost, 40e9) == 16384
    assert calibration.tokens_that_fit(cost, 6.2e9) == 2048
    assert calibration.tokens_that_fit(cost, 6e9) == 0, "2 GB hold 2,000 tokens, fewer than tell anything"
