"""Processes that read for another one: programs of their own, started with nothing but a pipe. A fork would break the
tokenizer and share the sockets of ranks, and a new start of the caller's own program might do what it does anew."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

_WAIT_S = 5.0  # for processes to end once their pipes are closed


@dataclass(frozen=True)
class Started:
    """A process, and this end of its pipe: it ends when that is closed."""

    process: subprocess.Popen[bytes]
    pipe: Connection[Any, Any]

    def how_ended(self) -> str:
        """Waits for its end."""
        code = self.process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def start(module: str, setup: object) -> Started:
    """`python -m module HANDLE`, the handle of its end of the pipe, from which it reads `setup`. Raises OSError."""
    ours, theirs = Pipe()
    command = [sys.executable, "-m", module, str(theirs.fileno())]
    try:
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    with contextlib.suppress(OSError):  # it has ended already: its pipe says so when it is read
        ours.send(setup)
    return Started(process, ours)


def pipe_of_parent() -> Connection[Any, Any]:
    """In a process that `start` has started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started this
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # there are other processes for the other cores
    return Connection(int(sys.argv[1]))


def end(started: Iterable[Started]) -> None:
    """Ends them all, within seconds: one that the system itself cannot end, as behind a dead mount, is left alone."""
    every = list(started)
    for one in every:
        one.pipe.close()
        one.process.terminate()
    for how in ("", "kill"):
        until = time.monotonic() + _WAIT_S
        for one in every:
            if how:
                one.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.0, until - time.monotonic()))


__all__ = ["Started", "end", "pipe_of_parent", "start"]
