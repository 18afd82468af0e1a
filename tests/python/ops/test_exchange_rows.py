"""exchange_rows against a gather of all rows: result and gradient."""

from __future__ import annotations

import random

import pytest
import torch

from ranks import World, run_processes, run_threads, values
from row_cases import Case, draw_cases, run_list

WORLD = 5


def gloo_main(world: World, cases: list[Case]) -> int:
    return run_list(world.rank, world.new_group(), cases)


@pytest.mark.parametrize("carrier", ["threads", "gloo"])
def test_against_a_gather(carrier: str) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    cases = draw_cases(seed, WORLD, 60)
    if carrier == "gloo":
        ran = values(run_processes(gloo_main, WORLD, cases))
    else:
        ran = values(run_threads(run_list, WORLD, cases))
    assert ran == [sum(rank in case.ranks for case in cases) for rank in range(WORLD)]


def test_a_group_of_one_needs_no_process_group() -> None:
    rows = torch.randn(5, 3, requires_grad=True)
    result = torch.ops.dhp.exchange_rows(rows, [5], [5], [3], "")
    assert torch.equal(result, rows)
    assert result.data_ptr() != rows.data_ptr()
    result.sum().backward()
    assert torch.equal(rows.grad, torch.ones(5, 3))


def test_a_member_without_rows_stays_connected() -> None:
    """Rank 1 neither sends nor gets a row; its backward pass must still take part, or rank 0 would wait for ever."""

    def body(rank: int, group: str) -> None:
        counts = [2, 0] if rank == 0 else [0, 0]
        rows = torch.ones(sum(counts), 4, requires_grad=True)
        result = torch.ops.dhp.exchange_rows(rows, counts, counts, [0, 1], group)
        (result.sum() * 3).backward()
        assert torch.equal(rows.grad, torch.full((sum(counts), 4), 3.0))

    values(run_threads(body, 2))


def test_rows_may_be_strided_and_gradients_expanded() -> None:
    def body(rank: int, group: str) -> None:
        rows = torch.randn(3, 4, dtype=torch.float64).t().requires_grad_()  # [4, 3], columns first
        result = torch.ops.dhp.exchange_rows(rows, [2, 2], [2, 2], [1, 0], group)
        own = 1 - rank  # its position
        assert torch.equal(result[2 * own : 2 * own + 2], rows[2 * own : 2 * own + 2])
        result.sum().backward()
        assert torch.equal(rows.grad, torch.ones(4, 3, dtype=torch.float64))

    values(run_threads(body, 2))


def test_integers_travel_too() -> None:
    def body(rank: int, group: str) -> None:
        rows = torch.full((2, 3), rank)
        result = torch.ops.dhp.exchange_rows(rows, [1, 1], [1, 1], [0, 1], group)
        assert result[:, 0].tolist() == [0, 1]

    values(run_threads(body, 2))
