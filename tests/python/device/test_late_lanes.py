"""Two lanes on the late device: what crosses to another node does not hold up what stays; and connections before
tasks."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from by_hand import end_all, start_ranks
from ranks import World, run_processes, values
from ring_cases import Case, check, draw_case, run_list, uneven_nodes
from row_cases import Case as RowCase
from row_cases import draw_cases
from row_cases import run_list as run_rows

SIZE = 4
POLICIES = [("lazy", "eager"), ("eager", "lazy"), ("random", "random"), ("serial", "eager")]


def two_lanes(world: World) -> str:
    import late

    near, far = world.new_group(backend=late.BACKEND), world.new_group(backend=f"{late.NAME}:lateccl")
    torch.ops.dhp.set_far_group(near, far)
    return near


def crossing(rank: int, cases: list[Case]) -> set[int]:
    """Ranks on other nodes that `rank` works with in a hierarchical exchange."""
    found: set[int] = set()
    for case in cases:
        if rank in case.ranks and case.exchange == "hierarchical":
            node = dict(zip(case.ranks, case.nodes, strict=True))
            found |= {other for other in case.ranks if node[other] != node[rank]}
    return found


def lanes_main(world: World, policies: tuple[str, str], cases: list[Case]) -> Any:
    import late

    late.arrange(*policies, seed=world.rank)
    group = two_lanes(world)
    errors = run_list(world.rank, group, cases, "late")
    return errors, late.device.contacts()


@pytest.mark.parametrize("policies", POLICIES, ids="-".join)
def test_crossings_go_far_and_the_rest_near(policies: tuple[str, str]) -> None:
    """Nodes of all sizes, each exchange in turn; also with all streams in one queue."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    cases = uneven_nodes(seed, SIZE)
    cases += [draw_case(rng, rng.sample(range(SIZE), rng.randint(2, SIZE)), torch.float64, longest=3) for _ in range(9)]
    found = values(run_processes(lanes_main, SIZE, policies, cases))
    check(cases, [errors for errors, _ in found])
    for rank, (_, (near, far)) in enumerate(found):
        assert near["to"], "what is not hierarchical, and inside of nodes"
        assert far["to"]
        assert set(far["to"]) <= crossing(rank, cases)


def connected_main(world: World, tasks: list[tuple[list[int], str, list[int], bool]], cases: list[Case]) -> Any:
    """New contacts by task, twice; then the tasks themselves."""
    import late

    late.arrange("random", "random", seed=world.rank)
    group = two_lanes(world)
    fresh = []
    for _ in range(2):
        mine = [task for task in tasks if world.rank in task[0]]
        fresh.append([torch.ops.dhp.connect(ranks, group, how, nodes, rows) for ranks, how, nodes, rows in mine])
    before = late.device.contacts()
    errors = run_list(world.rank, group, cases, "late")
    return fresh, before, late.device.contacts(), errors


def test_connected_ranks_meet_nobody_in_a_task() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    groups = [rng.sample(range(SIZE), rng.randint(2, SIZE)) for _ in range(9)]
    cases = [draw_case(rng, ranks, torch.float64, longest=3) for ranks in groups]
    tasks = [(case.ranks, case.exchange, case.nodes, False) for case in cases]
    found = values(run_processes(connected_main, SIZE, tasks, cases))
    check(cases, [errors for *_, errors in found])
    for fresh, before, after, _ in found:
        assert before == after
        assert [lane["late"] for lane in after] == [[], []]
        assert sum(fresh[0]) == sum(len(lane["to"]) for lane in after)
        assert sum(fresh[1]) == 0


def test_who_is_connected() -> None:
    """By hand, of [0, 1, 2, 3]: a ring's neighbours; with direct, or with rows, all; of two nodes one crossing for each
    shard, and the others inside."""
    four = [0, 1, 2, 3]
    found = {}
    for name, task in {
        "ring": (four, "ring", [], False),
        "direct": (four, "direct", [], False),
        "rows": (four, "ring", [], True),
        "nodes": (four, "hierarchical", [0, 0, 1, 1], False),
    }.items():
        near, far = values(run_processes(connected_main, SIZE, [task], []))[0][2]
        assert near["from"] == near["to"]
        assert far["from"] == far["to"]
        found[name] = near["to"], far["to"]
    assert found["ring"] == ([1, 3], [])
    assert found["direct"] == found["rows"] == ([1, 2, 3], [])
    assert found["nodes"][0] == [1]
    assert len(found["nodes"][1]) in (1, 2)
    assert set(found["nodes"][1]) <= {2, 3}


def run_of_two_nodes(joins: bool, per_node: int) -> int:
    """Started as torchrun would on machines of `per_node` ranks; says its groups."""
    import late

    late.arrange("eager", "eager")
    os.environ["LOCAL_RANK"] = str(int(os.environ["RANK"]) % per_node)
    import torch.distributed as dist

    import dhp

    if joins:
        dist.init_process_group("gloo")
        run = dhp.join(timeout_s=60)
    else:
        run = dhp.init(timeout_s=60)
    nodes = [rank // per_node for rank in range(SIZE)]
    q = torch.randn(8, 2, 8, device=run.device)
    torch.ops.dhp.ring_attention(q, q, q, [8 * SIZE], list(range(SIZE)), run.traffic, 0.3, True, "hierarchical", nodes)
    assert run.sum(torch.ones(1, device=run.device)).item() == SIZE
    groups = len(dist.distributed_c10d._world.pg_map)
    met = [len(lane["to"]) > 0 for lane in late.device.contacts()]
    run.close()
    left = len(dist.distributed_c10d._world.pg_map)
    print(f"groups {groups} left {left} met {met}", flush=True)
    return 0


@pytest.mark.parametrize(
    ("joins", "per_node", "said"),
    [
        (False, 2, "groups 3 left 0 met [False, True, True]"),
        (False, 4, "groups 2 left 0 met [False, True]"),
        (True, 2, "groups 3 left 1 met [True, True]"),
    ],
)
def test_a_third_group_where_there_are_nodes(joins: bool, per_node: int, said: str, tmp_path: Path) -> None:
    ranks = start_ranks(run_of_two_nodes, SIZE, tmp_path, joins, per_node)
    assert end_all(ranks, 120) == [0] * SIZE, [rank.said() for rank in ranks]
    assert [rank.said().splitlines()[-1] for rank in ranks] == [said] * SIZE


def fused_main(world: World, policies: tuple[str, str], cases: list[Case], rows: list[RowCase]) -> Any:
    import late

    late.arrange(*policies, seed=world.rank)
    late.fuse()
    group = two_lanes(world)
    errors = run_list(world.rank, group, cases, "late")
    return errors, run_rows(world.rank, group, rows, "late"), torch.ops.dhp.known_failure(group)


@pytest.mark.parametrize("policies", POLICIES, ids="-".join)
def test_a_backend_that_takes_fused_batches_alone(policies: tuple[str, str]) -> None:
    """As older HCCL: single transfers, which could wait for each other, are refused."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    cases = [draw_case(rng, rng.sample(range(SIZE), rng.randint(2, SIZE)), torch.float64, longest=3) for _ in range(12)]
    rows = draw_cases(seed, SIZE, 8)
    found = values(run_processes(fused_main, SIZE, policies, cases, rows))
    check(cases, [errors for errors, *_ in found])
    assert [ran for _, ran, _ in found] == [sum(rank in case.ranks for case in rows) for rank in range(SIZE)]
    assert {failure for *_, failure in found} == {""}


def bare_main(world: World) -> str:
    import late

    late.device.set_coalescing(False)
    group = world.new_group(backend=late.BACKEND)
    q = torch.randn(2, 2, 8, device="late")
    try:
        torch.ops.dhp.ring_attention(q, q, q, [4], [0, 1], group, 0.3)
    except RuntimeError as error:
        return str(error)
    return ""


def test_a_backend_with_neither_is_refused() -> None:
    for said in values(run_processes(bare_main, 2)):
        assert "lateccl can neither coalesce transfers nor start a batch of them" in said
