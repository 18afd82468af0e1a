"""The beginning and the end of a command: Ctrl-C ends it without a traceback from its first moment, and after a failure
it ends whatever its threads wait for. Light, because it is imported before all else."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130  # the exit code after Ctrl-C, as of shells


def train() -> NoReturn:
    _run("dhp.train")


def calibrate() -> NoReturn:
    _run("dhp.cost.calibrate")


def index() -> int:
    """Ctrl-C is an exception here: it ends the processes that read, and says that nothing was written."""
    try:
        return importlib.import_module("dhp.data.index_command").main()
    except KeyboardInterrupt:
        from dhp.base.output import complain

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would break into the end of threads
        complain("dhp index: interrupted; nothing was written")
        return INTERRUPTED


def _run(module: str) -> NoReturn:
    end_on_interrupt()
    end(importlib.import_module(module).main())


def end_on_interrupt() -> None:
    """Unless Ctrl-C is ignored already, as for a process in the background of a script."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(INTERRUPTED))


def end(code: int) -> NoReturn:
    """Ends this process. After a failure at once: destructors of a process group wait for peers that never come, and
    the end of the interpreter for threads that read."""
    if code:
        if ops := sys.modules.get("dhp.run.ops"):
            ops.release()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(0)
