"""Starts the local ranks of `dhp train` and `dhp calibrate`, watches them, and says which one failed first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from dhp._core import InputError
from dhp.base.output import complain
from dhp.run import devices, entry, runtime
from dhp.run.commands import INTERRUPTED, end_on_interrupt
from dhp.run.joining import LOST_KEY

GRACE_S = 12.0  # how long survivors may take to say what they saw before they are ended
STOP_S = 5.0  # and how long all may take after Ctrl-C; one that hangs does not end by itself
PR_SET_PDEATHSIG = 1  # Linux prctl: signal a child when its parent dies
BAD_INPUT = 2  # the exit code of a rank that has named what is wrong with its input
ON_DEVICES = 5  # of the process that looks before there are ranks: all is well, and each will have a device


def run_local(
    ranks: int,
    work: Callable[[], int],
    *,
    called: str = "rank {}",
    advice: Callable[[], str] = str,
    explained: Collection[int] = (BAD_INPUT,),
    program: Sequence[str] = (),
) -> int:
    """Runs `work` in `ranks` forked processes and returns the exit code: 0, or that of the first that failed; 1 for one
    that a signal killed.

    The parent has imported everything already, so a rank starts at once; it hosts the store, which therefore outlives
    every rank. With devices each rank is a program of its own, `program`, as torchrun would start it: what drivers and
    their libraries keep does not survive a fork. When a rank dies, the parent publishes who and how, gives the others
    time to report, then ends them.

    called     what to call a process that failed; {} is its rank
    advice     gives a sentence on what to do now, said after which rank failed
    explained  exit codes whose reason the rank itself has printed: nothing is added to it
    program    a command line, run instead of `work`
    """
    with _signals() as signals:
        rank, code = _run(ranks, lambda: os.execv(program[0], list(program)) if program else work(), signals)
    if signals:
        return 128 + signals[0]
    if code < 0 or code not in (0, INTERRUPTED, *explained):
        words = advice()
        complain(f"dhp: {_verdict(called.format(rank), code)}; the run ended.{words and ' ' + words}")
    return code if code >= 0 else 1


def look_and_run(
    ranks: int,
    look: Callable[[], int],
    work: Callable[[], int],
    arguments: Sequence[str] | None,
    *,
    looks: str,
    advice: Callable[[], str] = str,
    explained: Collection[int] = (BAD_INPUT,),
) -> int:
    """Local ranks of a command, once all that they will need has been looked at. Returns the exit code.

    look       0, or ON_DEVICES, where all is well; runs in a process of its own, since one that has asked for devices,
               read media or tokenized must not fork
    arguments  of the command's main; None: the command line, which ranks on devices run again. A program that gives
               arguments has none that would: its ranks are forked, so it must not have asked for devices itself
    looks      what to call the process that looks
    """
    code = run_local(1, look, called=looks, explained=(BAD_INPUT, ON_DEVICES))
    if code not in (0, ON_DEVICES):
        return code
    is_again = code == ON_DEVICES and arguments is None
    program = [sys.executable, *sys.orig_argv[1:]] if is_again else []
    return run_local(ranks, work, advice=advice, explained=explained, program=program)


def join(timeout_s: float, device: str = "cpu", named: str = "device") -> runtime.Run | int:
    """This rank's run on a device as `dhp.init` takes it, which messages call `named`. Ctrl-C ends it without a
    traceback. The exit code, where it cannot be joined and it was said why."""
    try:
        run = entry.init(timeout_s=timeout_s, device=device)
    except (InputError, ImportError, runtime.RankFailed) as error:
        _complain_of(named, error)
        return 1 if isinstance(error, runtime.RankFailed) else BAD_INPUT
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, signal.default_int_handler):  # as commands.py set it
        torch.ops.dhp.exit_on_interrupt()
    return run


def check_device(device: str, ranks: int, named: str) -> int:
    """Whether so many local ranks can have one each. Returns an exit code, 0 or ON_DEVICES where they can; else it is
    said why. For run_local, in a process of its own: one that has asked CUDA for devices cannot be forked."""
    try:
        return 0 if devices.check(device, ranks) == "cpu" else ON_DEVICES
    except InputError as error:
        _complain_of(named, error)
        return BAD_INPUT


def _complain_of(named: str, error: Exception) -> None:
    """Of a device, by the name that its setting has here."""
    complain(f"dhp: error: {re.sub('^device:', f'{named}:', str(error))}")


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM, in the order in which they come."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {
        number: signal.signal(number, lambda number, frame: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(ranks: int, work: Callable[[], int], signals: list[int]) -> tuple[int, int]:
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
    return _watch(children, store, signals)


def _fork(rank: int, ranks: int, listener: socket.socket, work: Callable[[], int]) -> int:
    launcher = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_on_interrupt()
    _end_with(launcher)
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


def _end_with(parent: int) -> None:
    """This process ends when `parent` does, also where that has died already: then no signal would come any more."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def _watch(children: dict[int, int], store: dist.Store, signals: list[int]) -> tuple[int, int]:
    """Waits for the ranks, and ends them where one has failed, or at a signal. Returns the first that failed and its
    exit code, negative for a signal; (0, 0) where all ended well."""
    failed, deadline, stopping = (0, 0), float("inf"), 0
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            if len(signals) > stopping:  # the second at once
                _kill(children, signal.SIGKILL if stopping else signal.SIGTERM)
                stopping, deadline = len(signals), min(deadline, time.monotonic() + STOP_S)
            if time.monotonic() > deadline:
                _kill(children, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.02)
            continue
        rank, code = children.pop(pid), os.waitstatus_to_exitcode(status)
        if code != 0 and failed == (0, 0):
            failed, deadline = (rank, code), min(deadline, time.monotonic() + GRACE_S)
            if code < 0 and not signals:
                store.set(LOST_KEY, _verdict(f"rank {rank} (host {socket.gethostname()}, pid {pid})", code))
    return failed


def _verdict(who: str, code: int) -> str:
    if code > 0:
        return f"{who} ended with exit code {code}"
    try:
        return f"{who} was lost: killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"{who} was lost: killed by signal {-code}"


def _kill(children: dict[int, int], number: signal.Signals) -> None:
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
