"""The folder of a run, `output_dir`: for one run at a time, and for no other than the one that made its checkpoints."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import time
from pathlib import Path

from dhp._core import InputError
from dhp.base.output import check_links, complain
from dhp.settings.config import TrainConfig

LOCK = "run.lock"
WAIT_S = 5.0  # for the processes of a run that was killed, which need a moment to end
# What save_checkpoint and drop_old were at when their process died. Nobody else's: the lock is held when they are gone.
LEFTOVER = r"\.step-\d+\.tmp"


def claim(config: TrainConfig) -> int:
    """Makes the folder and locks it, removes what a dead run has half written, and returns the lock's descriptor. The
    lock is held until this process and all that it forks have ended, however they end: the kernel lets go of it.

    Raises InputError if the folder cannot be written or another run holds it, or if it has checkpoints and the run is
    to start afresh: it would delete them as it saves its own, or be taken for their continuation.
    """
    folder = Path(config.output_dir)
    try:
        check_links(folder)
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        reason = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"output_dir: {folder} cannot be written ({reason}); give another path") from None
    _lock(folder, lock)
    newest = newest_checkpoint(folder)
    if newest and not config.resume:
        os.close(lock)
        raise InputError(
            f"output_dir: {folder} holds checkpoints of an earlier run, up to {newest.name}; continue it with "
            "--resume, or give another output_dir"
        )
    for path in folder.iterdir():
        if re.fullmatch(LEFTOVER, path.name):
            shutil.rmtree(path, ignore_errors=True)
    return lock


def checkpoints(output_dir: str | Path) -> list[Path]:
    """The folders of complete checkpoints, by steps."""
    found = (path for path in Path(output_dir).glob("step-*") if re.fullmatch(r"step-[0-9]+", path.name))
    return sorted((path for path in found if os.path.isdir(path)), key=steps_of)


def newest_checkpoint(output_dir: str | Path) -> Path | None:
    return next(reversed(checkpoints(output_dir)), None)


def steps_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def temporary(checkpoint: Path) -> Path:
    """Where a checkpoint is while it is not whole."""
    return checkpoint.with_name(f".{checkpoint.name}.tmp")


def drop_old(output_dir: str | Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints; 0 keeps all. One that is half removed has no checkpoint's name."""
    for old in checkpoints(output_dir)[:-keep] if keep else []:
        gone = temporary(old)
        try:
            os.replace(old, gone)
        except OSError:
            continue
        shutil.rmtree(gone, ignore_errors=True)


def _lock(folder: Path, lock: int) -> None:
    deadline = time.monotonic() + WAIT_S
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
    except BlockingIOError:
        holder = os.read(lock, 200).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise InputError(
            f"output_dir: {folder} is in use by another run ({holder}); wait for its end, or give another output_dir"
        ) from None
    except OSError as error:  # a file system without locks
        complain(f"dhp: {folder} cannot be locked ({error.strerror}): make sure that no other run uses it")
        return
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


__all__ = ["checkpoints", "claim", "drop_old", "newest_checkpoint", "steps_of", "temporary"]
