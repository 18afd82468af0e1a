"""Latency and bandwidth between ranks, as shards see them: point to point over what carries the run's traffic."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist

from dhp._core import Link
from dhp.run.runtime import Run

PING_BYTES, STREAM_BYTES = 8, 4 << 20


def ranks_per_node(run: Run) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", run.world_size))


def measure_links(run: Run, repeats: int = 50) -> tuple[Link | None, Link | None]:
    """(inside a node, between nodes), None where there is no such pair. Collective.

    Latency: half of a round trip of 8 bytes between two ranks, median. Bandwidth: what a rank sends while every rank
    sends 4 MiB to its next one and receives as much, as all rings of a step do at once; the slowest rank's median.
    """
    size = ranks_per_node(run)
    nodes = run.world_size // size
    inside = _link(run, 1, size, repeats) if size > 1 else None
    between = _link(run, size, run.world_size, repeats) if nodes > 1 else None
    return inside, between


def _link(run: Run, stride: int, ring: int, repeats: int) -> Link:
    """Between ranks `stride` apart, in rings of `ring` consecutive ranks."""
    first = run.rank // ring * ring
    following = first + (run.rank - first + stride) % ring
    preceding = first + (run.rank - first - stride) % ring
    latency = _ping(run, stride, repeats)
    stream = _stream(run, following, preceding, repeats)
    worst = run.max(torch.tensor([latency, stream], dtype=torch.float64)).tolist()
    return Link(bandwidth_bytes_per_s=STREAM_BYTES / worst[1], latency_s=worst[0])


def _ping(run: Run, other: int, repeats: int) -> float:
    """Ranks 0 and `other`, alone; 0 elsewhere."""
    run.barrier()
    if run.rank not in (0, other):
        return 0.0
    peer = other if run.rank == 0 else 0
    buffer = torch.zeros(PING_BYTES, dtype=torch.uint8, device=run.device)
    there, back = [(dist.isend, buffer, peer)], [(dist.irecv, buffer, peer)]
    turns = (there, back) if run.rank == 0 else (back, there)

    def round_trip() -> None:
        for turn in turns:
            _transfer(run, turn)

    return _median_s(run, round_trip, repeats, unmeasured=5) / 2


def _stream(run: Run, following: int, preceding: int, repeats: int) -> float:
    """Seconds of one message to the next rank while one comes from the rank before."""
    outgoing = torch.zeros(STREAM_BYTES, dtype=torch.uint8, device=run.device)
    incoming = torch.empty_like(outgoing)
    both = [(dist.irecv, incoming, preceding), (dist.isend, outgoing, following)]
    return _median_s(run, lambda: _transfer(run, both), max(5, repeats // 5), unmeasured=2)


def _transfer(run: Run, transfers: list[tuple[Any, torch.Tensor, int]]) -> None:
    """All at once, on a device as one group, and waits for them: on a device the current stream does, and the watch
    ends what hangs."""
    operations = [dist.P2POp(start, buffer, run.members[peer], run.group) for start, buffer, peer in transfers]
    for work in dist.batch_isend_irecv(operations):
        if run.device.type != "cpu":
            torch.ops.dhp.watch_work(run.traffic, work.boxed(), "the measuring of links")
        work.wait()


def _median_s(run: Run, transfer: Callable[[], Any], repeats: int, unmeasured: int) -> float:
    """Of one call, by the clock of what carries the transfers: the host's, or that of a device, which comes later."""
    marks: list[Any] = []
    for _ in range(unmeasured + repeats + 1):
        if run.device.type == "cpu":
            marks.append(time.perf_counter())
        else:
            marks.append(torch.Event(run.device.type, enable_timing=True))
            marks[-1].record()
        transfer()
    if run.device.type != "cpu":
        torch.accelerator.synchronize()
        run.check_device()  # else the seconds may be of transfers that were aborted
        return statistics.median(a.elapsed_time(b) / 1e3 for a, b in pairwise(marks[unmeasured:]))
    return statistics.median(b - a for a, b in pairwise(marks[unmeasured:]))
