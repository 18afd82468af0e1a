"""Cases that are alike: CI draws some of them, other runs take all."""

from __future__ import annotations

import os
import random

import pytest


def skip_most_in_ci(keep: float) -> None:
    """Skips a test with the probability 1 - `keep` where a share of random cases is asked for (DHP_TEST_SHARE)."""
    if float(os.environ.get("DHP_TEST_SHARE", 1)) < 1 and random.random() > keep:
        pytest.skip("not drawn this time")
