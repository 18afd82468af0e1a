"""Wrong calls, disagreements, lost ranks and expired waits: an error on every rank, within seconds, naming who failed
first, and every process alive at the end."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ranks import World, kill_self, run_processes, run_threads, values

RANKS = [2, 0, 3, 1]
SIZE = len(RANKS)
# Far below every time-out: a failure travels, it is not waited for.
SECONDS = 60.0


def ring_arguments() -> dict[str, Any]:
    """A right call of four ranks: 48 tokens in two sequences, 12 rows a rank."""
    return {
        "q": torch.randn(12, 4, 8, requires_grad=True),
        "k": torch.randn(12, 2, 8),
        "v": torch.randn(12, 2, 8),
        "seq_tokens": [32, 16],
        "ranks": RANKS,
        "scale": 0.35,
        "causal": True,
        "exchange": "ring",
        "nodes": [],
    }


# Right calls of four ranks on two nodes that differ in their exchange.
EXCHANGES: dict[str, dict[str, Any]] = {
    name: {"exchange": name, "nodes": [0, 0, 1, 1]} for name in ("ring", "direct", "hierarchical")
}


def ring_call(group: str, **changes: Any) -> torch.Tensor:
    a = ring_arguments() | changes
    return torch.ops.dhp.ring_attention(
        a["q"], a["k"], a["v"], a["seq_tokens"], a["ranks"], group, a["scale"], a["causal"], a["exchange"], a["nodes"]
    )


def rows_arguments(rank: int) -> dict[str, Any]:
    """A right call of four ranks: position i sends i + j rows to position j, and 0 from 0 to 0."""
    position = RANKS.index(rank)
    counts = [position + j for j in range(SIZE)]
    return {
        "rows": torch.randn(sum(counts), 5, requires_grad=True),
        "send_counts": counts,
        "recv_counts": counts,
        "ranks": RANKS,
    }


def rows_call(group: str, rank: int, **changes: Any) -> torch.Tensor:
    a = rows_arguments(rank) | changes
    return torch.ops.dhp.exchange_rows(a["rows"], a["send_counts"], a["recv_counts"], a["ranks"], group)


WRONG_RING_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"q": torch.randn(12, 32)}, r"q: found shape \[12, 32\], expected \[T_local, heads, head size\]"),
    ({"v": torch.randn(1, 12, 2, 8)}, r"v: found shape \[1, 12, 2, 8\]"),
    ({"q": torch.ones(12, 4, 8, dtype=torch.int64)}, r"q: found dtype Long, expected float64, float32"),
    ({"q": torch.ones(12, 4, 8, dtype=torch.complex64)}, r"q: found dtype ComplexFloat"),
    ({"k": torch.randn(12, 2, 8, dtype=torch.float64)}, r"k: its dtype differs from that of q"),
    ({"v": torch.randn(12, 2, 8).bfloat16()}, r"v: its dtype differs from that of q"),
    ({"q": torch.randn(12, 0, 8)}, r"q: .*expected at least one head"),
    ({"q": torch.randn(12, 4, 0), "k": torch.randn(12, 2, 0)}, r"q: .*head size of at least 1"),
    ({"q": torch.randn(12, 5, 8)}, r"q: found 5 heads, expected a multiple of the 2 heads"),
    ({"q": torch.randn(12, 1, 8)}, r"q: found 1 heads, expected a multiple of the 2 heads"),
    ({"v": torch.randn(12, 4, 8)}, r"v: found shape \[12, 4, 8\], expected that of k, \[12, 2, 8\]"),
    ({"k": torch.randn(12, 2, 16), "v": torch.randn(12, 2, 16)}, r"k: its head size differs from that of q"),
    ({"q": torch.randn(13, 4, 8)}, r"q: found 13 rows, expected 12: this rank's shards of seq_tokens \[32, 16\]"),
    ({"k": torch.randn(11, 2, 8), "v": torch.randn(11, 2, 8)}, r"k: its number of rows differs from that of q"),
    ({"seq_tokens": [32, 20]}, r"seq_tokens\[1\]: found 20, expected a positive multiple of 8 for a group of 4"),
    ({"seq_tokens": [64, -16]}, r"seq_tokens\[1\]: found -16, expected a positive multiple"),
    ({"seq_tokens": [48, 0]}, r"seq_tokens\[1\]: found 0, expected a positive multiple"),
    ({"ranks": []}, r"ranks: found an empty list"),
    ({"ranks": [2, 0, 3, 2]}, r"ranks: found rank 2 twice"),
    ({"ranks": [2, 0, 3, 4]}, r"ranks: found 4, expected world ranks from 0 to 3"),
    ({"ranks": [2, 0, 3, -1]}, r"ranks: found -1, expected world ranks"),
    ({"ranks": "others"}, r"ranks: this is rank \d, which is not in the group"),
    ({"exchange": "pigeon"}, r'exchange: found "pigeon", expected ring, direct or hierarchical'),
    ({"exchange": "all_to_all"}, r'exchange: found "all_to_all", expected ring, direct or hierarchical'),
    ({"nodes": [0, 0, 1]}, r"nodes: found 3 entries, expected the node of each of the 4 ranks, or none"),
    ({"scale": math.nan}, r"scale: found nan, expected a finite number"),
    ({"scale": math.inf}, r"scale: found inf, expected a finite number"),
]

WRONG_ROWS_CALLS: list[tuple[dict[str, Any], str]] = [
    ({"rows": torch.randn(4)}, r"rows: found shape \[4\], expected \[rows, C\]"),
    ({"rows": torch.randn(99, 5)}, r"rows: found 99 rows, expected \d+, the sum of send_counts"),
    ({"send_counts": [1, 2, 3]}, r"send_counts: found 3 entries, expected one for each of the 4 ranks"),
    ({"recv_counts": [1, 2, 3, 4, 5]}, r"recv_counts: found 5 entries"),
    ({"recv_counts": [0, -1, 2, 3]}, r"recv_counts\[1\]: found -1, expected at least 0"),
    ({"recv_counts": "more from itself"}, r"recv_counts\[\d\]: found \d+ rows from this rank itself, but send_counts"),
    ({"ranks": [2, 0, 3, 3]}, r"ranks: found rank 3 twice"),
]

# Each is a right call by itself. "direct" and "hierarchical" are the ring's operation with that exchange.
DISAGREEMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("ring", {"seq_tokens": [16, 32]}, "seq_tokens"),
    ("ring", {"seq_tokens": [48]}, "seq_tokens"),
    ("ring", {"ranks": [2, 0, 1, 3]}, "ranks"),
    ("ring", {"ranks": [3, 1], "seq_tokens": [24]}, "ranks"),
    ("ring", {"causal": False}, "causal"),
    ("ring", {"exchange": "direct"}, "exchange"),
    ("ring", {"exchange": "hierarchical"}, "exchange"),
    ("ring", {"nodes": [0, 0, 1, 1]}, "nodes"),
    ("ring", {"scale": 0.36}, "scale"),
    ("ring", {"q": torch.randn(12, 4, 8)}, "needs gradient"),
    ("ring", {"q": torch.randn(12, 8, 8, requires_grad=True)}, "q heads"),
    ("ring", {"k": torch.randn(12, 4, 8), "v": torch.randn(12, 4, 8)}, "kv heads"),
    (
        "ring",
        {
            "q": torch.randn(12, 4, 16, requires_grad=True),
            "k": torch.randn(12, 2, 16),
            "v": torch.randn(12, 2, 16),
        },
        "head size",
    ),
    (
        "ring",
        {
            "q": torch.randn(12, 4, 8, dtype=torch.float64, requires_grad=True),
            "k": torch.randn(12, 2, 8).double(),
            "v": torch.randn(12, 2, 8).double(),
        },
        "dtype",
    ),
    ("ring", {"operation": "rows"}, "operation"),
    ("direct", {"exchange": "ring"}, "exchange"),
    ("direct", {"exchange": "hierarchical"}, "exchange"),
    ("direct", {"seq_tokens": [16, 32]}, "seq_tokens"),
    ("hierarchical", {"exchange": "ring"}, "exchange"),
    ("hierarchical", {"exchange": "direct"}, "exchange"),
    ("hierarchical", {"nodes": [0, 1, 1, 1]}, "nodes"),
    ("hierarchical", {"nodes": [0, 1, 0, 1]}, "nodes"),
    ("hierarchical", {"nodes": []}, "nodes"),
    ("hierarchical", {"causal": False}, "causal"),
    ("rows", {"operation": "ring"}, "operation"),
    ("rows", {"rows": "wider"}, "columns"),
    ("rows", {"rows": "frozen"}, "needs gradient"),
    ("rows", {"recv_counts": "fewer from the next"}, "rows between them"),
]


def call(operation: str, group: str, rank: int, changes: dict[str, Any]) -> torch.Tensor:
    """The right call of this operation with changes; those that depend on the rank are given in words."""
    changes = dict(changes)
    operation = changes.pop("operation", operation)
    position = RANKS.index(rank)
    if operation in EXCHANGES:
        if operation != "ring":
            changes = EXCHANGES[operation] | changes
        if changes.get("ranks") == "others":
            changes["ranks"] = [r for r in RANKS if r != rank]
        return ring_call(group, **changes)
    right = rows_arguments(rank)
    if changes.get("recv_counts") == "more from itself":
        changes["recv_counts"] = [c + (i == position) for i, c in enumerate(right["recv_counts"])]
    if changes.get("recv_counts") == "fewer from the next":
        following = (position + 1) % SIZE
        changes["recv_counts"] = [c - (i == following) for i, c in enumerate(right["recv_counts"])]
    if changes.get("rows") == "wider":
        changes["rows"] = torch.randn(right["rows"].shape[0], 6, requires_grad=True)
    if changes.get("rows") == "frozen":
        changes["rows"] = right["rows"].detach()
    return rows_call(group, rank, **changes)


def attempt(body: Any) -> tuple[str, str, float]:
    """Type and text of the exception (empty if none), and the seconds it took."""
    start = time.monotonic()
    try:
        body()
    except Exception as error:
        return type(error).__name__, str(error), time.monotonic() - start
    return "", "", time.monotonic() - start


def cases() -> list[tuple[str, dict[str, Any], str, bool]]:
    wrong = [("ring", changes, message, False) for changes, message in WRONG_RING_CALLS]
    wrong += [("rows", changes, message, False) for changes, message in WRONG_ROWS_CALLS]
    return wrong + [(operation, changes, what, True) for operation, changes, what in DISAGREEMENTS]


def cases_over_gloo() -> list[int]:
    """All disagreements, which Gloo would answer with a SIGABRT, and a part of the wrong calls: all of them run over
    threads."""
    return [i for i, (_, _, _, disagreement) in enumerate(cases()) if disagreement or i % 5 == 0]


def one_rank_errs(world: World) -> list[tuple[str, str, float]]:
    results = []
    for index in cases_over_gloo():
        operation, changes, _, _ = cases()[index]
        group = world.new_group()
        mine = changes if world.rank == index % SIZE else {}
        results.append(attempt(lambda o=operation, g=group, c=mine: call(o, g, world.rank, c)))
    return results


def one_thread_errs(rank: int, group: str, index: int) -> tuple[str, str, float]:
    operation, changes, _, _ = cases()[index]
    return attempt(lambda: call(operation, group, rank, changes if rank == index % SIZE else {}))


def check_case(index: int, ranks: list[tuple[str, str, float]]) -> None:
    """`ranks`: what each rank met in case `index`."""
    _, changes, message, disagreement = cases()[index]
    guilty = index % SIZE
    note = f"case {index}, {changes}: {ranks}"
    for rank, (kind, text, seconds) in enumerate(ranks):
        assert seconds < SECONDS, note
        if disagreement:
            assert kind == "DistError", note
            assert re.match(rf"rank \d.* and rank \d disagree about .*: {message}: ", text), note
            assert f"rank {guilty} " in text.splitlines()[0], note
        elif rank == guilty:
            assert kind == "ValueError", note
            assert re.match(rf"(ring_attention|exchange_rows): {message}", text), note
        else:
            assert kind == "DistError", note
            assert re.match(rf"rank {guilty}: (ring_attention|exchange_rows): {message}", text), note
            assert f"seen by rank {rank}, in " in text, note


def test_wrong_calls_over_gloo() -> None:
    per_rank = values(run_processes(one_rank_errs, SIZE))
    for i, index in enumerate(cases_over_gloo()):
        check_case(index, [results[i] for results in per_rank])


@pytest.mark.parametrize("index", range(len(cases())))
def test_wrong_calls_over_threads(index: int) -> None:
    check_case(index, values(run_threads(one_thread_errs, SIZE, index)))


def test_a_group_of_one_needs_no_process_group_and_says_what_is_wrong() -> None:
    q = torch.randn(12, 4, 8)
    with pytest.raises(ValueError, match=r"ring_attention: seq_tokens\[0\]: found -12"):
        ring_call("", seq_tokens=[-12], ranks=[0])
    with pytest.raises(ValueError, match=r'no process group named "nowhere"'):
        ring_call("nowhere", q=q)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        a = ring_arguments() | {"seq_tokens": [12], "ranks": [0]}
        torch.autograd.grad(ring_call("", **a).sum(), a["q"], create_graph=True)


def failure_stays(world: World) -> list[tuple[str, str, float]]:
    group = world.new_group()
    torch.ops.dhp.set_label(group, f"step 12, task {world.rank}")
    results = []
    if world.rank == 1:  # an error outside the operations, as a training loop reports it
        torch.ops.dhp.report_failure(group, "rank 1: no space left on device")
    results.append(attempt(lambda: ring_call(group)))
    results.append(attempt(lambda: rows_call(group, world.rank)))
    results.append(attempt(lambda: ring_call(world.new_group())))  # another group works
    assert torch.ops.dhp.failure(group) == "rank 1: no space left on device"
    return results


def test_a_failure_stays_and_carries_the_label() -> None:
    for rank, results in enumerate(values(run_processes(failure_stays, SIZE))):
        first, second, other = results
        assert re.match(r"rank 1: no space left on device\n  seen by rank", first[1])
        assert f"rank {rank} (step 12, task {rank})" in first[1]
        assert "rank 1: no space left" in second[1]
        assert second[2] < SECONDS
        assert other[0] == ""


def differs_after_a_collective(world: World) -> tuple[str, str, float]:
    group = world.new_group()
    ring_call(group)
    torch.ops.dhp.enter_collective(group, "sum")
    torch.ops.dhp.leave_collective(group)
    return attempt(lambda: ring_call(group, scale=0.36 if world.rank == 1 else ring_arguments()["scale"]))


def test_after_a_collective_repeated_calls_are_compared_again() -> None:
    """Else three ranks would take the fourth for one that repeats, and wait for what it does not send."""
    for kind, text, seconds in values(run_processes(differs_after_a_collective, SIZE)):
        assert kind == "DistError"
        assert re.match(r"rank \d.* and rank \d disagree about ring_attention forward: scale: ", text), text
        assert seconds < SECONDS


WAIT_S = 3.0


def expired_wait(world: World) -> tuple[str, str, float]:
    group = world.new_group()
    torch.ops.dhp.configure_group(group, WAIT_S)
    world.meet("ready")  # else the time that a rank takes to get here would be waited for
    if world.rank == 3:
        world.meet("late")
        return attempt(lambda: ring_call(group))
    result = attempt(lambda: ring_call(group))
    world.meet("late")
    return result


def expired_backward(world: World) -> tuple[str, str, float]:
    group = world.new_group()
    out = ring_call(group)
    torch.ops.dhp.configure_group(group, WAIT_S)
    world.meet("ready")
    if world.rank == 3:  # forgets the backward pass
        world.meet("late")
        return attempt(lambda: None)
    result = attempt(lambda: out.sum().backward())
    world.meet("late")
    return result


@pytest.mark.parametrize("function", [expired_wait, expired_backward])
def test_an_expired_wait_names_the_peer(function: Any) -> None:
    results = values(run_processes(function, SIZE))
    direction = "backward" if function is expired_backward else "forward"
    # Ring [2, 0, 3, 1]: rank 1 waits for rank 3, the others for each other, and whoever is first tells.
    for rank in (0, 1, 2):
        kind, text, seconds = results[rank]
        assert kind == "DistError"
        assert re.match(
            r"rank 3 \(host .*, pid \d+\) keeps the others waiting, busy for \d+ s: "
            rf"rank \d, in ring_attention {direction}, .*"
            rf"(waiting for data from|sending to) rank \d: nothing came for 3 s",
            text,
        ), text
        assert WAIT_S - 0.5 < seconds < SECONDS
    if function is expired_wait:
        assert re.match(r"rank 3 \(host .*, pid \d+\) keeps the others waiting", results[3][1])


def introduce(group: str, rank: int) -> None:
    """The store knows its name from here on."""
    assert any(torch.ops.dhp.pulse(group, rank) >= 0 for _ in range(10)), "the store does not answer"


def lose_a_rank(world: World, lost: int, delay_s: float, ring: list[int], exchange: str) -> tuple[str, str, float]:
    group = world.new_group()
    introduce(group, world.rank)
    world.meet("start")
    world.leave(last=lost)
    if world.rank == lost:
        threading.Timer(delay_s, kill_self).start()
    tokens = 2 * len(ring) * 128
    rows = tokens // len(ring)

    def work() -> None:
        while True:
            q = torch.randn(rows, 8, 32, requires_grad=True)
            k, v = torch.randn(rows, 8, 32), torch.randn(rows, 8, 32)
            out = torch.ops.dhp.ring_attention(q, k, v, [tokens], ring, group, 0.2, True, exchange, [0, 0, 1, 1])
            out.sum().backward()

    def wait_for_the_ring() -> None:
        ranks = [ring[0], world.rank]
        torch.ops.dhp.exchange_rows(torch.randn(0, 3), [0, 0], [1, 0], ranks, group)

    return attempt(work if world.rank in ring else wait_for_the_ring)


@pytest.mark.parametrize(
    ("lost", "hosted", "exchange"),
    [(2, False, "ring"), (0, False, "ring"), (0, True, "ring"), (2, False, "direct"), (0, False, "hierarchical")],
)
def test_a_killed_rank_is_named(lost: int, hosted: bool, exchange: str) -> None:
    """In a ring of four of five ranks; the fifth waits for a member of the ring, which will never come to it."""
    ring = [3, 0, 2, 1]
    outcomes = run_processes(lose_a_rank, 5, lost, 0.5, ring, exchange, hosted=hosted)
    for rank, outcome in enumerate(outcomes):
        if rank == lost:
            assert outcome.exit_code == -signal.SIGKILL, outcome
            continue
        assert outcome.exit_code == 0, outcome
        assert not outcome.error, outcome
        kind, text, seconds = outcome.value
        assert kind == "DistError"
        assert seconds < SECONDS
        if hosted:  # the store died with the rank: those without a connection to it can only say so
            assert re.match(r"rank \d \(.*\) was lost|the store of the process group is gone", text), text
            assert "rank 0" in text, text
        else:
            name = rf"rank {lost} \(host .*, pid \d+\)"
            assert re.match(
                rf"{name} was lost \(seen by rank \d, in (ring_attention (for|back)ward|exchange_rows)", text
            )
            assert f"{exchange} step" in text or "comparing" in text, text


def stopped_rank(world: World, stopped: int) -> tuple[str, str, float]:
    group = world.new_group()
    ring_call(group).sum().backward()
    torch.ops.dhp.configure_group(group, WAIT_S)
    world.meet("warm")
    world.leave(last=stopped)
    if world.rank == stopped:
        time.sleep(0.2)  # the others have their answers
        os.kill(os.getpid(), signal.SIGSTOP)  # neither dead nor alive
    return attempt(lambda: ring_call(group))


def is_stopped(pid: int | None) -> bool:
    """Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False  # it has ended


def await_stopped() -> list[int]:
    """The children that have stopped, however long they took to start; none after five minutes."""
    deadline = time.monotonic() + 300
    found: list[int] = []
    while not found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = [child.pid for child in multiprocessing.active_children() if child.pid and is_stopped(child.pid)]
    return found


def paused_pulse(world: World) -> int:
    group = world.new_group()
    if world.rank == 0:
        world.store.set("host", str(os.getpid()))
    introduce(group, world.rank)
    world.meet("warm")
    host = int(world.store.get("host"))
    world.leave(last=0)
    if world.rank == 0:
        time.sleep(0.2)  # the other has its answer
        os.kill(host, signal.SIGSTOP)
    while world.rank == 1 and not is_stopped(host):
        time.sleep(0.01)
    return torch.ops.dhp.pulse(group, 0)


def test_a_rank_that_was_paused_itself_waits_on() -> None:
    """The rank that hosts the store stops, then the other as it waits for an answer, which goes on first. The time in
    which it was stopped does not count against the host."""

    def stop_and_wake() -> None:
        host = await_stopped()
        time.sleep(0.3)  # the other waits
        other = [c.pid for c in multiprocessing.active_children() if c.pid and c.pid not in host]
        steps = ((other, signal.SIGSTOP, 5), (other, signal.SIGCONT, 1), (host, signal.SIGCONT, 0))
        for pids, number, pause_s in steps:
            for pid in pids:
                os.kill(pid, number)
            time.sleep(pause_s)

    waker = threading.Thread(target=stop_and_wake)
    waker.start()
    outcomes = run_processes(paused_pulse, 2, hosted=True)
    waker.join()
    assert all(pulse >= 0 for pulse in values(outcomes)), outcomes


@pytest.mark.parametrize("hosted", [False, True])
def test_a_frozen_rank_expires_the_waits(hosted: bool) -> None:
    """Also where the frozen rank hosts the store, which then answers nobody. In the end it goes on, and is told."""

    def wake() -> None:
        """Some time after the rank has frozen."""
        frozen = await_stopped()
        time.sleep(3 * WAIT_S)  # the others' waits, and what they ask of the store then
        for child in frozen:
            os.kill(child, signal.SIGCONT)

    waker = threading.Thread(target=wake)
    waker.start()
    outcomes = run_processes(stopped_rank, SIZE, 0, hosted=hosted)
    waker.join()
    results = values(outcomes)
    for kind, text, seconds in results[1:]:
        assert kind == "DistError"
        assert "nothing came for 3 s" in text, text
        assert seconds < SECONDS
        if hosted:
            assert "the store of the process group does not answer, so the cause may be its host (rank 0" in text, text
        else:
            assert re.match(r"rank 0 \(host .*, pid \d+\) does not answer: it hangs, or its host is cut off", text), (
                text
            )
    assert results[0][0] == "DistError"
