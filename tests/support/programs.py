"""Runs `dhp train` and `dhp calibrate` in processes that need not import torch and transformers first."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ranks import context


def _main(module: str, words: list[str], folder: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    sys.exit(importlib.import_module(module).main(words))


def run_program(module: str, *words: object, timeout_s: float = 600.0) -> subprocess.CompletedProcess[str]:
    """As `python -m MODULE WORDS...` with its output caught, in a process forked off one that has it all imported."""
    arguments = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        process = context.Process(target=_main, args=(module, arguments, folder, dict(os.environ)))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
        if process.exitcode == -9:
            err += f"\nkilled after {timeout_s:.0f} s"
        return subprocess.CompletedProcess([module, *arguments], process.exitcode or 0, out, err)
