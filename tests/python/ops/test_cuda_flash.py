"""The CUDA flash kernel without a GPU: its calls against the contract of torch's FlashAttention, which plain algebra
stands in for here; shapes by torch's own rules for them. On a GPU, tests/cpp/torch/ring_attention_test.cpp runs it."""

from __future__ import annotations

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


def check_inputs(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """What torch's flash_api.cpp checks of a dense call, and what its kernel takes for granted."""
    assert q.dtype in HALF
    assert k.dtype == v.dtype == q.dtype
    assert q.dim() == 4
    assert q.shape[0] == k.shape[0] == 1
    assert k.shape == v.shape
    assert q.shape[2] % k.shape[2] == 0
    assert q.shape[3] == k.shape[3]
    assert q.shape[3] % 8 == 0
    assert q.shape[3] <= 256
    assert min(q.shape[1], k.shape[1]) > 0
    for tensor in (q, k, v):
        assert tensor.stride(-1) == 1
        assert all(stride % 8 == 0 for stride in tensor.stride()[1:-1]), "loads of 16 bytes"
        assert tensor.data_ptr() % 16 == 0


def scores_of(q: torch.Tensor, k: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    """[H, Tq, Tk], fp64"""
    k = k[0].double().repeat_interleave(q.shape[2] // k.shape[2], 1)
    scores = torch.einsum("qhd,khd->hqk", q[0].double(), k) * scale
    if causal:
        assert q.shape[1] == k.shape[0], "the corner that a causal mask starts from must not matter"
        scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), -math.inf)
    return scores


def forward(q, k, v, cum_q, cum_k, max_q, max_k, dropout, causal, debug, *, scale=None):  # type: ignore[no-untyped-def]
    check_inputs(q, k, v)
    assert (cum_q, cum_k, dropout, debug) == (None, None, 0.0, False)
    assert (max_q, max_k) == (q.shape[1], k.shape[1])
    scores = scores_of(q, k, causal, scale)
    lse = scores.logsumexp(-1)
    values_of = v[0].double().repeat_interleave(q.shape[2] // v.shape[2], 1)
    out = torch.empty_like(q)
    out[0] = torch.einsum("hqk,khd->qhd", (scores - lse[..., None]).exp(), values_of).to(q.dtype)
    nothing = torch.empty(0)
    return out, lse.float()[None].contiguous(), nothing, nothing, nothing


def backward(  # type: ignore[no-untyped-def]
    dout, q, k, v, out, lse, cum_q, cum_k, max_q, max_k, dropout, causal, rng_state, unused, *, scale=None
):
    check_inputs(q, k, v)
    assert dout.dtype == out.dtype == q.dtype
    assert dout.shape == out.shape == q.shape
    assert (cum_q, cum_k, dropout, rng_state, unused) == (None, None, 0.0, None, None)
    assert (max_q, max_k) == (q.shape[1], k.shape[1])
    assert lse.dtype == torch.float32
    assert lse.shape == (1, q.shape[2], q.shape[1])
    assert lse.is_contiguous(), "its strides are not looked at"
    group = q.shape[2] // k.shape[2]
    p = (scores_of(q, k, causal, scale) - lse[0].double()[..., None]).exp()
    d, o = dout[0].double(), out[0].double()
    dp = torch.einsum("qhd,khd->hqk", d, v[0].double().repeat_interleave(group, 1))
    ds = p * (dp - (d * o).sum(-1).T[..., None]) * scale
    dq = torch.einsum("hqk,khd->qhd", ds, k[0].double().repeat_interleave(group, 1))
    dk, dv = torch.einsum("hqk,qhd->khd", ds, q[0].double()), torch.einsum("hqk,qhd->khd", p, d)
    heads = [(t.shape[0], t.shape[1] // group, group, t.shape[2]) for t in (dk, dv)]
    dk, dv = (t.reshape(shape).sum(2) for t, shape in zip((dk, dv), heads, strict=True))
    return tuple(t.to(q.dtype)[None] for t in (dq, dk, dv))


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
