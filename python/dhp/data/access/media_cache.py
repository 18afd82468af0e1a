"""A bounded folder of media from elsewhere, shared by the processes of a host.

A file's name is a hash of its address, of the version that was indexed, and of the range of it; what is there is whole,
and of the size that the index says. The least recently read go first. What is being fetched counts before it comes, so
the folder never holds more than it may; who wants what another process is fetching waits for it.

    total         bytes promised so far, under a lock; counted again whenever something has to go
    NAME          a medium
    NAME.part     one that is being fetched, locked by who fetches it
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dhp.data.access.bounded import Room
from dhp.data.errors import DataError

_LARGEST = 8  # a file of more than this part of the folder is not kept
_PATIENCE_S = 60.0  # for another process that fetches the same; then it is read without the cache
_PART = ".part"
_NAME = re.compile(r"[0-9a-f]{40}(\.part)?")

Write = Callable[[bytes], Any]


@dataclass(frozen=True)
class MediaCache:
    """folder: made where it is missing. most_bytes: of all files in it together."""

    folder: str
    most_bytes: int

    def path(self, key: str, size: int, fetch: Callable[[Write], None]) -> str | None:
        """The file of `size` bytes with this key, fetched where it is not there: `fetch` gets what writes its bytes, in
        order; an empty piece takes back all that came before. None where it is too large to be kept, or cannot be
        written. Raises what `fetch` raises."""
        if size * _LARGEST > self.most_bytes:
            return None
        name = Path(self.folder) / hashlib.blake2b(key.encode(), digest_size=20).hexdigest()
        if _is_there(name, size):
            return str(name)
        with _part_of(name) as part:
            if part is None:
                return None
            if not _is_there(name, size):  # else another process was quicker
                if not self._promise(part, size):
                    return None
                is_kept = False
                try:
                    _fill(part, size, fetch)
                    os.replace(f"{name}{_PART}", name)
                    is_kept = True
                except OSError:  # a full disk, perhaps
                    return None
                finally:
                    if not is_kept:
                        self._room.give_back(size)
            return str(name)

    def check(self) -> None:
        """Makes the folder. Raises DataError where that, or writing there, cannot be."""
        try:
            self._room.make()
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(0, "it may not be written")
        except OSError as error:
            raise DataError(
                f"media_cache: {self.folder} cannot be used ({error.strerror or error}); give another folder"
            ) from None

    def _promise(self, part: IO[bytes], size: int) -> bool:
        """Makes room for so many bytes, which the part has from now on."""
        try:
            return self._room.take(size, lambda: part.truncate(size)) is not None
        except OSError:
            return False

    @property
    def _room(self) -> Room:
        return Room(Path(self.folder), self.most_bytes, "total", self._entries, _removed)

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if _NAME.fullmatch(entry.name):
                        about = entry.stat(follow_symlinks=False)
                        yield about.st_mtime_ns, about.st_size, entry.path


def _is_there(name: Path, size: int) -> bool:
    """Notes that it is read now, where it is."""
    try:
        if os.stat(name, follow_symlinks=False).st_size != size:
            return False
        os.utime(name, follow_symlinks=False)
        return True
    except OSError:
        return False


@contextlib.contextmanager
def _part_of(name: Path) -> Iterator[IO[bytes] | None]:
    """The file that is to be filled, locked; None where it cannot be had. Gone afterwards, unless it was renamed."""
    path, until = f"{name}{_PART}", time.monotonic() + _PATIENCE_S
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            yield None
            return
        with open(handle, "r+b") as part:
            if not _locked(part, until):
                yield None
                return
            if not _is_same(part, path):  # who had it has renamed or removed it
                continue
            try:
                yield part
            finally:
                if _is_same(part, path):
                    with contextlib.suppress(OSError):
                        os.unlink(path)
            return


def _locked(part: IO[bytes], until: float) -> bool:
    while True:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        except OSError:  # a file system without locks
            return False


def _is_same(part: IO[bytes], path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(part.fileno()), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _removed(path: str) -> bool:
    """Whether it is gone now: not where another process is filling it."""
    try:
        with open(path, "rb") as file:
            if path.endswith(_PART):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        return True
    except OSError:
        return False


def _fill(part: IO[bytes], size: int, fetch: Callable[[Write], None]) -> None:
    def write(piece: bytes) -> None:
        if not piece:
            part.seek(0)
        elif part.tell() + len(piece) > size:
            raise ValueError("more bytes came than the file has")
        part.write(piece)

    part.seek(0)
    fetch(write)
    if part.tell() != size:
        raise OSError("fewer bytes came than the file has")
    part.flush()
    os.fsync(part.fileno())  # a name of this folder stands for a whole file, also after the power was lost


__all__ = ["MediaCache"]
