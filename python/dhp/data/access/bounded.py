"""A folder of files that can be made again, which holds at most so many bytes, whoever adds to it.

The sum of its files stands in one of them, which is locked while it changes; where it is missing or damaged, the files
are counted. What nobody has used for the longest time goes first. Only files whose names say that they are ours are
counted and removed: the folder may be one that holds something else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from dhp.base.output import check_links

T = TypeVar("T")

_TO_FREE = 0.1  # of the limit, once it is reached
_LOOK_AGAIN_S = 300.0  # after all that is there was found to be used


@dataclass
class Room:
    """entries: of our files, when each was used last (ns), its bytes and its path. remove: whether it is gone now.
    spare_from_ns: what was used since then stays. All but `give_back` raise OSError."""

    folder: Path
    most_bytes: int
    sum_file: str
    entries: Callable[[], Iterable[tuple[float, int, str]]]
    remove: Callable[[str], bool]
    spare_from_ns: float = float("inf")
    _look_again: float = field(default=0.0, init=False)  # in time.monotonic()

    def make(self) -> None:
        """Makes the folder, for its owner alone."""
        check_links(self.folder)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        with self._sum():
            pass

    def take(self, size: int, make: Callable[[], T]) -> T | None:
        """What `make` makes, a file that has so many bytes from the beginning and is one of the entries: so it counts
        before it is whole, whoever counts. None where there is no room; what has not been used longest makes it."""
        with self._sum() as total:
            if total[0] + size > self.most_bytes and time.monotonic() >= self._look_again:
                most = int(self.most_bytes * (1 - _TO_FREE)) - size
                total[0] = self._shrunk_to(most)
                if total[0] > most:
                    self._look_again = time.monotonic() + _LOOK_AGAIN_S
            if total[0] + size > self.most_bytes:
                return None
            made = make()
            total[0] += size
            return made

    def give_back(self, size: int, remove: Callable[[], bool] = lambda: True) -> None:
        """So many bytes are gone, where `remove` says so, which is called while no other process counts; where that
        cannot be noted, they are counted again at the limit."""
        with contextlib.suppress(OSError), self._sum() as total:
            if remove():
                total[0] = max(0, total[0] - size)

    @contextlib.contextmanager
    def _sum(self) -> Iterator[list[int]]:
        """To be changed in place."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self.folder / self.sum_file, flags, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read(32).strip()
            before = int(text) if text.isdigit() else self._shrunk_to(self.most_bytes)
            total = [before]
            yield total
            if total[0] != before or not text.isdigit():
                os.pwrite(file.fileno(), b"%-32d" % total[0], 0)

    def _shrunk_to(self, most: int) -> int:
        """Removes until no more bytes are left than this, or what is left is spared; returns how many are left."""
        entries = sorted(self.entries())
        total = sum(size for _, size, _ in entries)
        for used_ns, size, path in entries:
            if total <= most or used_ns >= self.spare_from_ns:
                break
            if self.remove(path):
                total -= size
        return total


__all__ = ["Room"]
