"""Ranks that no launcher of dhp starts, as a script or SLURM would: RANK and so on are set; each has a log."""

from __future__ import annotations

import atexit
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhp.run import commands
from ranks import context


@dataclass
class Rank:
    process: Any
    log: Path

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def _main(work: Callable[..., int], environment: dict[str, str], log: str, args: tuple[Any, ...]) -> None:
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    commands.end_on_interrupt()
    try:
        code = work(*args)
    finally:
        atexit._run_exitfuncs()  # a forked process leaves them out
    commands.end(code)


def train(*words: str) -> int:
    from dhp.train import main

    return main(list(words))


def start_ranks(work: Callable[..., int], size: int, folder: Path, *args: Any, **environment: str) -> list[Rank]:
    """Each runs `work(*args)`, and ends with the code that it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    ranks = []
    for rank in range(size):
        log = folder / f"rank{rank}.txt"
        place = {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        process = context.Process(target=_main, args=(work, {**place, **environment}, str(log), args))
        process.start()
        ranks.append(Rank(process, log))
    return ranks


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def all_said(ranks: list[Rank], pattern: str, seconds: float = 120) -> None:
    """Waits until each has said what matches."""
    if not wait_until(lambda: all(re.search(pattern, rank.said(), re.MULTILINE) for rank in ranks), seconds):
        end_all(ranks)
        raise AssertionError(f"not said after {seconds} s: {pattern}: {[rank.said() for rank in ranks]}")


def end_all(ranks: list[Rank], seconds: float = 0) -> list[int | None]:
    """How they ended, None for those that had to be killed after `seconds`."""
    wait_until(lambda: all(rank.process.exitcode is not None for rank in ranks), seconds)
    codes = [rank.process.exitcode for rank in ranks]
    for rank in ranks:
        if rank.process.exitcode is None:
            rank.process.kill()
        rank.process.join()
    return codes


def causes(ranks: list[Rank]) -> list[str]:
    """What each gave as the reason of its end; "" where it gave none, because another has said the same."""
    found = [re.findall(r"^dhp: error: (.*)$", rank.said(), re.MULTILINE) for rank in ranks]
    return [lines[0] if lines else "" for lines in found]
