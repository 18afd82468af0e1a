"""Latency and bandwidth between ranks, as shards see them: point to point over what carries the run's traffic."""

from __future__ import annotations

import os
import statistics
import time

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
    stream = _stream(following, preceding, repeats)
    worst = run.max(torch.tensor([latency, stream], dtype=torch.float64)).tolist()
    return Link(bandwidth_bytes_per_s=STREAM_BYTES / worst[1], latency_s=worst[0])


def _ping(run: Run, other: int, repeats: int) -> float:
    """Ranks 0 and `other`, alone; 0 elsewhere."""
    run.barrier()
    if run.rank not in (0, other):
        return 0.0
    peer = other if run.rank == 0 else 0
    buffer = torch.zeros(PING_BYTES, dtype=torch.uint8)
    times = []
    for _ in range(repeats + 5):
        started = time.perf_counter()
        if run.rank == 0:
            dist.send(buffer, peer)
            dist.recv(buffer, peer)
        else:
            dist.recv(buffer, peer)
            dist.send(buffer, peer)
        times.append((time.perf_counter() - started) / 2)
    return statistics.median(times[5:])


def _stream(following: int, preceding: int, repeats: int) -> float:
    """Seconds of one message to the next rank while one comes from the rank before."""
    outgoing = torch.zeros(STREAM_BYTES, dtype=torch.uint8)
    incoming = torch.empty(STREAM_BYTES, dtype=torch.uint8)
    times = []
    for _ in range(max(5, repeats // 5) + 2):
        started = time.perf_counter()
        waits = [dist.irecv(incoming, preceding), dist.isend(outgoing, following)]
        for wait in waits:
            assert wait is not None
            wait.wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])
