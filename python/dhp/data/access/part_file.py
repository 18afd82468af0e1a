"""A part of something as a file object."""

from __future__ import annotations

import abc
import io
import os
from typing import Any


class PartFile(io.RawIOBase):
    """`size` bytes, which `_read` gives from `_at` on."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    @abc.abstractmethod
    def _read(self, count: int) -> bytes:
        """Up to `count` bytes from where we are, at least one; so many are left."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        if not count:
            return 0
        read = self._read(count)
        buffer[: len(read)] = read
        self._at += len(read)
        return len(read)


__all__ = ["PartFile"]
