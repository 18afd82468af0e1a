"""ring_attention with each exchange against attention on one process, written in plain fp64 algebra: output and all
gradients."""

from __future__ import annotations

import math
import random

import pytest
import torch

from ranks import World, run_processes, run_threads, values
from ring_cases import EXCHANGES, Case, check, degrees_in_order, disjoint_at_once, overlapping, run_list, uneven_nodes

WORLD = 7


def gloo_main(world: World, lists: list[list[Case]]) -> list[list[tuple[int, float]]]:
    group = world.new_group()
    return [run_list(world.rank, group, cases) for cases in lists]


def test_over_gloo() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    lists = [
        degrees_in_order(seed, WORLD),
        uneven_nodes(seed + 3, WORLD),
        disjoint_at_once(seed + 1, WORLD, 12),
        overlapping(seed + 2, WORLD, 150),
    ]
    per_rank = values(run_processes(gloo_main, WORLD, lists))
    for i, cases in enumerate(lists):
        check(cases, [results[i] for results in per_rank])


def nodes_main(world: World, cases: list[Case]) -> tuple[list[tuple[int, float]], int, str]:
    group, far = world.new_group(), world.new_group()
    torch.ops.dhp.set_far_group(group, far)
    mine = [case for case in cases if world.rank in case.ranks]
    fresh = sum(torch.ops.dhp.connect(case.ranks, group, case.exchange, case.nodes) for case in mine)
    some = torch.distributed.new_group([0, 1])
    refused = ""
    if world.rank < 2:
        try:
            torch.ops.dhp.set_far_group(group, some.group_name)
        except ValueError as error:
            refused = str(error)
    return run_list(world.rank, group, cases), fresh, refused


def test_nodes_over_gloo() -> None:
    """On CPUs one group carries all, given a second one or not, and its ranks are connected from the start."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    cases = uneven_nodes(seed, 4)
    found = values(run_processes(nodes_main, 4, cases))
    check(cases, [errors for errors, *_ in found])
    assert [fresh for _, fresh, _ in found] == [0] * 4
    assert all("far transfers has 2 ranks, expected 4" in refused for *_, refused in found[:2])


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_over_threads(kernel: str) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    torch.ops.dhp.use_kernel(kernel)
    try:
        cases = degrees_in_order(seed, WORLD) + uneven_nodes(seed + 3, WORLD)
        cases += disjoint_at_once(seed + 1, WORLD, 4) + overlapping(seed + 2, WORLD, 20)
        check(cases, values(run_threads(run_list, WORLD, cases)))
    finally:
        torch.ops.dhp.use_kernel("auto")


@pytest.mark.parametrize("exchange", ["ring", "direct"])
def test_longer_sequences_than_the_tiles_of_the_kernel(exchange: str) -> None:
    """The CPU kernel works in tiles of up to 256 by 512 rows; 800 rows a rank give whole and broken tiles."""
    case = Case(
        seed=random.randrange(10**6), ranks=[1, 0], seq_tokens=[1600, 28, 604], q_heads=2, kv_heads=1,
        head_size=16, scale=0.25, causal=True, dtype=torch.float64, exchange=exchange,
    )  # fmt: skip
    print(case)
    check([case], values(run_threads(run_list, 2, [case])))
    case.dtype = torch.float32
    check([case], values(run_threads(run_list, 2, [case])))


def test_rows_may_be_strided_and_gradients_expanded() -> None:
    """Heads-first tensors, a last stride that is not 1 and a gradient without memory of its own give the same as
    contiguous ones: the CPU kernel would read the last two wrongly without a word."""

    def body(rank: int, group: str) -> None:
        def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> list[torch.Tensor]:
            leaves = [t.detach().requires_grad_() for t in (q, k, v)]
            out = torch.ops.dhp.ring_attention(*leaves, [24, 12], [1, 0, 2], group, 0.5)
            return [out.detach(), *torch.autograd.grad(out.sum(), leaves)]  # sum() expands one number

        generator = torch.Generator().manual_seed(rank)
        plain = [torch.randn(12, heads, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)]
        heads_first = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in plain]
        size_first = [t.permute(2, 0, 1).contiguous().permute(1, 2, 0) for t in plain]
        part_of_more = [torch.cat([t, t + 1], dim=-1)[..., :8] for t in plain]
        assert size_first[0].stride(-1) != 1
        expected = call(*plain)
        for variant in (heads_first, size_first, part_of_more):
            for found, right in zip(call(*variant), expected, strict=True):
                torch.testing.assert_close(found, right, rtol=1e-13, atol=1e-13)

    values(run_threads(body, 3))


def test_the_scores_may_be_far_apart() -> None:
    """Rows whose blocks differ by hundreds in their log-sum-exp: nothing overflows when blocks are merged."""
    tokens, degree = 48, 4

    def body(rank: int, group: str) -> None:
        generator = torch.Generator().manual_seed(5)
        q, k, v = (torch.randn(tokens, 2, 8, generator=generator, dtype=torch.float64) for _ in range(3))
        k *= torch.linspace(-300, 300, tokens, dtype=torch.float64)[torch.randperm(tokens, generator=generator)].view(
            -1, 1, 1
        )
        scores = torch.einsum("qhd,khd->hqk", q, k).masked_fill(
            torch.ones(tokens, tokens, dtype=torch.bool).triu(1), -math.inf
        )
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
        chunks = torch.arange(tokens).chunk(2 * degree)
        mine = torch.cat([chunks[rank], chunks[2 * degree - 1 - rank]])
        for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
            leaves = [t[mine].to(dtype).requires_grad_() for t in (q, k, v)]
            out = torch.ops.dhp.ring_attention(*leaves, [tokens], list(range(degree)), group, 1.0)
            assert (out.double() - expected[mine]).abs().max() < tolerance
            out.sum().backward()
            assert all(torch.isfinite(t.grad).all() for t in leaves)

    values(run_threads(body, degree))


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_an_empty_batch_is_empty(exchange: str) -> None:
    def body(rank: int, group: str) -> None:
        leaves = [torch.empty(0, 2, 8, requires_grad=True) for _ in range(3)]
        out = torch.ops.dhp.ring_attention(*leaves, [], [0, 1], group, 1.0, True, exchange, [0, 1])
        assert out.shape == (0, 2, 8)
        out.sum().backward()
        assert all(t.grad.shape == (0, 2, 8) for t in leaves)

    values(run_threads(body, 2))


def test_gradients_only_where_they_are_wanted() -> None:
    def body(rank: int, group: str) -> None:
        q = torch.randn(4, 2, 8)
        with torch.no_grad():
            assert not torch.ops.dhp.ring_attention(q.requires_grad_(), q, q, [8], [0, 1], group, 1.0).requires_grad
        only_v = torch.randn(4, 2, 8, requires_grad=True)
        torch.ops.dhp.ring_attention(q.detach(), q.detach(), only_v, [8], [0, 1], group, 1.0).sum().backward()
        assert only_v.grad is not None

    values(run_threads(body, 2))
