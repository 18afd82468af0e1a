"""Ascend's npu_fusion_attention and its gradient, made up: the schemas of torch_npu, the checks that its documentation
names, and plain algebra, on any device.

Documentation: torch_npu-npu_fusion_attention.md and op_plugin_functions.yaml of github.com/Ascend/op-plugin. Packed
(TND), the numbers of the softmax are [T, N, 8] by name and, in memory, each sequence by itself with heads first; each
number stands eight times.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch

MASKS = "Tensor? pse=None, Tensor? padding_mask=None, Tensor? atten_mask=None"
LENGTHS = "int[]? prefix=None, int[]? actual_seq_qlen=None, int[]? actual_seq_kvlen=None, int sparse_mode=0"
TOKENS = "int pre_tockens=2147483647, int next_tockens=2147483647, int inner_precise=0"
FORWARD = (
    "npu_fusion_attention(Tensor query, Tensor key, Tensor value, int head_num, str input_layout, "
    f"{MASKS}, float scale=1., float keep_prob=1., {TOKENS}, {LENGTHS}, bool gen_mask_parallel=True, "
    "bool sync=False{more}) -> (Tensor, Tensor, Tensor, Tensor, int, int, int)"
)
BACKWARD = (
    "npu_fusion_attention_grad(Tensor query, Tensor key, Tensor value, Tensor dy, int head_num, str input_layout, *, "
    f"{MASKS}, Tensor? softmax_max=None, Tensor? softmax_sum=None, Tensor? softmax_in=None, Tensor? attention_in=None, "
    f"float scale_value=1., float keep_prob=1., {TOKENS}, int seed=0, int offset=0, int numels=0, {LENGTHS}, "
    "bool gen_mask_parallel=True, bool sync=False{more}) -> (Tensor, Tensor, Tensor, Tensor{more_results})"
)
# Releases add arguments and results at the end.
RELEASES: dict[str, dict[str, str]] = {
    "2.1": {"more": "", "more_results": ""},
    "7.2": {"more": ', str softmax_layout="", Tensor? sink=None', "more_results": ", Tensor"},
}
MOST_SEQUENCES = 1024
SIDE = 2048


def register(release: str) -> torch.library.Library:
    """The operators, until the library is destroyed."""
    library = torch.library.Library("npu", "DEF")
    library.define(FORWARD.format(**RELEASES[release]))
    library.define(BACKWARD.format(**RELEASES[release]))
    library.impl("npu_fusion_attention", _forward, "CompositeExplicitAutograd")
    library.impl("npu_fusion_attention_grad", _backward, "CompositeExplicitAutograd")
    return library


def _check(q: Any, k: Any, v: Any, head_num: int, given: dict[str, Any]) -> list[tuple[slice, slice]]:
    """Rows of queries and of keys that meet, by sequence."""
    assert given.pop("input_layout") == "TND"
    assert q.dtype in (torch.float16, torch.bfloat16, torch.float32)
    assert q.dtype == k.dtype == v.dtype
    assert q.device == k.device == v.device
    assert q.is_contiguous()
    assert k.is_contiguous()
    assert v.is_contiguous()
    assert q.dim() == 3
    assert k.shape == v.shape
    assert q.shape[1] == head_num
    assert head_num % k.shape[1] == 0
    assert head_num <= 256
    assert q.shape[2] == k.shape[2] <= 768
    assert q.shape[2] % 16 == 0
    ends = given.pop("actual_seq_qlen"), given.pop("actual_seq_kvlen")
    for rows, of in zip((len(q), len(k)), ends, strict=True):
        assert of[-1] == rows
        assert all(a < b for a, b in itertools.pairwise([0, *of])), "a row without keys"
        assert len(of) <= MOST_SEQUENCES
    mask, mode = given.pop("atten_mask", None), given.pop("sparse_mode", 0)
    assert mode in (0, 3)
    assert (mask is None) == (mode == 0), "other modes need their mask, and with none there is no mode"
    pairs = [tuple(slice(a, b) for a, b in itertools.pairwise([0, *of])) for of in ends]
    if mode == 3:
        assert mask.dtype == torch.bool
        assert torch.equal(mask.cpu(), torch.ones(SIDE, SIDE, dtype=torch.bool).triu(1)), "the compressed triangle"
        assert all(a.stop - a.start == b.stop - b.start for a, b in zip(*pairs, strict=True)), "aligned at the end"
    assert given.pop("keep_prob", 1.0) == 1.0
    left = {name: value for name, value in given.items() if value not in (None, 0, "", True, False, 2147483647)}
    assert not left, left
    return list(zip(*pairs, strict=True))


def _scores(q: torch.Tensor, k: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    """Of [Tq, H, D] and [Tk, Hkv, D]: [H, Tq, Tk], fp64."""
    k = k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * scale
    if causal:
        later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1).to(q.device)
        scores = scores.masked_fill(later, -math.inf)
    return scores


def _in_memory(numbers: torch.Tensor, at: slice, heads: int) -> torch.Tensor:
    """Those of a sequence, [H, rows, 8], in [T, N, 8]: a view."""
    rows = at.stop - at.start
    return numbers.view(-1, 8).narrow(0, at.start * heads, rows * heads).view(heads, rows, 8)


def _forward(query: Any, key: Any, value: Any, head_num: int, input_layout: str, *args: Any, **more: Any) -> Any:
    given = _by_name("npu_fusion_attention", 5, args, more) | {"input_layout": input_layout}
    scale, causal = given.pop("scale", 1.0), given.get("sparse_mode", 0) == 3
    pieces = _check(query, key, value, head_num, given)
    out = torch.empty_like(query)
    most, sums = (torch.empty(len(query), head_num, 8, device=query.device) for _ in range(2))
    for own, keys in pieces:
        scores = _scores(query[own], key[keys], causal, scale)
        top = scores.amax(-1)
        weights = (scores - top[..., None]).exp()
        total = weights.sum(-1)
        values = value[keys].double().repeat_interleave(head_num // value.shape[1], 1)
        out[own] = torch.einsum("hqk,khd->qhd", weights / total[..., None], values).to(query.dtype)
        _in_memory(most, own, head_num).copy_(top.float()[..., None].expand(-1, -1, 8))
        _in_memory(sums, own, head_num).copy_(total.float()[..., None].expand(-1, -1, 8))
    return out, most, sums, torch.empty(0, device=query.device), 0, 0, 0


def _backward(query: Any, key: Any, value: Any, dy: Any, head_num: int, input_layout: str, **more: Any) -> Any:
    given = _by_name("npu_fusion_attention_grad", 6, (), more) | {"input_layout": input_layout}
    scale, causal = given.pop("scale_value", 1.0), given.get("sparse_mode", 0) == 3
    most, sums, out = (given.pop(name) for name in ("softmax_max", "softmax_sum", "attention_in"))
    pieces = _check(query, key, value, head_num, given)
    for numbers in (most, sums):
        assert numbers.dtype == torch.float32
        assert numbers.shape == (len(query), head_num, 8)
        assert numbers.is_contiguous()
    assert dy.shape == out.shape == query.shape
    assert dy.dtype == out.dtype == query.dtype
    assert dy.is_contiguous()
    assert out.is_contiguous()
    gradients = [torch.empty_like(t) for t in (query, key, value)]
    group = head_num // key.shape[1]
    for own, keys in pieces:
        top, total = (_in_memory(numbers, own, head_num)[..., :1].double() for numbers in (most, sums))
        p = (_scores(query[own], key[keys], causal, scale) - top).exp() / total
        d, o = dy[own].double(), out[own].double()
        k, v = (t[keys].double().repeat_interleave(group, 1) for t in (key, value))
        ds = p * (torch.einsum("qhd,khd->hqk", d, v) - (d * o).sum(-1).T[..., None]) * scale
        dk, dv = torch.einsum("hqk,qhd->khd", ds, query[own].double()), torch.einsum("hqk,qhd->khd", p, d)
        dk, dv = (t.reshape(len(t), -1, group, t.shape[-1]).sum(2) for t in (dk, dv))
        dq = torch.einsum("hqk,khd->qhd", ds, k)
        for whole, at, part in zip(gradients, (own, keys, keys), (dq, dk, dv), strict=True):
            whole[at] = part.to(query.dtype)
    schema = torch.ops.npu.npu_fusion_attention_grad.default._schema
    nothing = [torch.empty(0, device=query.device) for _ in range(len(schema.returns) - 3)]
    return *gradients, *nothing


def _by_name(operator: str, first: int, args: tuple[Any, ...], more: dict[str, Any]) -> dict[str, Any]:
    """Arguments from number `first` on; torch leaves defaults at the end out."""
    names = [argument.name for argument in getattr(torch.ops.npu, operator).default._schema.arguments]
    return dict(zip(names[first:], args, strict=False)) | more
