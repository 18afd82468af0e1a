"""Gradients of all tasks and ranks, summed: after it, no trace is left of who ran what."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import torch

from dhp.run.runtime import Run, current_run

BUCKET_BYTES = 32 << 20


def reduce_gradients(parameters: torch.nn.Module | Iterable[torch.nn.Parameter], run: Run | None = None) -> bool:
    """Sums `.grad` of every parameter over all ranks, in place. Every rank calls it once, after its last task. `run`
    defaults to the current run.

    A gradient that is missing on some ranks counts as zero there. One that is missing on *all* ranks stays None: a
    zero gradient would still let AdamW decay the weight.

    Returns whether this rank's own gradients were finite. With one rank they are not checked, since the sum shows it.
    """
    if isinstance(parameters, torch.nn.Module):
        parameters = parameters.parameters()
    run = run or current_run()
    wanted = [p for p in parameters if p.requires_grad]
    if run.world_size == 1 or not wanted:
        return True
    used = list(itertools.compress(wanted, used_somewhere(wanted, run)))
    finite = True
    for bucket in buckets_of(used, BUCKET_BYTES):
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
        finite = finite and bool(torch.isfinite(flat.sum()))
        run.sum(flat)
        offset = 0
        for p in bucket:
            p.grad = flat[offset : offset + p.numel()].view_as(p)
            offset += p.numel()
    return finite


def used_somewhere(parameters: list[torch.nn.Parameter], run: Run) -> list[bool]:
    """By parameter, whether any rank has a gradient of it. Every rank calls it."""
    return run.max(torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)).bool().tolist()


def buckets_of(parameters: list[torch.nn.Parameter], about_bytes: int) -> Iterator[list[torch.nn.Parameter]]:
    """Consecutive parameters of one dtype, about so many bytes together."""
    bucket: list[torch.nn.Parameter] = []
    size = 0
    for p in parameters:
        if bucket and (size >= about_bytes or p.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.nbytes
    if bucket:
        yield bucket
