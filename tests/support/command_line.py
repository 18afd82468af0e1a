"""What tests of the command line share: the program, good files, and changes to them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CASES = ROOT / "bench" / "cases"
DHP = os.environ.get("DHP_BINARY") or str(Path(sys.executable).parent / "dhp")


@dataclass
class Result:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def dhp(*arguments: str | Path, binary: str | Path = DHP, path: str | None = None) -> Result:
    env = dict(os.environ) if path is None else dict(os.environ, PATH=path)
    words = [str(binary), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=240, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


GOOD_BATCH = {"format": "dhp.batch/1", "sequences": [{"id": i, "tokens": 500 + 300 * i} for i in range(12)]}
GOOD_CLUSTER = json.loads((CASES / "cluster_910b_1x6.json").read_text())
GOOD_COST = json.loads((CASES / "cost_qwen3-vl-8b_8192.json").read_text())


def on_terminal(*arguments: str | Path, errors: bool = False, **environment: str) -> tuple[str, str]:
    """What `dhp` shows on a terminal that is its standard output (or error), and what it writes to the other one."""
    ours, theirs = os.openpty()
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": theirs}
    if not errors:
        streams = {"stdout": theirs, "stderr": subprocess.PIPE}
    command = [str(DHP), *map(str, arguments)]
    env = {**os.environ, "TERM": "xterm", **environment}
    with subprocess.Popen(command, text=True, env=env, **streams) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(ours, 65536):  # what is there by now
                shown += part
        other = (process.stdout or process.stderr).read()  # type: ignore[union-attr]
        assert process.wait() == 0, other
    os.close(ours)
    return shown.decode(), other


def inputs(files: dict[str, Path]) -> list[str | Path]:
    return [word for name in ("batch", "cluster", "cost") for word in (f"--{name}", files[name])]


def changed(document: dict[str, Any], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy with one value replaced."""
    document = json.loads(json.dumps(document))
    inner: Any = document
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return document
