"""Cases that are alike: CI draws some of them, other runs take all."""

from __future__ import annotations

import os
import random

import pytest


def skip_most_in_ci(keep: float) -> None:
    """Skips a test with the probability 1 - `keep` where a share of random cases is asked for (DHP_TEST_SHARE). Prints
    the seed of the choice, which DHP_TEST_SEED repeats."""
    seed = os.environ.get("DHP_TEST_SEED") or str(random.randrange(10**6))
    print(f"DHP_TEST_SEED={seed}")
    chance = random.Random(f"{seed} {os.environ.get('PYTEST_CURRENT_TEST', '')}").random()
    if float(os.environ.get("DHP_TEST_SHARE", 1)) < 1 and chance > keep:
        pytest.skip("not drawn this time")
