"""Calls of ring_attention by groups of every kind, and attention on one process in plain fp64 algebra to hold them
against: output and all gradients."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field

import torch

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


def run_case(case: Case, rank: int, group: str, device: str) -> float:
    """This rank's part; the worst error of output and gradients, relative to the largest entry of the whole tensor.
    In a sequence of one token, or where the softmax is nearly one-hot, the gradients of q and k are (nearly) zero
    because terms of about 1 cancel: rounding is relative to those, hence the least size."""
    smallest = 1.0 if max(case.seq_tokens) == 1 or case.dtype != torch.float64 else 1e-2
    mine = local_rows(case, case.ranks.index(rank))
    q, k, v, dout = (t[mine].to(case.dtype).to(device) for t in case.tensors())
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = torch.ops.dhp.ring_attention(
        *leaves, case.seq_tokens, case.ranks, group, case.scale, case.causal, case.exchange, case.nodes
    )
    assert out.dtype == case.dtype
    assert out.shape == q.shape
    gradients = torch.autograd.grad(out, leaves, dout)
    worst = 0.0
    for found, expected in zip([out.detach(), *gradients], reference(case), strict=True):
        error = (found.cpu().double() - expected[mine]).abs().max() / expected.abs().max().clamp_min(smallest)
        worst = max(worst, float(error.nan_to_num(math.inf)))  # max() would pass over NaN
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


def run_list(rank: int, group: str, cases: list[Case], device: str = "cpu") -> list[tuple[int, float]]:
    """The cases that this rank is part of, in order, with their errors."""
    return [(i, run_case(case, rank, group, device)) for i, case in enumerate(cases) if rank in case.ranks]


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
    """Members of a node side by side and apart, unequal numbers of them, and one on each node, of `size` ranks."""
    rng = random.Random(seed)
    cases = []
    for members in ([3, 1], [1, 3], [4, 2, 1], [1, 2, 4], [3, 3], [6, 1], [1] * 5):
        nodes = [node for node, count in enumerate(members) for _ in range(count)]
        if len(nodes) > size:
            continue
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
