"""Failures on a device, where no host waits for a transfer: every rank ends in seconds, with the cause first."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from ranks import World, kill_self, run_processes

SIZE = 3
WAIT_S = 3.0
LONG_S = 20.0  # a time-out that no rank comes to, however busy the machine is
SECONDS = 15.0  # beyond the time-out, for a rank that hangs


def attend(world: World, group: str, nodes: list[int], tokens: int = 48) -> float:
    """A step of a training loop: operations are enqueued, then the host reads a number, and asks for failures."""
    q = torch.randn(tokens // SIZE, 4, 8, device="late", requires_grad=True)
    exchange = "hierarchical" if nodes else "ring"
    out = torch.ops.dhp.ring_attention(q, q, q, [tokens], [0, 1, 2], group, 0.3, True, exchange, nodes)
    out.sum().backward()
    read = q.grad.sum().item()
    if cause := torch.ops.dhp.known_failure(group):  # the number is of aborted transfers
        raise RuntimeError(cause)
    return read


def fail(world: World, fault: str, nodes: list[int], errors: Path) -> tuple[str, float]:
    """What ends this rank, and after how long. Rank 1 is the one that fails; what it says goes to `errors`."""
    import late

    if world.rank == 1:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    late.arrange("eager", "eager")
    group = world.new_group(backend=late.BACKEND)
    if nodes:
        torch.ops.dhp.set_far_group(group, world.new_group(backend="late:lateccl"))
    torch.ops.dhp.configure_group(group, WAIT_S if fault == "hangs" else LONG_S)
    torch.ops.dhp.set_label(group, "step 1")
    attend(world, group, nodes)
    if fault == "hangs" and world.rank != 1:
        time.sleep(0.7)  # rank 1 tells that it waits, which is not so any more in step 2
    attend(world, group, nodes)
    world.meet("warm")
    began = time.monotonic()
    torch.ops.dhp.set_label(group, "step 2")
    try:
        if world.rank == 1:
            if fault == "killed":
                late.device.stall(60.0)  # its shard is never sent
                threading.Timer(1.0, kill_self).start()
            if fault == "hangs":
                late.device.stall(3600.0)
            if fault == "raises":
                attend(world, group, nodes, 47)
            if fault == "operator":  # an error of a kernel, which the host hears of later
                torch.nn.functional.embedding(torch.tensor([7], device="late"), torch.ones(2, 2, device="late"))
        while True:
            attend(world, group, nodes)
    except (RuntimeError, ValueError) as error:
        torch.ops.dhp.report_failure(group, f"rank {world.rank}: {error}")
        return str(error), time.monotonic() - began


EXPECTED = {
    "killed": r"rank 1 \(host .*, pid \d+\) was lost",
    "hangs": r"rank 1 \(host .*, pid \d+\) keeps the others waiting",
    "raises": r"rank 1( \(step 2\))?: ring_attention: seq_tokens\[0\]: found 47",
    "operator": r"rank 1: aten::.*out of range",
}


@pytest.mark.parametrize(
    ("fault", "nodes"), [*((fault, []) for fault in EXPECTED), ("killed", [0, 1, 2]), ("hangs", [0, 1, 1])]
)
def test_every_rank_ends_and_the_cause_comes_first(fault: str, nodes: list[int], tmp_path: Path) -> None:
    """With nodes, what is lost may be on the far lane."""
    errors = tmp_path / "errors"
    outcomes = run_processes(fail, SIZE, fault, nodes, errors, seconds=60)
    for rank, outcome in enumerate(outcomes):
        if rank == 1 and fault in ("killed", "hangs"):
            assert outcome.exit_code == (-signal.SIGKILL if fault == "killed" else 1)
            continue
        assert not outcome.error, outcome
        text, took_s = outcome.value
        assert took_s < SECONDS + (WAIT_S if fault == "hangs" else 0.0)
        if rank != 1:
            assert re.match(EXPECTED[fault], text), text
    if fault == "hangs":  # its own host waits for a kernel that never ends
        assert "rank 1" in (said := errors.read_text())
        assert "waits for its device, which does not answer" in said
