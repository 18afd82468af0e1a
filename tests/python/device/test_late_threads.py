"""Ranks as threads on one device: each under a stream of its own, calling forward and backward passes itself."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from dhp.run.ops import packed_call
from ranks import World, run_processes, run_threads, values
from ring_cases import EXCHANGES, Case, check, draw_case, local_rows, reference

SIZE = 4


def attend(case: Case, rank: int, group: str, device: str) -> float:
    """As `run_case`, without autograd: its one thread a device would wait for another rank of this process."""
    mine = local_rows(case, case.ranks.index(rank))
    q, k, v, dout = (t[mine].to(case.dtype).to(device) for t in case.tensors())
    call = (packed_call(case.seq_tokens, case.ranks, case.exchange, case.nodes), group, case.scale, case.causal)
    out, lse = torch.ops.dhp.ring_attention_with_lse(q, k, v, *call, True)
    found = [out, *torch.ops.dhp.ring_attention_backward(dout, q, k, v, out, lse, *call)]
    worst = 0.0
    for got, right in zip(found, reference(case), strict=True):
        error = (got.cpu().double() - right[mine]).abs().max() / right.abs().max().clamp_min(1e-2)
        worst = max(worst, float(error.nan_to_num(math.inf)))
    return worst


def threads_main(world: World, policies: list[str], cases: list[Case]) -> Any:
    """`policies`: of the ranks' streams, or all ranks are on the default one; that of the hub stays lazy."""
    import late

    late.arrange("eager", "eager")

    def body(rank: int, group: str) -> Any:
        if policies:
            stream = torch.Stream(device="late")
            late.device.set_policy(stream.stream_id, policies[rank])
            torch.accelerator.set_stream(stream)
        return [(i, attend(case, rank, group, "late")) for i, case in enumerate(cases) if rank in case.ranks]

    outcomes = run_threads(body, SIZE, device="late")
    return [outcome.value for outcome in outcomes], [outcome.error for outcome in outcomes]


POLICIES = [["eager"] * SIZE, ["lazy"] * SIZE, ["random"] * SIZE, ["lazy", "eager", "random", "eager"]]


@pytest.mark.parametrize("policies", POLICIES, ids="-".join)
def test_ring_attention(policies: list[str]) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    cases = []
    for exchange in EXCHANGES:
        for degree in range(1, SIZE + 1):
            case = draw_case(rng, rng.sample(range(SIZE), degree), torch.float64, longest=4)
            case.exchange = exchange
            cases.append(case)
    [(errors, problems)] = values(run_processes(threads_main, 1, policies, cases))
    assert problems == [""] * SIZE
    check(cases, errors)


def test_on_one_stream() -> None:
    """Slower, and right: a copy is on its way before anybody's stream waits for it."""
    cases = [draw_case(random.Random(7), [0, 1, 2, 3], torch.float64, longest=4) for _ in range(3)]
    [(errors, problems)] = values(run_processes(threads_main, 1, [], cases))
    assert problems == [""] * SIZE
    check(cases, errors)


def lost_main(world: World) -> list[str]:
    """Rank 2 never comes; each of the others says for whom it has waited."""
    import late

    late.arrange("eager", "eager")

    def body(rank: int, group: str) -> None:
        torch.ops.dhp.configure_group(group, 1.0)
        if rank == 2:
            return
        q = torch.randn(2, 2, 8, device="late")
        torch.ops.dhp.ring_attention_with_lse(q, q, q, packed_call([8], [0, 1, 2, 3]), group, 0.3, True, False)

    return [outcome.error for outcome in run_threads(body, SIZE, device="late")]


def test_a_rank_that_does_not_come_is_named() -> None:
    [errors] = values(run_processes(lost_main, 1))
    assert errors[2] == ""
    assert all("rank 2" in errors[rank] for rank in (0, 1, 3)), errors


def mixed_main(world: World) -> list[str]:
    import late

    late.arrange("eager", "eager")

    def body(rank: int, group: str) -> None:
        rows = torch.zeros(2, 1, device=("cpu", "late")[rank])
        torch.ops.dhp.exchange_rows(rows, [1, 1], [1, 1], [0, 1], group)

    return [outcome.error for outcome in run_threads(body, 2, device="late")]


def test_rows_of_a_host_and_of_a_device_are_not_exchanged() -> None:
    [errors] = values(run_processes(mixed_main, 1))
    assert all("disagree about exchange_rows forward: rows on a CPU: " in error for error in errors), errors
