"""Ranks that are threads of one process: the collectives of dhp.run.runtime.Run without processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


class ThreadRun:
    """The collectives of dhp.run.runtime.Run for ranks that are threads of one process."""

    def __init__(self, rank: int, size: int, shared: dict[str, Any]) -> None:
        self.rank, self.world_size, self._shared = rank, size, shared
        self.device = torch.device("cpu")

    def _all(self, value: Any) -> list[Any]:
        values, barrier = self._shared["values"], self._shared["barrier"]
        values[self.rank] = value
        barrier.wait(timeout=240)
        everyone = list(values)
        barrier.wait(timeout=240)
        return everyone

    def max(self, values: torch.Tensor) -> torch.Tensor:
        return values.copy_(torch.stack(self._all(values.clone())).amax(0))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values.copy_(torch.stack(self._all(values.clone())).sum(0))

    def gather(self, value: Any) -> list[Any]:
        everyone = self._all(value)
        return everyone if self.rank == 0 else []

    def from_rank_0(self, value: Any) -> Any:
        return self._all(value)[0]

    def all(self, value: Any) -> list[Any]:
        return self._all(value)

    def barrier(self) -> None:
        self._all(None)


def on_threads(size: int, work: Callable[[Any], Any]) -> list[Any]:
    """What `work(run)` returned on each rank, or the error that it raised."""
    shared: dict[str, Any] = {"values": [None] * size, "barrier": threading.Barrier(size)}
    results: list[Any] = [None] * size

    def body(rank: int) -> None:
        try:
            results[rank] = work(ThreadRun(rank, size, shared))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=body, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
