"""The CUDA flash kernel without a GPU: its calls against the contract of torch's FlashAttention, which plain algebra
stands in for here; shapes by torch's own rules for them. On a GPU, tests/cpp/torch/ring_attention_test.cpp runs it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._meta_registrations  # shapes of results, on the device "meta"

from dhp.run import ops
from ranks import run_threads, values

ops.load()

HALF = (torch.bfloat16, torch.float16)
WORST = {torch.bfloat16: 6e-2, torch.float16: 8e-3}


def check_inputs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packed: bool) -> None:
    """What torch's flash_api.cpp checks of a dense or a packed call, and what its kernel takes for granted."""
    assert q.dtype in HALF
    assert k.dtype == v.dtype == q.dtype
    assert q.dim() == k.dim() == (3 if packed else 4)
    if not packed:
        assert q.shape[0] == k.shape[0] == 1
    assert k.shape == v.shape
    assert q.shape[-2] % k.shape[-2] == 0
    assert q.shape[-1] == k.shape[-1]
    assert q.shape[-1] % 8 == 0
    assert q.shape[-1] <= 256
    assert min(q.shape[-3], k.shape[-3]) > 0
    for tensor in (q, k, v):
        assert tensor.stride(-1) == 1
        assert all(stride % 8 == 0 for stride in tensor.stride()[-3:-1]), "loads of 16 bytes"
        assert tensor.data_ptr() % 16 == 0


def pieces(q: torch.Tensor, k: torch.Tensor, cum_q: Any, cum_k: Any, max_q: int, max_k: int) -> list[list[slice]]:
    """Rows of queries and of keys that meet, by sequence."""
    if cum_q is None:
        assert cum_k is None
        assert (max_q, max_k) == (q.shape[1], k.shape[1])
        return [[slice(max_q), slice(max_k)]]
    pairs = []
    for cum, rows, longest in ((cum_q, q.shape[0], max_q), (cum_k, k.shape[0], max_k)):
        assert cum.dtype == torch.int32
        assert cum.is_contiguous()
        assert (int(cum[0]), int(cum[-1])) == (0, rows)
        assert cum.diff().min() > 0, "a row without keys has an infinite sum"
        assert cum.diff().max() == longest
        pairs.append([slice(a, b) for a, b in itertools.pairwise(cum.tolist())])
    assert len(pairs[0]) == len(pairs[1])
    return [list(pair) for pair in zip(*pairs, strict=True)]


def scores_of(q: torch.Tensor, k: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    """Of [Tq, H, D] and [Tk, Hkv, D]: [H, Tq, Tk], fp64"""
    k = k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * scale
    if causal:
        assert q.shape[0] == k.shape[0], "the corner that a causal mask starts from must not matter"
        scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), -math.inf)
    return scores


def forward(q, k, v, cum_q, cum_k, max_q, max_k, dropout, causal, debug, *, scale=None):  # type: ignore[no-untyped-def]
    check_inputs(q, k, v, packed=cum_q is not None)
    assert (dropout, debug) == (0.0, False)
    out = torch.empty_like(q)
    lse = torch.empty(*q.shape[:-3], q.shape[-2], q.shape[-3])
    rows = lambda t: t if cum_q is not None else t[0]  # noqa: E731
    for own, keys in pieces(q, k, cum_q, cum_k, max_q, max_k):
        scores = scores_of(rows(q)[own], rows(k)[keys], causal, scale)
        sums = scores.logsumexp(-1)
        values_of = rows(v)[keys].double().repeat_interleave(q.shape[-2] // v.shape[-2], 1)
        rows(out)[own] = torch.einsum("hqk,khd->qhd", (scores - sums[..., None]).exp(), values_of).to(q.dtype)
        rows(lse)[:, own] = sums.float()
    nothing = torch.empty(0)
    return out, lse, nothing, nothing, nothing


def backward(  # type: ignore[no-untyped-def]
    dout, q, k, v, out, lse, cum_q, cum_k, max_q, max_k, dropout, causal, rng_state, unused, *, scale=None
):
    check_inputs(q, k, v, packed=cum_q is not None)
    assert dout.dtype == out.dtype == q.dtype
    assert dout.shape == out.shape == q.shape
    assert (dropout, rng_state, unused) == (0.0, None, None)
    assert lse.dtype == torch.float32
    assert lse.shape == (*q.shape[:-3], q.shape[-2], q.shape[-3])
    assert lse.is_contiguous(), "its strides are not looked at"
    rows = lambda t: t if cum_q is not None else t[0]  # noqa: E731
    gradients = [torch.empty_like(t) for t in (q, k, v)]
    for own, keys in pieces(q, k, cum_q, cum_k, max_q, max_k):
        parts = backward_of(*(rows(t)[own] for t in (dout, q, out)), *(rows(t)[keys] for t in (k, v)),
                            rows(lse)[:, own], causal, scale)  # fmt: skip
        for whole, at, part in zip(gradients, (own, keys, keys), parts, strict=True):
            rows(whole)[at] = part.to(q.dtype)
    return tuple(gradients)


def backward_of(dout, q, out, k, v, lse, causal, scale):  # type: ignore[no-untyped-def]
    group = q.shape[1] // k.shape[1]
    p = (scores_of(q, k, causal, scale) - lse.double()[..., None]).exp()
    d, o = dout.double(), out.double()
    dp = torch.einsum("qhd,khd->hqk", d, v.double().repeat_interleave(group, 1))
    ds = p * (dp - (d * o).sum(-1).T[..., None]) * scale
    dq = torch.einsum("hqk,khd->qhd", ds, k.double().repeat_interleave(group, 1))
    dk, dv = torch.einsum("hqk,qhd->khd", ds, q.double()), torch.einsum("hqk,qhd->khd", p, d)
    heads = [(t.shape[0], t.shape[1] // group, group, t.shape[2]) for t in (dk, dv)]
    return dq, *(t.reshape(shape).sum(2) for t, shape in zip((dk, dv), heads, strict=True))


@pytest.fixture
def cuda_flash() -> Iterator[None]:
    """The kernel, over plain algebra on the CPU: torch has no such function for CPUs, so none is replaced."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    torch.ops.dhp.use_kernel("cuda_flash")
    yield
    torch.ops.dhp.use_kernel("auto")
    library._destroy()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("degree", "exchange"), [(1, "ring"), (2, "direct"), (3, "ring"), (4, "hierarchical")])
def test_its_calls_give_attention(cuda_flash: None, dtype: torch.dtype, degree: int, exchange: str) -> None:
    """Packed sequences over a group, grouped heads, causal, its own scale: against attention of whole sequences."""
    lengths = [2 * degree * n for n in (1, 7, 3)]
    generator = torch.Generator().manual_seed(degree)
    whole = [torch.randn(sum(lengths), heads, 16, generator=generator).to(dtype) for heads in (4, 2, 2, 4)]
    leaves = [t.double().requires_grad_() for t in whole[:3]]
    outs = []
    for q, k, v in zip(*(t.split(lengths) for t in leaves), strict=True):
        k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        mask = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
        scores = (torch.einsum("qhd,khd->hqk", q, k) * 0.35).masked_fill(mask, -math.inf)
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    expected = [torch.cat(outs).detach(), *torch.autograd.grad(torch.cat(outs), leaves, whole[3].double())]

    def body(rank: int, group: str) -> None:
        chunks = [c for part in torch.arange(sum(lengths)).split(lengths) for c in zigzag(part, degree, rank)]
        mine = torch.cat(chunks)
        own = [t[mine].requires_grad_() for t in whole[:3]]
        out = torch.ops.dhp.ring_attention(
            *own, lengths, list(range(degree)), group, 0.35, True, exchange, [r // 2 for r in range(degree)]
        )
        found = [out.detach(), *torch.autograd.grad(out, own, whole[3][mine])]
        for got, right in zip(found, expected, strict=True):
            assert got.dtype == dtype
            assert (got.double() - right[mine]).abs().max() <= WORST[dtype] * right.abs().max()

    values(run_threads(body, degree))


def zigzag(tokens: torch.Tensor, degree: int, rank: int) -> list[torch.Tensor]:
    if degree == 1:
        return [tokens]
    chunks = tokens.chunk(2 * degree)
    return [chunks[rank], chunks[2 * degree - 1 - rank]]


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_shapes_by_torchs_own_rules(degree: int) -> None:
    """On the device "meta", where torch's operators have shapes and no numbers; the group's others are not there."""
    lengths = [2 * degree, 14 * degree]
    torch.ops.dhp.create_mirror_group("shapes", degree, degree - 1, "meta")
    torch.ops.dhp.use_kernel("cuda_flash")
    try:
        q, k, v = (
            torch.empty(16, heads, 128, dtype=torch.bfloat16, device="meta", requires_grad=True) for heads in (8, 2, 2)
        )
        out = torch.ops.dhp.ring_attention(q, k, v, lengths, list(range(degree)), "shapes", 0.1)
        assert (out.shape, out.dtype) == (q.shape, q.dtype)
        for leaf, gradient in zip((q, k, v), torch.autograd.grad(out, (q, k, v), torch.empty_like(out)), strict=True):
            assert (gradient.shape, gradient.dtype) == (leaf.shape, leaf.dtype)
    finally:
        torch.ops.dhp.use_kernel("auto")
        torch.ops.dhp.release_group("shapes")


def test_which_kernel_attends() -> None:
    """On the CPU always its own; anywhere else flash attention on CUDA alone, of 16 bits and head sizes that it has."""

    def kernel(device: str, dtype: torch.dtype, size: int) -> Any:
        return torch.ops.dhp.kernel_of(torch.empty(1, 2, size, dtype=dtype, device=device))

    assert kernel("cpu", torch.bfloat16, 128) == kernel("cpu", torch.float64, 15) == "cpu_flash"
    assert kernel("meta", torch.bfloat16, 128) == "reference"
    if torch.cuda.is_available():
        assert kernel("cuda", torch.bfloat16, 128) == kernel("cuda", torch.float16, 256) == "cuda_flash"
        for dtype, size in ((torch.float32, 128), (torch.bfloat16, 12), (torch.bfloat16, 264)):
            assert kernel("cuda", dtype, size) == "reference"
