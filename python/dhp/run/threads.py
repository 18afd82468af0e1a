"""Ranks as threads of this process, to try things on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


def run_threads(function: Callable[[int, str], Any], size: int, name: str, device: str = "cpu") -> list[Any]:
    """Runs `function(rank, group)` in `size` threads over the in-process transport, for tensors of a device: what each
    returned, or the Exception that ended it, of which the others are told. `name` is one that no group has."""
    # A forked process makes its engine of autograd anew at the first backward pass, and two threads at once crash it:
    # the flag that asks for it is read and reset without a lock (torch 2.13, PythonEngine::get_python_engine).
    torch.ones(1, requires_grad=True).sum().backward()
    torch.ops.dhp.create_thread_groups(name, size, device)
    results: list[Any] = [None] * size

    def body(rank: int) -> None:
        try:
            results[rank] = function(rank, f"{name}/{rank}")
        except Exception as error:
            results[rank] = error
            torch.ops.dhp.report_failure(f"{name}/{rank}", f"rank {rank}: {error}")

    threads = [threading.Thread(target=body, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in range(size):
        torch.ops.dhp.release_group(f"{name}/{rank}")
    return results
