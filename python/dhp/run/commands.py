"""The beginning and the end of a command: Ctrl-C ends it without a traceback from its first moment, and after a failure
it ends whatever its threads wait for. Light, because it is imported before all else."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130  # the exit code after Ctrl-C, as of shells

# What the extras of pyproject.toml, and torch, are imported as.
EXTRAS = {
    "train": ("transformers", "tokenizers", "safetensors", "PIL", "av", "scipy"),
    "report": ("plotly",),
    "formats": ("pyarrow",),
    "remote": ("fsspec", "aiohttp"),
    "lora": ("peft",),
    "audio": ("soundfile", "soxr"),
}
_NEEDS = {
    "train": "train",
    "index": "train",
    "calibrate": "train",
    "check-model": "train",
    "convert": "train",
    "report": "report",
    "build-ops": "",
}


def missing(command: str) -> str:
    """One line that says what a command lacks and how to install it; empty where all is there."""
    extra = _NEEDS[command]
    needed = (("torch",) if extra != "report" else ()) + EXTRAS.get(extra, ())
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if not lacking:
        return ""
    torch = " torch" * ("torch" in lacking)  # not of an extra: which build is right depends on the machine
    install = torch + f' "dhp[{extra}]"' * bool(extra)
    return f"dhp: error: dhp {command} needs {', '.join(lacking)}: pip install{install}"


def train() -> NoReturn:
    _run("train", "dhp.train")


def calibrate() -> NoReturn:
    _run("calibrate", "dhp.cost.calibrate")


def check_model() -> NoReturn:
    _run("check-model", "dhp.models.check_model")


def convert() -> int:
    end_on_interrupt()
    _require("convert")
    return int(importlib.import_module("dhp.models.convert").main())


def report() -> int:
    _require("report")
    return int(importlib.import_module("dhp.report.cli").main())


def index() -> int:
    """Ctrl-C is an exception here: it ends the processes that read, and says what is kept."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_once)
    try:
        _require("index")
        return importlib.import_module("dhp.stats.command").main()
    except KeyboardInterrupt as interrupt:
        from dhp.base.output import complain

        complain(f"dhp index: interrupted; {str(interrupt) or 'nothing was written'}")
        return INTERRUPTED


def _interrupt_once(number: int, _: object) -> None:
    """A second Ctrl-C would break into the end of threads."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _require(command: str) -> None:
    if problem := missing(command):
        print(problem, file=sys.stderr)
        sys.exit(2)


def _run(command: str, module: str) -> NoReturn:
    end_on_interrupt()
    _require(command)
    main = importlib.import_module(module).main
    try:
        importlib.import_module("dhp.run.ops").check()  # here once, not by every rank
    except ImportError as error:
        print(f"dhp: error: {error}", file=sys.stderr)
        end(2)
    end(main())


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
