"""Calls of exchange_rows by groups of every kind, against a gather of all rows: result and gradient."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

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


def run_case(case: Case, rank: int, group: str, device: str) -> None:
    position = case.ranks.index(rank)
    send_counts = case.counts[position]
    recv_counts = [row[position] for row in case.counts]
    rows = case.rows(position).to(device).requires_grad_()
    result = torch.ops.dhp.exchange_rows(rows, send_counts, recv_counts, case.ranks, group)
    assert result.dtype == case.dtype
    assert result.shape == (sum(recv_counts), case.columns)
    assert result.requires_grad
    assert torch.equal(result.detach().cpu(), case.to(position)), case

    # The gradient that each receiver gives is the rows it would send in a case with the counts turned around.
    turned = Case(case.ranks, [list(row) for row in zip(*case.counts, strict=True)], case.columns, case.dtype)
    result.backward(turned.rows(position).to(device))
    assert torch.equal(rows.grad.cpu(), turned.to(position)), case


def run_list(rank: int, group: str, cases: list[Case], device: str = "cpu") -> int:
    mine = [case for case in cases if rank in case.ranks]
    for case in mine:
        run_case(case, rank, group, device)
    return len(mine)
