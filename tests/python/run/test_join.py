"""dhp.join: programs that have a process group train on some of its ranks, and go on using it."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import dhp
from by_hand import Rank, all_said, causes, end_all, start_ranks, wait_until
from parity_worker import inputs_of
from ranks import context

SIZE, STEPS, SAMPLES = 5, 2, 6
SECONDS = 120.0  # far above what it takes on an idle machine, far below any wait without an end
ONE = [[3, 0, 4]] * SIZE  # what each rank gives as members
TWO = [[3, 0], [4, 1], [4, 1], [3, 0], [4, 1]]
ALL = [[2, 4, 0, 1, 3]] * SIZE


def model_of(folder: str) -> torch.nn.Module:
    from transformers import AutoModelForImageTextToText

    torch.set_num_threads(1)
    return AutoModelForImageTextToText.from_pretrained(f"{folder}/model", dtype=torch.float64).train()


def connect(backend: str) -> None:
    """As the program would. The backend "fake" does nothing and says nothing: who uses it gets wrong sums."""
    if backend == "gloo":
        dist.init_process_group("gloo")
        return
    import torch.testing._internal.distributed.fake_pg  # noqa: F401  # registers it

    store = next(iter(dist.rendezvous("env://")))[0]
    dist.init_process_group("fake", store=store, rank=int(os.environ["RANK"]), world_size=SIZE)


def own_traffic(group: dist.ProcessGroup | None, rounds: int) -> None:
    """What a program does besides: sums over all of its ranks."""
    for number in range(rounds):
        values = torch.full((64,), float(number + dist.get_rank()))
        dist.all_reduce(values, group=group)
        assert values[0] == SIZE * number + sum(range(SIZE)), values


def train(folder: str, out: str, backend: str, members: Sequence[Sequence[int]]) -> int:
    connect(backend)
    world_rank = dist.get_rank()
    side = dist.new_group() if backend == "gloo" else None
    problems: list[BaseException] = []

    def beside() -> None:
        try:
            own_traffic(side, 300)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=beside)
    run = dhp.join(members[world_rank], timeout_s=300)
    capacity = {2: 110, 3: 75, 5: 47}[run.world_size]  # just enough for the longest of 214 tokens: groups of all sizes
    cluster = dhp.local_cluster(run.world_size, capacity_tokens=capacity)
    cost = dhp.local_cost(f"{folder}/model", run.world_size, capacity_tokens=capacity)
    model = model_of(folder)
    adapter = dhp.attach(model, run, cluster=cluster)
    data = dhp.Dataset(f"{folder}/train.jsonl", f"{folder}/model", f"{out}/{world_rank}.idx")
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, gradients = [], []
    if side:
        thread.start()
    for step in range(STEPS):
        batch = data.batch(step, SAMPLES, 3)
        planner = "free" if 0 in run.members else "lockstep"
        plan = dhp.plan(batch, cluster, cost, run=run if run.rank >= 0 else None, planner=planner)
        loss_sum = torch.zeros((), dtype=torch.float64)
        for task in plan.tasks:
            if run.rank in task.ranks:
                loss = adapter.loss(data.read(task, run.rank), task, data.label_tokens(batch))
                loss.backward()
                loss_sum += loss.detach()
        if backend == "gloo":
            own_traffic(None, 3)
        if run.rank >= 0:
            dhp.reduce_gradients(model, run)
            run.sum(loss_sum)
            losses.append(loss_sum.item())
            gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            adamw.step()
            adamw.zero_grad()
    if side:
        thread.join()
    assert not problems, problems
    run.close()
    if backend == "gloo":
        own_traffic(None, 2)  # the program's group lives on
    if run.rank >= 0:
        torch.save({"losses": losses, "gradients": gradients}, f"{out}/{world_rank}.pt")
    dist.destroy_process_group()
    return 0


def train_alone(folder: str, out: str) -> int:
    """Hugging Face alone, sample by sample."""
    model = model_of(folder)
    data = dhp.Dataset(f"{folder}/train.jsonl", f"{folder}/model", f"{out}/alone.idx")
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, gradients = [], []
    for step in range(STEPS):
        batch, total = data.batch(step, SAMPLES, 3), 0.0
        for sequence in batch.sequences:
            given = inputs_of(data, sequence.id, model)
            loss = model(**given, num_items_in_batch=data.label_tokens(batch)).loss
            loss.backward()
            total += loss.item()
        losses.append(total)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        adamw.step()
        adamw.zero_grad()
    torch.save({"losses": losses, "gradients": gradients}, f"{out}/alone.pt")
    return 0


@pytest.fixture(scope="module")
def alone(mixed_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("alone")
    process = context.Process(target=train_alone, args=(str(mixed_data), str(folder)))
    process.start()
    process.join(600)
    return torch.load(folder / "alone.pt")


@pytest.mark.parametrize(("members", "backend"), [(ONE, "gloo"), (TWO, "gloo"), (ALL, "gloo"), (ONE, "fake")])
def test_members_train_what_one_process_trains(
    members: list[list[int]], backend: str, mixed_data: Path, alone: dict, tmp_path: Path
) -> None:
    ranks = start_ranks(train, SIZE, tmp_path, str(mixed_data), str(tmp_path), backend, members)
    assert end_all(ranks, 600) == [0] * SIZE, [rank.said() for rank in ranks]
    worst = 0.0
    trained = [rank for rank in range(SIZE) if rank in members[rank]]
    assert {int(file.stem) for file in tmp_path.glob("*.pt")} == set(trained)
    for rank in trained:
        result = torch.load(tmp_path / f"{rank}.pt")
        assert result["losses"] == pytest.approx(alone["losses"], rel=1e-6)
        for mine, expected in zip(result["gradients"], alone["gradients"], strict=True):
            assert mine.keys() == expected.keys()
            floor = 1e-6 * max(g.norm().item() for g in expected.values())
            for name, gradient in expected.items():
                error = (mine[name] - gradient).norm().item() / max(gradient.norm().item(), floor)
                worst = max(worst, error)
                assert error <= 1e-6, f"rank {rank}, {name}: {error:.2e}"
    print(f"members {members}, default group by {backend}: worst gradient {worst:.1e}")


def collectives(members: list[list[int]]) -> int:
    dist.init_process_group("gloo")
    run = dhp.join(members[dist.get_rank()], timeout_s=60)
    if run.rank < 0:
        for call in (run.barrier, lambda: run.all(0), lambda: run.from_rank_0(0), lambda: run.gather(0)):
            with pytest.raises(dhp.InputError, match="is no member of a run"):
                call()
    else:
        size = run.world_size
        generator = torch.Generator().manual_seed(run.rank)
        mine = torch.randn(3, 7, generator=generator, dtype=torch.float64).T  # not contiguous
        everyone = run.all(mine)
        assert torch.equal(everyone[run.rank], mine)
        torch.testing.assert_close(run.sum(mine.clone().T), sum(everyone).T, rtol=1e-14, atol=0)
        assert torch.equal(run.max(mine.clone()), torch.stack(everyone).amax(0))
        assert run.sum(torch.full((1,), run.rank)).tolist() == [sum(range(size))]
        assert run.sum(torch.tensor(1, dtype=torch.uint8)).item() == size
        assert run.max(torch.empty(0)).numel() == 0
        assert run.gather("x" * run.rank) == (["x" * rank for rank in range(size)] if run.rank == 0 else [])
        assert run.from_rank_0({"rank": run.rank}) == {"rank": 0}
        assert [int(name.split()[1]) for name in run.all(run.name)] == list(run.members)
    run.close()
    again = dhp.join(timeout_s=60)  # a run after a run, over all
    assert again.sum(torch.ones(1)).item() == SIZE
    again.close()
    dist.destroy_process_group()
    return 0


@pytest.mark.parametrize("members", [ONE, TWO, ALL])
def test_collectives_of_members(members: list[list[int]], tmp_path: Path) -> None:
    ranks = start_ranks(collectives, SIZE, tmp_path, members)
    assert end_all(ranks, SECONDS) == [0] * SIZE, [rank.said() for rank in ranks]


def say_error(members: list[object], rounds: int) -> int:
    dist.init_process_group("gloo")
    try:
        for _ in range(rounds):
            dhp.join(members[dist.get_rank()], timeout_s=20)  # type: ignore[arg-type]
    except (dhp.InputError, dhp.RankFailed) as error:
        print(f"dhp: error: {error}", flush=True)
        return 2 if isinstance(error, dhp.InputError) else 1
    return 0


@pytest.mark.parametrize(
    ("members", "rounds", "codes", "message"),
    [
        ([[0, 1], [1, 0]], 1, {1}, r"called dhp.join with members \[\d, \d\], rank \d \(host .*\) with \[\d, \d\]: "),
        ([[0, 1], [1]], 1, {1}, "all of a slice give the same ranks"),
        ([[0, 2], None], 1, {1, 2}, r"members\[1\]: found 2, expected a rank from 0 to 1"),
        ([[0, 0], [0, 0]], 1, {2}, r"members\[1\]: found rank 0 twice, expected every rank once"),
        ([[], []], 1, {2}, "members: found an empty list"),
        ([3, 3], 1, {2}, "members: found 3, expected ranks of the default process group"),
        ([[0.5], None], 1, {1, 2}, r"members: found \[0.5\], expected ranks"),
        ([None, None], 2, {2}, r"this process is in a run already: close\(\) it before the next"),
    ],
)
def test_wrong_members_are_named_in_one_line(
    members: list[object], rounds: int, codes: set[int], message: str, tmp_path: Path
) -> None:
    ranks = start_ranks(say_error, 2, tmp_path, members, rounds)
    assert set(end_all(ranks, SECONDS)) == codes, [rank.said() for rank in ranks]
    for rank in ranks:
        lines = [line for line in rank.said().splitlines() if line.startswith("dhp: error:")]
        assert len(lines) == 1, rank.said()
        assert "Traceback" not in rank.said()
        assert re.search(message, lines[0]), rank.said()


def test_what_to_call_is_said_where_the_group_is_missing_or_there() -> None:
    with pytest.raises(dhp.InputError, match=r"call torch.distributed.init_process_group\(\) first, or dhp.init\(\)"):
        dhp.join()
    with pytest.raises(dhp.InputError, match=r"timeout_s: found 0, expected seconds from 0.001 to 1,000,000"):
        dhp.join(timeout_s=0)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(dhp.InputError, match=r"has made a process group already; call dhp.join\(\) instead"):
            dhp.init()
        with dhp.join() as run:  # one rank needs nobody
            assert (run.rank, run.members, run.all("x")) == (0, (0,), ["x"])
        dist.barrier()
    finally:
        dist.destroy_process_group()


def test_a_join_that_fails_leaves_no_thread() -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        before = set(threading.enumerate())
        with pytest.raises(dhp.InputError, match=r"members\[0\]: found 1, expected a rank from 0 to 0"):
            dhp.join([1])
        assert wait_until(lambda: set(threading.enumerate()) <= before, 20)
        with dhp.join() as run:  # it may be called again
            assert run.members == (0,)
    finally:
        dist.destroy_process_group()


def one_does_not_come() -> int:
    dist.init_process_group("gloo")
    return 0 if dist.get_rank() == 1 and not wait_until(lambda: False, 12) else say_error_of_joining()


def say_error_of_joining() -> int:
    try:
        dhp.join(timeout_s=3)
    except dhp.RankFailed as error:
        print(f"dhp: error: {error}", flush=True)
        return 1
    return 0


def test_a_rank_that_does_not_join_is_named(tmp_path: Path) -> None:
    ranks = start_ranks(one_does_not_come, 3, tmp_path)
    assert end_all(ranks, SECONDS) == [1, 0, 1], [rank.said() for rank in ranks]
    for number in (0, 2):
        expected = r"rank 1 of 3 did not come to dhp.join within 3 s \(timeout_s\); every rank of the default process"
        assert re.match(expected, causes(ranks)[number])


def loop(members: list[list[int]], own: bool) -> int:
    """Steps without an end: attention and a sum of the members, and where it has `own` collectives one of all."""
    dist.init_process_group("gloo")
    run = dhp.join(members[dist.get_rank()], timeout_s=60)
    group, size = list(run.members), run.world_size
    try:
        for step in range(10**6):
            if run.rank >= 0:
                with run.at(f"step {step}, task 0"):
                    q = torch.randn(4, 4, 8, requires_grad=True)
                    arguments = ([4 * size], group, run.traffic, 0.3, True, "ring", [0] * size)
                    torch.ops.dhp.ring_attention(q, q, q, *arguments).sum().backward()
                with run.at(f"step {step}, gradients"):
                    run.sum(torch.ones(3))
            with run.at(f"step {step}, own"):
                if own:
                    dist.all_reduce(torch.ones(3))
            print(f"step {step}", flush=True)
            wait_until(lambda: False, 0.02)
    except dhp.RankFailed as error:
        print(f"dhp: error: {error}", flush=True)
        return 1
    return 0


@pytest.mark.parametrize(
    ("members", "own", "lost"),
    [(ONE, True, 3), (ONE, True, 1), (TWO, False, 3), (TWO, True, 0)],
    ids=["member", "no-member", "other-slice", "store-host"],
)
def test_a_lost_rank_ends_all_that_depend_on_it(members: list[list[int]], own: bool, lost: int, tmp_path: Path) -> None:
    ranks = start_ranks(loop, SIZE, tmp_path, members, own)
    all_said(ranks, "^step 2")
    ranks[lost].send(signal.SIGKILL)
    dependent = [r for r in range(SIZE) if r != lost and (own or r in members[r])]
    wait_until(lambda: all(ranks[r].process.exitcode is not None for r in dependent), SECONDS)
    codes = [ranks[r].process.exitcode for r in dependent]
    end_all(ranks)
    assert codes == [1] * len(dependent), [rank.said() for rank in ranks]
    check_named(ranks, lost, dependent)


def check_named(ranks: list[Rank], lost: int, dependent: list[int]) -> None:
    pid, found = ranks[lost].process.pid, causes(ranks)
    for rank in dependent:
        assert re.match(rf"rank {lost} \(host {re.escape(os.uname().nodename)}, pid {pid}\)", found[rank]), found
        assert "was lost" in found[rank], found
        assert not re.search(r"Traceback|GLHF|\.cc:", ranks[rank].said()), ranks[rank].said()


def test_members_go_on_without_a_rank_that_is_none(tmp_path: Path) -> None:
    ranks = start_ranks(loop, SIZE, tmp_path, ONE, False)
    all_said(ranks, "^step 2")
    ranks[1].send(signal.SIGKILL)
    ranks[1].process.join()
    seen = {r: len(ranks[r].said().splitlines()) for r in ONE[0]}
    assert wait_until(lambda: all(len(ranks[r].said().splitlines()) > seen[r] + 100 for r in seen), SECONDS)
    said = causes(ranks)
    end_all(ranks)
    assert said == [""] * SIZE
