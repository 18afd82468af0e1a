"""Runs a function on several ranks: as processes over Gloo, or as threads of this process."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dhp.run import ops, threads

ops.load()

# All is imported once, in the server, and not again in every rank. One thread a rank: ranks outnumber cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
context = multiprocessing.get_context("forkserver")
_PRELOADED = ["torch", "torch.distributed", "dhp.train", "dhp.cost.calibrate", "dhp.models.adapter"]
context.set_forkserver_preload([*_PRELOADED, "dhp.models.qwen_vl", "transformers.models.qwen3_vl.modeling_qwen3_vl"])

# Long enough for a machine that is busy with other work; what fails in a test fails in far less.
TIMEOUT_S = 180.0
GRACE_S = 60.0  # for the others, after a rank has ended with an exception
FAILED_KEY = "failed"


@dataclass
class World:
    """What a rank knows of its run."""

    rank: int
    size: int
    store: dist.Store
    _groups: list[dist.ProcessGroup] = field(default_factory=list)

    def new_group(self, timeout_s: float = TIMEOUT_S, backend: str | None = None) -> str:
        """The name of a fresh process group over all ranks: a failure of one group leaves the others alone."""
        group = dist.new_group(list(range(self.size)), timeout=timedelta(seconds=timeout_s), backend=backend)
        self._groups.append(group)
        return group.group_name

    def meet(self, name: str) -> None:
        """Waits for all ranks, without any process group. Raises if one has ended with an exception."""
        self.store.add(name, 1)
        self.await_all(name)

    def await_all(self, name: str) -> None:
        """Waits until all ranks have added 1 to `name`."""
        while self.store.add(name, 0) < self.size:
            if self.store.check([FAILED_KEY]):
                raise RuntimeError(f"waiting for all at {name}: {self.store.get(FAILED_KEY).decode()}")
            time.sleep(0.01)

    def leave(self, last: int) -> None:
        """Rank `last` waits until all have come here: they need no store any more that it may host."""
        self.store.add("left", 1)
        if self.rank == last:
            self.await_all("left")


@dataclass
class Outcome:
    """How a rank ended: what it returned, or the text of its exception, or where it was as it crashed; exit code 0
    unless a signal killed it."""

    value: Any = None
    error: str = ""
    exit_code: int | None = None


def _rank_main(
    function: Callable[..., Any], rank: int, size: int, port: int, pipe: Any, stacks: Path, args: Any
) -> None:
    """`port`: of the store; 0: this rank hosts it, on a free port that it tells first. `stacks`: a folder."""
    faulthandler.enable(_open_stacks(stacks, rank))
    torch.set_num_threads(1)
    timeout = timedelta(seconds=TIMEOUT_S)
    store = dist.TCPStore("127.0.0.1", port, None, is_master=port == 0, timeout=timeout, wait_for_workers=False)
    if port == 0:
        pipe.send(("port", store.port))
    dist.init_process_group("gloo", store=dist.PrefixStore("main", store), rank=rank, world_size=size, timeout=timeout)
    world = World(rank, size, dist.PrefixStore("test", store))
    try:
        pipe.send(("value", function(world, *args)))
        with contextlib.suppress(EOFError, OSError):
            pipe.recv()  # all have said theirs: who ends earlier breaks connections that others still read from
    except BaseException as error:
        pipe.send(("error", traceback.format_exc()))
        with contextlib.suppress(RuntimeError):  # the store has ended
            world.store.set(FAILED_KEY, f"rank {rank} failed: {error!r}")
    torch.ops.dhp.release_all_groups()


def _open_stacks(folder: Path, rank: int) -> Any:
    """Where the threads of a rank were when it crashed; stays open. What it prints may be anywhere by then."""
    return (folder / str(rank)).open("w")


def _stacks_of(folder: Path, rank: int) -> str:
    with contextlib.suppress(OSError):
        return (folder / str(rank)).read_text().partition("\nExtension modules:")[0]
    return ""


def _end(process: Any) -> None:
    """After it has written where its threads are, if it can."""
    os.kill(process.pid, signal.SIGABRT)
    process.join(10)
    process.kill()
    process.join()


def run_processes(
    function: Callable[..., Any], size: int, *args: Any, seconds: float = 600, hosted: bool = False
) -> list[Outcome]:
    """Runs `function(world, *args)` in `size` processes over Gloo. The store lives in this process, as torchrun has
    it, or if `hosted` in rank 0. Ends what has not ended after `seconds`."""
    with tempfile.TemporaryDirectory() as stacks:
        return _run_processes(function, size, args, seconds, hosted, Path(stacks))


def _run_processes(
    function: Callable[..., Any], size: int, args: Any, seconds: float, hosted: bool, stacks: Path
) -> list[Outcome]:
    server = None if hosted else dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    port = server.port if server else 0
    pipes, processes = [], []
    for rank in range(size):
        ours, theirs = context.Pipe()
        process = context.Process(target=_rank_main, args=(function, rank, size, port, theirs, stacks, args))
        process.start()
        theirs.close()
        if port == 0:
            _, port = ours.recv()
        pipes.append(ours)
        processes.append(process)
    outcomes = [Outcome() for _ in range(size)]
    deadline = _collect(pipes, outcomes, time.monotonic() + seconds)
    for pipe in pipes:
        pipe.close()
    for rank, (outcome, process) in enumerate(zip(outcomes, processes, strict=True)):
        process.join(max(1.0, deadline - time.monotonic()))
        if process.exitcode is None:
            _end(process)
            outcome.error += " (still running after the time given: ended)"
        outcome.exit_code = process.exitcode
        outcome.error += _stacks_of(stacks, rank)
    return outcomes


def _collect(pipes: list[Any], outcomes: list[Outcome], deadline: float) -> float:
    """What the ranks say of themselves; until when they may run. A failed one lets the others no longer wait for it."""
    silent = dict(zip(pipes, outcomes, strict=True))
    while silent and (left := deadline - time.monotonic()) > 0:
        for pipe in multiprocessing.connection.wait(list(silent), left):
            outcome = silent.pop(pipe)
            with contextlib.suppress(EOFError):  # it died; the exit code tells
                kind, content = pipe.recv()
                setattr(outcome, kind, content)
            if outcome.error:
                deadline = min(deadline, time.monotonic() + GRACE_S)
    return deadline


def values(outcomes: list[Outcome]) -> list[Any]:
    """What the ranks returned; fails with the text of those that did not."""
    problems = [f"rank {i}: exit {o.exit_code} {o.error}" for i, o in enumerate(outcomes) if o.error or o.exit_code]
    assert not problems, "\n".join(problems)
    return [outcome.value for outcome in outcomes]


def run_threads(
    function: Callable[..., Any], size: int, *args: Any, name: str = "test", device: str = "cpu"
) -> list[Outcome]:
    """Runs `function(rank, group, *args)` in `size` threads over the in-process transport."""
    results = threads.run_threads(lambda rank, group: function(rank, group, *args), size, name, device)
    return [
        Outcome(error=f"{type(result).__name__}: {result}", exit_code=0)
        if isinstance(result, Exception)
        else Outcome(value=result, exit_code=0)
        for result in results
    ]


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
