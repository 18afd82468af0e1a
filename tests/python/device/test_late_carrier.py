"""The run-time on a device whose streams lag: the same results as on CPUs, whatever lags; and every planted fault of a
backend fails, so that a wait that is missing would be seen."""

from __future__ import annotations

import dataclasses
import os
import random
from typing import Any

import pytest
import torch

from drawn import skip_most_in_ci
from ranks import World, run_processes, values
from ring_cases import Case, check, degrees_in_order, disjoint_at_once, overlapping, run_list, uneven_nodes
from row_cases import Case as RowCase
from row_cases import draw_cases
from row_cases import run_list as run_rows

SIZE = 4
POLICIES = [("lazy", "eager"), ("eager", "lazy"), ("random", "random")]  # of compute, and of transfers
SERIAL = [("serial", "eager")]  # one queue for all streams, as a device may have


def for_flash(cases: list[Case]) -> list[Case]:
    """The same with what CUDA's flash attention takes."""
    return [dataclasses.replace(case, dtype=torch.bfloat16, head_size=8 * (1 + i % 3)) for i, case in enumerate(cases)]


def ring_main(world: World, policies: tuple[str, str], seed: int, lists: list[list[Case]], flash: list[Case]) -> Any:
    import late

    late.arrange(*policies, seed=seed + world.rank)
    group = world.new_group(backend=late.BACKEND)
    results = [run_list(world.rank, group, cases, "late") for cases in lists]
    torch.ops.dhp.use_kernel("cuda_flash")
    return [*results, run_list(world.rank, group, flash, "late")]


@pytest.mark.parametrize("policies", POLICIES + SERIAL, ids="-".join)
def test_ring_attention(policies: tuple[str, str]) -> None:
    skip_most_in_ci(keep=0.5)
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    share = float(os.environ.get("DHP_TEST_SHARE", 1))
    lists = [degrees_in_order(seed, SIZE), uneven_nodes(seed + 1, SIZE)]
    lists += [disjoint_at_once(seed + 2, SIZE, 4), overlapping(seed + 3, SIZE, int(60 * share))]
    flash = for_flash(degrees_in_order(seed + 4, SIZE))
    per_rank = values(run_processes(ring_main, SIZE, policies, seed, lists, flash))
    for i, cases in enumerate([*lists, flash]):
        check(cases, [results[i] for results in per_rank])


def rows_main(world: World, policies: tuple[str, str], cases: list[RowCase]) -> int:
    import late

    late.arrange(*policies, seed=world.rank)
    group = world.new_group(backend=late.BACKEND)
    # Headers and small collectives of members stay on CPUs, on the same group.
    return run_rows(world.rank, group, cases, "late") + run_rows(world.rank, group, cases[:5], "cpu")


@pytest.mark.parametrize("policies", POLICIES + SERIAL, ids="-".join)
def test_exchange_rows(policies: tuple[str, str]) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    cases = draw_cases(seed, SIZE, 30)
    ran = values(run_processes(rows_main, SIZE, policies, cases))
    counted = [*cases, *cases[:5]]
    assert ran == [sum(rank in case.ranks for case in counted) for rank in range(SIZE)]


def faulty_main(world: World, policies: tuple[str, str], fault: str, cases: list[Case]) -> tuple[float, str]:
    """The worst error, infinite where something is not finite; and the failure that the group knows of."""
    import late

    late.arrange(*policies, seed=world.rank)
    late.device.set_fault(fault)
    group = world.new_group(backend=late.BACKEND)
    torch.ops.dhp.configure_group(group, 3.0 if fault == "ungrouped" else 60.0)  # the others wait for nobody
    worst = 0.0
    try:
        for _ in range(2):  # the second time in memory that has been used
            for _, error in run_list(world.rank, group, cases, "late"):
                worst = max(worst, error)
    except RuntimeError:
        worst = float("inf")
    return worst, torch.ops.dhp.known_failure(group)


# Where a fault cannot show: the side that should have waited lags itself.
HIDDEN = {("start", "eager", "lazy")}


@pytest.mark.parametrize("policies", POLICIES, ids="-".join)
@pytest.mark.parametrize("fault", ["none", "wait", "start", "reuse", "ungrouped"])
def test_a_planted_fault_shows(fault: str, policies: tuple[str, str]) -> None:
    """lateccl.h says what each is. Without one, all is as on CPUs."""
    skip_most_in_ci(keep=0.5)
    cases = [case for case in degrees_in_order(11, 3) if len(case.ranks) == 3][::2]
    errors, failures = zip(*values(run_processes(faulty_main, 3, policies, fault, cases)), strict=True)
    if fault == "none":
        assert max(errors) < 1e-12
    elif (fault, *policies) not in HIDDEN:
        assert max(errors) > 1e-3, "the fault does not show"
    assert any("nothing came for 3 s" in failure for failure in failures) == (fault == "ungrouped"), failures
