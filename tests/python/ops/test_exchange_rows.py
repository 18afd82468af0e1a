"""exchange_rows against a gather of all rows: result and gradient."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch

from ranks import World, run_processes, run_threads, values

WORLD = 5
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@dataclass
class Case:
    """counts[i][j]: rows from position i to position j."""

    ranks: list[int]
    counts: list[list[int]]
    columns: int
    dtype: torch.dtype

    def rows(self, position: int) -> torch.Tensor:
        """Small whole numbers, exact in every dtype, different for every position, row and column."""
        total = sum(self.counts[position])
        numbers = torch.arange(total * self.columns).view(total, self.columns)
        return ((numbers * 7 + position * 13) % 251).to(self.dtype)

    def to(self, position: int) -> torch.Tensor:
        """What a position gets, cut from the rows of all."""
        parts = []
        for source in range(len(self.ranks)):
            begin = sum(self.counts[source][:position])
            parts.append(self.rows(source)[begin : begin + self.counts[source][position]])
        return torch.cat(parts)


def draw_cases(seed: int, size: int, count: int) -> list[Case]:
    rng = random.Random(seed)
    cases = []
    for i in range(count):
        degree = 1 + i % size
        counts = [[rng.choice([0, 0, 1, 2, 9, 40]) for _ in range(degree)] for _ in range(degree)]
        if i % 3 == 0:  # one sends nothing, one gets nothing
            counts[rng.randrange(degree)] = [0] * degree
            silent = rng.randrange(degree)
            for row in counts:
                row[silent] = 0
        if i % 11 == 10:
            counts = [[0] * degree for _ in range(degree)]
        cases.append(Case(rng.sample(range(size), degree), counts, rng.choice([1, 3, 64]), rng.choice(DTYPES)))
    return cases


def run_case(case: Case, rank: int, group: str) -> None:
    position = case.ranks.index(rank)
    send_counts = case.counts[position]
    recv_counts = [row[position] for row in case.counts]
    rows = case.rows(position).requires_grad_()
    result = torch.ops.dhp.exchange_rows(rows, send_counts, recv_counts, case.ranks, group)
    assert result.dtype == case.dtype
    assert result.shape == (sum(recv_counts), case.columns)
    assert result.requires_grad
    assert torch.equal(result.detach(), case.to(position)), case

    # The gradient that each receiver gives is the rows it would send in a case with the counts turned around.
    turned = Case(case.ranks, [list(row) for row in zip(*case.counts, strict=True)], case.columns, case.dtype)
    result.backward(turned.rows(position))
    assert torch.equal(rows.grad, turned.to(position)), case


def run_list(rank: int, group: str, cases: list[Case]) -> int:
    mine = [case for case in cases if rank in case.ranks]
    for case in mine:
        run_case(case, rank, group)
    return len(mine)


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
