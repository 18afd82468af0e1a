"""How long a rank waits for a peer: what a group takes for it, and that it is what the group then does."""

from __future__ import annotations

import math
import time

import pytest
import torch

from ranks import run_threads


def meet(group: str) -> None:
    """A ring of two ranks, one key from the other."""
    q = torch.randn(2, 4, 8)
    torch.ops.dhp.ring_attention(q, q, q, [4], [0, 1], group, 0.3, True, "ring", [0, 0])


def waits(rank: int, group: str, timeout_s: float, refused_s: float, late_s: float) -> float:
    """The seconds that a rank waited for the other, which comes late."""
    torch.ops.dhp.configure_group(group, timeout_s)
    if refused_s:
        with pytest.raises(ValueError, match="configure_group: timeout_s: found"):
            torch.ops.dhp.configure_group(group, refused_s)
    if rank == 1:
        time.sleep(late_s)
    begin = time.monotonic()
    meet(group)
    return time.monotonic() - begin


@pytest.mark.parametrize("seconds", [1e19, 1e10, 1_000_001.0, math.inf, 0.0009, 0.0, -0.0, -1.0, -1e19, math.nan])
def test_a_wait_that_no_clock_holds_is_refused_and_changes_nothing(seconds: float) -> None:
    """1e19 s did not fit into milliseconds of 64 bits: all waits expired at once."""
    name = f"refused {seconds}"
    first, second = run_threads(waits, 2, 60.0, seconds, 0.3, name=name)
    assert (first.error, second.error) == ("", "")
    assert first.value > 0.1, "it has waited for the other"


@pytest.mark.parametrize("seconds", [1e6, 1e6 - 0.0005, 30.0])
def test_long_waits_are_waited(seconds: float) -> None:
    first, second = run_threads(waits, 2, seconds, 0.0, 0.3, name=f"long {seconds}")
    assert (first.error, second.error) == ("", "")
    assert first.value > 0.1


@pytest.mark.parametrize("seconds", [0.001, 0.2])
def test_short_waits_end(seconds: float) -> None:
    begin = time.monotonic()
    first, _ = run_threads(waits, 2, seconds, 0.0, 3.0, name=f"short {seconds}")
    assert "nothing came for" in first.error, first
    assert time.monotonic() - begin < 60


def test_what_is_refused_is_named_with_the_range() -> None:
    def refuse(rank: int, group: str) -> str:
        with pytest.raises(ValueError) as error:
            torch.ops.dhp.configure_group(group, 2e6)
        return str(error.value).splitlines()[0]

    (only,) = run_threads(refuse, 1, name="named")
    assert only.value == "configure_group: timeout_s: found 2e+06, expected seconds from 0.001 to 1,000,000"
