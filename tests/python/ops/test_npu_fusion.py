"""Ascend's kernel without an NPU: its calls against the documented contract of npu_fusion_attention, which an operator
of that name stands for here (npu_operator.py)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch

import npu_operator
from dhp.run import ops
from ranks import run_threads, values
from ring_cases import Case, check, draw_case, run_list

ops.load()

EXCHANGES = ("ring", "direct", "hierarchical")


@pytest.fixture(params=npu_operator.RELEASES)
def npu_fusion(request: pytest.FixtureRequest) -> Iterator[None]:
    library = npu_operator.register(request.param)
    torch.ops.dhp.use_kernel("npu_fusion")
    yield
    torch.ops.dhp.use_kernel("auto")
    library._destroy()


def cases_of(seed: int) -> list[Case]:
    """Every exchange and degree, of 16 and of 32 bits, packed sequences, grouped heads, causal and not."""
    rng = random.Random(seed)
    cases = []
    for exchange in EXCHANGES:
        for degree in (1, 2, 3):
            for dtype in (torch.float32, torch.bfloat16):
                case = draw_case(rng, rng.sample(range(3), degree), dtype)
                case.exchange, case.head_size = exchange, rng.choice([16, 48])
                case.q_heads = 2 * case.kv_heads
                cases.append(case)
    return cases


def test_its_calls_give_attention(npu_fusion: None) -> None:
    """Forward and backward, against attention of whole sequences in fp64."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    cases = cases_of(seed)
    check(cases, values(run_threads(lambda rank, group: run_list(rank, group, cases), 3)))


def test_more_sequences_than_a_call_takes(npu_fusion: None) -> None:
    case = Case(5, [0], [1, 2] * 600, 2, 1, 16, 0.3, True, torch.float32)
    check([case], values(run_threads(lambda rank, group: run_list(rank, group, [case]), 1)))


def test_a_release_with_other_arguments_is_refused() -> None:
    library = torch.library.Library("npu", "DEF")
    library.define("npu_fusion_attention(Tensor query, Tensor key, Tensor value, int head_num, Tensor rope) -> Tensor")
    torch.ops.dhp.use_kernel("npu_fusion")
    try:
        q = torch.randn(4, 2, 16)
        with pytest.raises(RuntimeError, match="needs an argument that DHP does not know: rope"):
            torch.ops.dhp.ring_attention(q, q, q, [4], [0], "", 0.3)
    finally:
        torch.ops.dhp.use_kernel("auto")
        library._destroy()
