"""Starts the local ranks of `dhp train` and `dhp calibrate`, watches them, and says which one failed first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Collection
from datetime import timedelta

import torch.distributed as dist

from dhp.output import complain
from dhp.runtime import LOST_KEY

GRACE_S = 20.0  # how long survivors may take to say what they saw before they are ended
PR_SET_PDEATHSIG = 1  # Linux prctl: signal a child when its parent dies
INTERRUPTED = 130  # the exit code after Ctrl-C, as of shells
BAD_INPUT = 2  # the exit code of a rank that has named what is wrong with its input


def run_local(
    ranks: int, work: Callable[[], int], *, advice: Callable[[], str] = str, explained: Collection[int] = (BAD_INPUT,)
) -> int:
    """Runs `work` in `ranks` forked processes and returns the exit code: 0, or that of the first that failed; 1 for one
    that a signal killed.

    The parent has imported everything already, so a rank starts at once; it hosts the store, which therefore outlives
    every rank. When a rank dies, the parent publishes who and how, gives the others time to report, then ends them.

    advice     gives a sentence on what to do now, said after which rank failed
    explained  exit codes whose reason the rank itself has printed: nothing is added to it
    """
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.flush()
    sys.stderr.flush()
    children = {_fork(rank, ranks, listener, work): rank for rank in range(ranks)}
    # The socket accepts connections already; the store answers them from here on.
    store = dist.TCPStore(
        "127.0.0.1",
        listener.getsockname()[1],
        None,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=60),
        master_listen_fd=listener.detach(),
    )
    rank, code = _watch(children, store)
    if code < 0 or code not in (0, INTERRUPTED, *explained):
        words = advice()
        complain(f"dhp: {_verdict(rank, code)}; the run ended.{words and ' ' + words}")
    return code if code >= 0 else 1


def _fork(rank: int, ranks: int, listener: socket.socket, work: Callable[[], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    port = listener.getsockname()[1]
    listener.close()
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
        LOCAL_WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        DHP_LAUNCHER="1",
    )
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    code = 1
    try:
        code = work()
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # no destructors: a failed process group may wait for peers in them


def _watch(children: dict[int, int], store: dist.Store) -> tuple[int, int]:
    """Waits for the ranks. Returns the first that failed and its exit code, negative for a signal; (0, 0) where all
    ended well."""
    failed, deadline = (0, 0), float("inf")
    try:
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                if time.monotonic() > deadline:
                    _kill(children, signal.SIGKILL)
                    deadline = float("inf")
                time.sleep(0.02)
                continue
            rank, code = children.pop(pid), os.waitstatus_to_exitcode(status)
            if code != 0 and failed == (0, 0):
                failed, deadline = (rank, code), time.monotonic() + GRACE_S
                if code < 0:
                    store.set(LOST_KEY, _verdict(rank, code))
    except KeyboardInterrupt:
        _kill(children, signal.SIGTERM)
        for pid in children:
            os.waitpid(pid, 0)
        return 0, INTERRUPTED
    return failed


def _verdict(rank: int, code: int) -> str:
    if code > 0:
        return f"rank {rank} ended with exit code {code}"
    try:
        return f"rank {rank} was lost: killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"rank {rank} was lost: killed by signal {-code}"


def _kill(children: dict[int, int], number: signal.Signals) -> None:
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
