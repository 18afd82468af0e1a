"""What benchmarks share: sides that take turns, numbers as a median with least and most, and processes that are ranks.

Times are CPU time: waiting costs nothing, and a busy neighbour little.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def in_turns(sides: Mapping[str, Callable[[], T]], repeats: int, warm_up: int = 1) -> dict[str, list[T]]:
    """Calls every side once a round, so that all meet the same load; each round begins with another side. What they
    return, by side, without the rounds that warm up."""
    names = list(sides)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(warm_up + repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            result = sides[name]()
            if number >= warm_up:
                results[name].append(result)
    return results


def thread_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of this thread in one call."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def process_seconds(call: Callable[[], object]) -> float:
    """CPU seconds of all threads of this process in one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def over(values: Iterable[float], base: Iterable[float]) -> list[float]:
    """Ratios, round by round."""
    return [value / one for value, one in zip(values, base, strict=True)]


def span(values: list[float], form: str = ".2f") -> str:
    """Median (least to most)."""
    middle, least, most = (f"{value:{form}}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})" if len(values) > 1 else middle


def machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def on_ranks(count: int, work: Callable[..., T], *arguments: Any) -> list[T]:
    """`work(rank, *arguments)` in as many processes, of one torch thread each, whose default process group is Gloo's;
    what it returns, by rank. `work` is a function of a module."""
    import torch.distributed as dist

    server = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        arguments_of_rank = (theirs, count, server.port, rank, work, arguments)
        process = context.Process(target=_rank, args=arguments_of_rank, daemon=True)  # ends with us where one is lost
        process.start()
        theirs.close()  # so that a rank that dies ends the wait for what it returns
        pipes.append(ours)
        processes.append(process)
    results = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join()
    return results


def _rank(pipe: Any, count: int, port: int, rank: int, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, count, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count)
    pipe.send(work(rank, *arguments))
    dist.barrier()
    dist.destroy_process_group()
