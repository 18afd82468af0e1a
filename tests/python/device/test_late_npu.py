"""The whole way of an NPU on the late device that poses as one: its kernel by name, and HCCL's fused transfers."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from ranks import World, run_processes, values
from ring_cases import Case, check, degrees_in_order, run_list

SIZE = 3


def npu_main(world: World, policies: tuple[str, str], cases: list[Case], exact: list[Case]) -> Any:
    os.environ["LATE_NAME"] = "npu"
    import late
    import npu_operator

    late.arrange(*policies, seed=world.rank)
    late.fuse()

    def kernel(dtype: torch.dtype, size: int) -> str:
        return torch.ops.dhp.kernel_of(torch.empty(1, 2, size, dtype=dtype, device="npu"))

    before = kernel(torch.bfloat16, 64)
    library = npu_operator.register("7.2")
    chosen = [before, kernel(torch.bfloat16, 64), kernel(torch.float32, 768)]
    chosen += [kernel(torch.bfloat16, 24), kernel(torch.float64, 64), kernel(torch.float16, 784)]
    group = world.new_group(backend=late.BACKEND)
    results = [run_list(world.rank, group, listed, "npu") for listed in (cases, exact)]
    library._destroy()
    return chosen, results


@pytest.mark.parametrize("policies", [("lazy", "eager"), ("eager", "lazy"), ("random", "random")], ids="-".join)
def test_attention_on_an_npu(policies: tuple[str, str]) -> None:
    cases, exact = degrees_in_order(3, SIZE), degrees_in_order(4, SIZE)[::4]
    for number, case in enumerate(cases):
        case.dtype, case.head_size = (torch.bfloat16, torch.float32)[number % 2], 16 * (1 + number % 3)
    found = values(run_processes(npu_main, SIZE, policies, cases, exact))
    for i, listed in enumerate((cases, exact)):
        check(listed, [results[i] for _, results in found])
    for chosen, _ in found:
        assert chosen == ["reference", "npu_fusion", "npu_fusion", "reference", "reference", "reference"]
