"""A file of an object store, or a part of it, as a file object that fetches what is read, and little more.

Reading goes on a window at a time: a small one at first and wherever it jumps to, larger ones where it goes on from the
last. So a header costs one request, and a file that is read to its end a few. A server that sends whole files only has
the file copied once: into the cache of media, or a file without a name.
"""

from __future__ import annotations

import collections
import contextlib
import os
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

from dhp.data.access import remote
from dhp.data.access.media_cache import MediaCache
from dhp.data.access.part_file import PartFile
from dhp.data.access.remote import NoRanges
from dhp.data.access.urls import Object
from dhp.data.errors import MediumError

FIRST = 32 << 10  # bytes of a window where reading begins: the heads of most pictures
_MOST = 8 << 20
_STARTS = 256  # first windows of files that were looked at, and are to be opened

_starts: collections.OrderedDict[tuple[str, Object], bytes] = collections.OrderedDict()
_lock = threading.Lock()


def look(url: str) -> Object:
    """What the file is, or was a moment ago. Its beginning comes with the answer, and is kept for whoever opens it
    next. Raises MediumError."""
    if found := remote.recent(url):
        return found
    found, start = remote.head(url, FIRST)
    with _lock:
        _starts[url, found] = start
        while len(_starts) > _STARTS:
            _starts.popitem(last=False)
    return found


class RemoteFile(PartFile):
    """Bytes begin … begin+size-1 of the file that `whole` is.

    hollow  bytes of this object that nobody looks at: what is not fetched yet of them reads as zeros
    """

    def __init__(
        self, url: str, whole: Object, begin: int = 0, size: int | None = None, cache: MediaCache | None = None
    ) -> None:
        super().__init__(whole.size - begin if size is None else size)
        self._url, self._whole, self._begin, self._cache = url, whole, begin, cache
        self._count = FIRST
        self._window, self._start = b"", 0
        self._local: IO[bytes] | None = None  # a copy of the whole file
        self.hollow = range(0)
        if begin == 0:
            with _lock:
                self._window = _starts.pop((url, whole), b"")

    def close(self) -> None:
        if self._local is not None:
            self._local.close()
        super().close()

    def _read(self, count: int) -> bytes:
        if self._local is None and not self._start <= self._at < self._start + len(self._window):
            if self._at in self.hollow:
                return bytes(min(count, self.hollow.stop - self._at))
            self._fetch()
        if self._local is not None:
            return os.pread(self._local.fileno(), count, self._begin + self._at)
        return self._window[self._at - self._start :][:count]

    def _fetch(self) -> None:
        """The window where we are."""
        end = self._start + len(self._window)
        goes_on = bool(self._window) and end <= self._at <= end + 2 * self._count
        self._count = min(2 * self._count, _MOST) if goes_on else FIRST
        stop = min(self._size, self._at + self._count)
        if self._at < self.hollow.start:
            stop = min(stop, self.hollow.start)
        try:
            self._window = remote.read(self._url, self._begin + self._at, self._begin + stop, self._whole)
            self._start = self._at
        except NoRanges:
            self._local = local_copy(self._url, self._whole, self._cache, self._size < self._whole.size)


def local_copy(url: str, whole: Object, cache: MediaCache | None, is_part: bool = False) -> IO[bytes]:
    """The whole file, on this machine. Raises MediumError, also where it would be copied anew for each part of it."""
    if path := cached(url, whole, 0, whole.size, cache):
        with contextlib.suppress(FileNotFoundError):  # it had to make room just now
            return open(path, "rb")
    if is_part:
        raise MediumError(url, "its server sends whole files only, and a part is asked for; copy it to a disk")
    file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by who reads it

    def write(piece: bytes) -> None:
        if not piece:
            file.seek(0)
            file.truncate()
        file.write(piece)

    remote.save(url, whole, write)
    file.flush()
    return file


def cached(url: str, whole: Object, begin: int, size: int, cache: MediaCache | None) -> str:
    """The path of these bytes in the cache, where they are put if they are not there; "" where they are not kept, as
    bytes of a file of which nobody could tell whether it has changed. Raises MediumError."""
    if cache is None or not whole.tag:
        return ""

    def fetch(write: Callable[[bytes], Any]) -> None:
        if size == whole.size:
            remote.save(url, whole, write)
            return
        write(_part(url, whole, begin, size, cache))

    return cache.path(f"{url} {whole.size} {whole.tag} {begin} {size}", size, fetch) or ""


def contents(url: str, whole: Object, begin: int, size: int, cache: MediaCache | None) -> bytes:
    """These bytes, of the cache where there is one. Raises MediumError, and OSError of a disk."""
    if path := cached(url, whole, begin, size, cache):
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            return file.read()
    return _part(url, whole, begin, size, cache)


def _part(url: str, whole: Object, begin: int, size: int, cache: MediaCache | None) -> bytes:
    try:
        return remote.read(url, begin, begin + size, whole)
    except NoRanges:
        with local_copy(url, whole, cache, is_part=size < whole.size) as file:
            return os.pread(file.fileno(), size, begin)


__all__ = ["RemoteFile", "cached", "contents", "local_copy", "look"]
