"""ring_attention with each exchange against attention on one process, written in plain fp64 algebra: output and all
gradients."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field

import pytest
import torch

from ranks import World, run_processes, run_threads, values

WORLD = 7
EXCHANGES = ["ring", "direct", "hierarchical"]
# For the 16-bit types: 16 and 8 units of rounding, since the kernel also rounds the softmax and every block.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 6e-2, torch.float16: 8e-3}


@dataclass
class Case:
    """One call of one group; every rank draws the same from the same seed."""

    seed: int
    ranks: list[int]
    seq_tokens: list[int]
    q_heads: int
    kv_heads: int
    head_size: int
    scale: float
    causal: bool
    dtype: torch.dtype
    exchange: str = "ring"
    nodes: list[int] = field(default_factory=list)  # of `ranks`

    def tensors(self) -> list[torch.Tensor]:
        """q, k, v and the gradient of the output, for all tokens, in fp64, with values that `dtype` has."""
        generator = torch.Generator().manual_seed(self.seed)
        tokens = sum(self.seq_tokens)
        heads = [self.q_heads, self.kv_heads, self.kv_heads, self.q_heads]
        return [
            torch.randn(tokens, h, self.head_size, generator=generator, dtype=torch.float64).to(self.dtype).double()
            for h in heads
        ]


def draw_case(rng: random.Random, ranks: list[int], dtype: torch.dtype, longest: int = 9) -> Case:
    degree = len(ranks)
    unit = 2 * degree if degree > 1 else 1
    kv_heads = rng.choice([1, 1, 2, 3])
    return Case(
        seed=rng.randrange(2**31),
        ranks=ranks,
        seq_tokens=[unit * rng.randint(1, longest) for _ in range(rng.randint(1, 5))],
        q_heads=kv_heads * rng.choice([1, 2, 4]),
        kv_heads=kv_heads,
        head_size=rng.choice([1, 4, 8, 15]),
        scale=rng.choice([0.1, 0.35, 1.0]),
        causal=rng.random() < 0.75,
        dtype=dtype,
        exchange=rng.choice(EXCHANGES),
        nodes=draw_nodes(rng, degree),
    )


def draw_nodes(rng: random.Random, degree: int) -> list[int]:
    """Any number of members on up to four nodes, in any order."""
    nodes = rng.randint(1, 4)
    return [rng.randrange(nodes) for _ in range(degree)]


def reference(case: Case) -> list[torch.Tensor]:
    """Output and gradients of q, k and v of all tokens."""
    q, k, v, dout = case.tensors()
    leaves = [t.requires_grad_() for t in (q, k, v)]
    outputs = []
    begin = 0
    for tokens in case.seq_tokens:
        end = begin + tokens
        group = case.q_heads // case.kv_heads
        keys = k[begin:end].repeat_interleave(group, dim=1)
        values_ = v[begin:end].repeat_interleave(group, dim=1)
        scores = torch.einsum("qhd,khd->hqk", q[begin:end], keys) * case.scale
        if case.causal:
            scores = scores.masked_fill(torch.ones(tokens, tokens, dtype=torch.bool).triu(1), -math.inf)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values_))
        begin = end
    out = torch.cat(outputs)
    return [out.detach(), *torch.autograd.grad(out, leaves, dout)]


def local_rows(case: Case, position: int) -> torch.Tensor:
    """Which global rows a position holds: of each sequence, cut into 2d chunks, chunk r and chunk 2d-1-r."""
    degree = len(case.ranks)
    rows = []
    begin = 0
    for tokens in case.seq_tokens:
        indices = torch.arange(begin, begin + tokens)
        if degree > 1:
            chunks = indices.chunk(2 * degree)
            rows += [chunks[position], chunks[2 * degree - 1 - position]]
        else:
            rows.append(indices)
        begin += tokens
    return torch.cat(rows)


def run_case(case: Case, rank: int, group: str) -> float:
    """This rank's part; the worst error of output and gradients, relative to the largest entry of the whole tensor.
    In a sequence of one token, or where the softmax is nearly one-hot, the gradients of q and k are (nearly) zero
    because terms of about 1 cancel: rounding is relative to those, hence the least size."""
    smallest = 1.0 if max(case.seq_tokens) == 1 or case.dtype != torch.float64 else 1e-2
    mine = local_rows(case, case.ranks.index(rank))
    q, k, v, dout = (t[mine].to(case.dtype) for t in case.tensors())
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = torch.ops.dhp.ring_attention(
        *leaves, case.seq_tokens, case.ranks, group, case.scale, case.causal, case.exchange, case.nodes
    )
    assert out.dtype == case.dtype
    assert out.shape == q.shape
    gradients = torch.autograd.grad(out, leaves, dout)
    worst = 0.0
    for found, expected in zip([out.detach(), *gradients], reference(case), strict=True):
        error = (found.double() - expected[mine]).abs().max() / expected.abs().max().clamp_min(smallest)
        worst = max(worst, float(error))
    return worst


def split_world(rng: random.Random, size: int) -> list[list[int]]:
    """Disjoint groups of any size, of any ranks in any order, that together are the world."""
    order = list(range(size))
    rng.shuffle(order)
    groups = []
    while order:
        degree = rng.randint(1, len(order))
        groups.append(order[:degree])
        order = order[degree:]
    return groups


def all_dtypes(rng: random.Random) -> torch.dtype:
    return rng.choice([torch.float64] * 4 + [torch.float32] * 2 + [torch.bfloat16, torch.float16])


def run_list(rank: int, group: str, cases: list[Case]) -> list[tuple[int, float]]:
    """The cases that this rank is part of, in order, with their errors."""
    return [(i, run_case(case, rank, group)) for i, case in enumerate(cases) if rank in case.ranks]


def degrees_in_order(seed: int, size: int) -> list[Case]:
    """Every exchange and degree with MHA, GQA and MQA, causal and not, and 1 to 5 sequences."""
    rng = random.Random(seed)
    cases = []
    for exchange, degree in itertools.product(EXCHANGES, range(1, size + 1)):
        for kv_heads, q_heads in ((3, 3), (2, 4), (1, 4)):
            ranks = rng.sample(range(size), degree)
            case = draw_case(rng, ranks, torch.float64)
            case.kv_heads, case.q_heads, case.causal = kv_heads, q_heads, kv_heads != 2 or rng.random() < 0.5
            case.exchange = exchange
            cases.append(case)
    return cases


def uneven_nodes(seed: int, size: int) -> list[Case]:
    """Members of a node side by side and apart, unequal numbers of them, and one on each node."""
    rng = random.Random(seed)
    cases = []
    for members in ([3, 1], [1, 3], [4, 2, 1], [1, 2, 4], [3, 3], [6, 1], [1] * 5):
        nodes = [node for node, count in enumerate(members) for _ in range(count)]
        for order in (nodes, nodes[::-1], rng.sample(nodes, len(nodes))):
            case = draw_case(rng, rng.sample(range(size), len(nodes)), torch.float64)
            case.exchange, case.nodes = "hierarchical", order
            cases.append(case)
    return cases


def disjoint_at_once(seed: int, size: int, rounds: int) -> list[Case]:
    """Rounds of disjoint groups: nothing holds them together, so fast groups run ahead."""
    rng = random.Random(seed)
    return [draw_case(rng, ranks, all_dtypes(rng)) for _ in range(rounds) for ranks in split_world(rng, size)]


def overlapping(seed: int, size: int, count: int) -> list[Case]:
    """A free list of tasks on scattered groups that overlap at will; every rank walks it in the same order."""
    rng = random.Random(seed)
    return [
        draw_case(rng, rng.sample(range(size), rng.choice([1, 2, 2, 3, 4, size])), all_dtypes(rng), longest=3)
        for _ in range(count)
    ]


def check(cases: list[Case], per_rank: list[list[tuple[int, float]]]) -> None:
    for rank, errors in enumerate(per_rank):
        assert [i for i, _ in errors] == [i for i, case in enumerate(cases) if rank in case.ranks]
        for i, error in errors:
            assert error <= TOLERANCE[cases[i].dtype], f"rank {rank}, case {i}, error {error}: {cases[i]}"


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
