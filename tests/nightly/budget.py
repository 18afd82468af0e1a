"""How much the trials of this folder do: little in CI, all of it under `make nightly` (DHP_NIGHTLY=1).

DHP_FUZZ_INPUTS  inputs of each fuzz run: 1,000; nightly 10,000
DHP_KILLS        kills of the chain: 20; nightly 200
DHP_TEST_SEED    of all that is random: 1; nightly a fresh one. Printed, so that a run can be repeated
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

NIGHTLY = os.environ.get("DHP_NIGHTLY", "") not in ("", "0")
FUZZ_INPUTS = int(os.environ.get("DHP_FUZZ_INPUTS", 10_000 if NIGHTLY else 1_000))
KILLS = int(os.environ.get("DHP_KILLS", 200 if NIGHTLY else 20))
SEED = int(os.environ.get("DHP_TEST_SEED", int(time.time()) if NIGHTLY else 1))

nightly = pytest.mark.skipif(not NIGHTLY, reason="takes long: make nightly, or DHP_NIGHTLY=1")


def fuzz(examples: int) -> Callable[[Any], Any]:
    """For a test of hypothesis: as many examples, whatever each takes; a failing one is printed so that it can be
    repeated."""
    return settings(
        max_examples=max(1, examples),
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
