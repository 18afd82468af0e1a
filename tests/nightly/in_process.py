"""`dhp train` without processes: its ranks start here, as one, or not at all. Importing once makes inputs cheap."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from said import check_shown

from dhp import train
from dhp.run import launch, ops, runtime
from dhp.settings.config import TrainConfig

ops.load()


@dataclass
class Ended:
    code: int
    said: str  # on standard error
    settings: TrainConfig | None  # where the launcher had no objection: with these, ranks were started
    computed: bool  # a rank had no objection either: it came to its first batch

    @property
    def lines(self) -> list[str]:
        return self.said.splitlines()


def dhp_train(
    *arguments: str,
    cwd: Path,
    rank: bool = False,
    steps: int = 2,
    hold: Callable[[pytest.MonkeyPatch], None] | None = None,
) -> Ended:
    """`dhp train` in the folder, up to the start of ranks; with `rank`, one is run, for so many steps at most. Any
    exception but argparse's exit goes through: it is a fault. `hold` may patch more."""
    started: TrainConfig | None = None
    computed = False
    real_work = train.work

    def run_local(ranks: int, work: Callable[[], int], **_: object) -> int:
        return work()  # the launcher's own look at files, or a rank

    def work(settings: TrainConfig, *rest: Any) -> int:
        nonlocal started
        started = settings
        return real_work(settings, *rest) if rank else 0

    class Ahead(train.Ahead):
        def __init__(self, wanted: range, *rest: Any) -> None:
            super().__init__(wanted[:steps], *rest)

        def take(self) -> Any:
            nonlocal computed
            prepared = super().take()
            computed = True
            return prepared

    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, _inside(cwd), contextlib.redirect_stderr(said):
        patch.setattr(launch, "run_local", run_local)
        patch.setattr(train, "work", work)
        patch.setattr(train, "Ahead", Ahead)
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            patch.delenv(name, raising=False)
        if hold:
            hold(patch)
        try:
            code = train.main(list(arguments))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            leave_run()
    return Ended(code, said.getvalue(), started, computed)


def leave_run() -> None:
    """What the end of a process does for a run: groups go, and locks of folders."""
    runtime._current = None
    torch.ops.dhp.release_all_groups()
    if dist.is_initialized():
        dist.destroy_process_group()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.endswith(".lock"):
                os.close(descriptor)


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """A hang is a failure like others."""

    def over(*_: object) -> None:
        raise AssertionError(f"hangs: {seconds} s are over")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True)  # in C, where no signal is handled
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def check_ended(ended: Ended) -> None:
    """Success, or one line that a person can read."""
    assert ended.code in (0, 1, 2), (ended.code, ended.said)
    check_shown(ended.said)
    if ended.code == 0:
        return
    lines = ended.lines[-1:] if ended.said.startswith("usage: ") else ended.lines
    lines = [line for line in lines if not re.match("dhp: note: .* the next release drops the old name$", line)]
    assert len(lines) == 1, f"exit {ended.code}, {len(lines)} lines: {ended.said}"
    assert lines[0].startswith(("dhp: ", "dhp train: error: ")), lines[0]
