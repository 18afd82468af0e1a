"""Starts `dhp train` as often as a trial needs, each time in processes of its own, without the seconds that importing
torch takes: a server process has imported all, and forks. What starts is `dhp.train.main` with an environment and a log
of its own.

    with QuickStart() as quick:
        program = quick.start(["run.toml"], log, env={"RANK": "0", ...})
        quick.ended(program, seconds=30)
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_CLONE_NEWNET = 0x40000000  # Linux setns: the file is a network namespace
RUN_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "DHP_LAUNCHER")


@dataclass
class Program:
    """A started process, the head of its own session; `code` once it has ended (negative: the signal)."""

    pid: int
    log: Path
    code: int | None = None

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def children(self) -> list[int]:
        """Local ranks of a launcher, by rank: they were forked in that order."""
        try:
            return sorted(map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()))
        except OSError:
            return []


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def all_gone(pids: Sequence[int], seconds: float) -> bool:
    """Waits for processes that are others' children."""
    deadline = time.monotonic() + seconds
    while any(_is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class QuickStart:
    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._server = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        self._file = self._ours.makefile("rw")
        self._started: list[Program] = []

    def __enter__(self) -> QuickStart:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()
        self._file.close()
        self._ours.close()
        self._server.wait(60)

    def start_by_torchrun(self, ranks: int, arguments: Sequence[str], log: Path, *, cwd: Path) -> Program:
        """The agent; its workers are processes that import all for themselves."""
        words = [
            "--nproc-per-node",
            str(ranks),
            "--master-addr",
            "127.0.0.1",
            "--master-port",
            str(free_port()),
            "-m",
            "dhp.train",
        ]
        env = {"GLOO_SOCKET_IFNAME": "lo"}
        return self.start([*words, *arguments], log, cwd=cwd, env=env, module="torch.distributed.run")

    def start(
        self,
        arguments: Sequence[str],
        log: Path,
        *,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        netns: str = "",
        module: str = "dhp.train",
    ) -> Program:
        """Calls `main(arguments)` of the module. `netns`: the file of the network namespace to start in."""
        task = {"module": module, "arguments": list(arguments), "log": str(log), "env": dict(env or {})}
        task |= {"cwd": str(cwd), "netns": netns}
        program = Program(int(self._ask(task)), log)
        self._started.append(program)
        return program

    def ended(self, *programs: Program, seconds: float) -> bool:
        """Waits for all of them; False where some had not ended in time."""
        deadline = time.monotonic() + seconds
        while True:
            for program in programs:
                self._look(program)
            if all(program.code is not None for program in programs):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)

    def end_all(self) -> None:
        """Kills what is left, the ranks of launchers first."""
        left = [program for program in self._started if not self.ended(program, seconds=0)]
        for program in left:
            for pid in program.children():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            program.kill()
        self.ended(*left, seconds=30)
        self._started.clear()

    def _look(self, program: Program) -> None:
        if program.code is None:
            program.code = self._ask({"poll": program.pid})

    def _ask(self, question: dict[str, Any]) -> Any:
        self._file.write(json.dumps(question) + "\n")
        self._file.flush()
        return json.loads(self._file.readline())


def serve(connection: socket.socket) -> None:
    importlib.import_module("dhp.train")
    importlib.import_module("torch.distributed.run")
    importlib.import_module("dhp.models.qwen_vl")
    importlib.import_module("dhp.models.adapter")
    importlib.import_module("transformers.models.qwen3_vl.modeling_qwen3_vl")
    codes: dict[int, int] = {}
    file = connection.makefile("rw")
    for line in file:
        task = json.loads(line)
        if "poll" in task:
            pid = task["poll"]
            if pid not in codes:
                ended, status = os.waitpid(pid, os.WNOHANG)
                codes |= {pid: os.waitstatus_to_exitcode(status)} if ended else {}
            answer: int | None = codes.get(pid)
        else:
            answer = os.fork() or run(task, connection)
        file.write(json.dumps(answer) + "\n")
        file.flush()


def run(task: dict[str, Any], connection: socket.socket) -> NoReturn:
    """The forked process, which ends as an interpreter does: what the program has left for its end is done."""
    os.setsid()
    if task["netns"]:
        with open(task["netns"]) as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(connection.detach())  # not by number at exit, when that may be another file's
    os.chdir(task["cwd"])
    for name in RUN_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(task["env"])
    sys.exit(importlib.import_module(task["module"]).main(task["arguments"]))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
