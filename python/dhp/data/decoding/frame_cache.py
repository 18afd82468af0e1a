"""A folder of decoded and resized pictures and frames, so that a second epoch decodes nothing.

An entry is a part of a medium (media.parts_of) as it was decoded: a file whose name is a digest of all that its pixels
follow from (the medium's file by path, size and time of change, where in it, which frame, the processor's settings,
libraries), with a checksum. It is written under another name first, so ranks and their workers share the folder.
An entry that is not as it was written is removed and decoded again.

The folder holds at most so many bytes. Their sum stands in a file of its own, LOCK, which is locked while it changes.
At the limit, entries that were not used for the longest time go, a tenth of the limit at once, but none that this
process has seen used: epochs have different orders, so of a cache that holds half of the frames, the half that is kept
is found in every epoch, where the half that was used last would be a seventh. Nothing is synced: what a crash of the
machine leaves half-written, the checksum finds.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import PIL
import torch

from dhp._core import InputError
from dhp.base.output import check_links, complain, new_beside
from dhp.data.access.files import check_file
from dhp.data.access.urls import is_url
from dhp.data.decoding.media import Medium, Pixels, decode, part_size
from dhp.data.processor import RULES_VERSION, Processor

LOCK = "used"
_HEAD = struct.Struct("<8s16sIII")  # mark, key, height, width, CRC-32 of key, sizes and pixels
_MARK = b"dhpframe"
_TO_FREE = 0.1  # of the limit, once it is reached
_COARSE_NS = 50_000_000  # the clock of files may be behind by a tick of the kernel
_LOOK_AGAIN_S = 300.0  # after all that is there was found to be used
_ABANDONED_S = 3600.0  # a file half-written for so long is nobody's
# What may round otherwise in another version.
_LIBRARIES = (PIL.__version__, torch.__version__, av.__version__, RULES_VERSION)


class FrameCache:
    """A cache in a folder, which is made. Raises InputError where it cannot be written. `decode` is as media.decode.

    most_bytes  of all entries, also those of other processes
    decoded     parts that were not there, counted
    """

    def __init__(self, folder: str | os.PathLike[str], most_bytes: int) -> None:
        self.decoded = 0
        self._folder, self._most = Path(os.path.abspath(folder)), most_bytes
        self._is_writable = True
        self._began = time.time_ns() - _COARSE_NS
        self._look_again = 0.0  # for what may go, in time.monotonic()
        try:
            check_links(self._folder)
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with self._used():
                pass
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"frame_cache: {folder} cannot be written ({reason}); give another folder") from None

    def decode(self, medium: Medium, numbers: Sequence[int], processor: Processor) -> dict[int, Pixels]:
        """As media.decode: what is here is taken from here, the rest is decoded and kept."""
        keys = {number: _key_of(medium, number, processor) for number in numbers}
        found = {number: pixels for number in numbers if (pixels := self._get(keys[number])) is not None}
        missing = [number for number in numbers if number not in found]
        if missing:
            decoded = decode(medium, missing, processor)
            self.decoded += len(missing)
            for number in missing:
                found[number] = decoded[number]
                self._put(keys[number], decoded[number])
        return found

    # ---- entries

    def _path(self, key: bytes) -> Path:
        name = key.hex()
        return self._folder / name[:2] / name[2:]

    def _get(self, key: bytes) -> Pixels | None:
        path = self._path(key)
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                text = file.read()
                pixels = _pixels_in(text, key)
                if pixels is not None:
                    os.utime(file.fileno())  # used now
                    return pixels
            path.unlink()
            self._count(-len(text))
        except OSError:  # not there; or gone meanwhile, or unreadable: it is decoded again
            pass
        return None

    def _put(self, key: bytes, pixels: Pixels) -> None:
        """Keeps it, unless there is no room for it. Who cannot write goes on without."""
        path, levels = self._path(key), np.ascontiguousarray(pixels)
        size = _HEAD.size + levels.nbytes
        if not self._is_writable or not self._has_room_for(size):
            return
        try:
            path.parent.mkdir(exist_ok=True)
            handle, partial = new_beside(path)
            try:
                with open(handle, "wb") as file:
                    file.write(_head_of(key, levels))
                    file.write(levels.data)
                os.link(partial, path)
            finally:
                partial.unlink()
        except FileExistsError:  # another process has decoded it, too
            self._count(-size)
        except OSError as error:
            self._count(-size)
            self._stop_writing(error)

    def _has_room_for(self, size: int) -> bool:
        """Counts it in, and makes room where there is none."""
        try:
            with self._used() as used:
                if used[0] + size > self._most and time.monotonic() >= self._look_again:
                    most = int(self._most * (1 - _TO_FREE)) - size
                    used[0] = self._shrunk_to(most)
                    if used[0] > most:  # what is left is used
                        self._look_again = time.monotonic() + _LOOK_AGAIN_S
                if used[0] + size > self._most:
                    return False
                used[0] += size
                return True
        except OSError as error:
            self._stop_writing(error)
            return False

    def _count(self, size: int) -> None:
        """Adds to the bytes of all entries; where that fails, they are counted again at the limit."""
        with contextlib.suppress(OSError), self._used() as used:
            used[0] = max(0, used[0] + size)

    def _stop_writing(self, error: OSError) -> None:
        self._is_writable = False
        reason = error.strerror or type(error).__name__
        complain(
            f"dhp: frame_cache: {self._folder} cannot be written ({reason}); what is not in it is decoded each time"
        )

    # ---- room

    @contextlib.contextmanager
    def _used(self) -> Iterator[list[int]]:
        """The bytes of all entries, which no other process changes meanwhile: to be changed in place."""
        with open(
            os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b"
        ) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            text = file.read(32).strip()
            before = int(text) if text.isdigit() else self._shrunk_to(self._most)  # new, or damaged: counted
            used = [before]
            yield used
            if used[0] != before or not text:
                os.pwrite(file.fileno(), b"%-32d" % used[0], 0)

    def _shrunk_to(self, most: int) -> int:
        """Removes what was not used for the longest time until no more bytes are left than this, or what is left was
        used since this process began; returns how many are left."""
        entries = sorted(self._entries())
        total = sum(size for _, size, _ in entries)
        for used_ns, size, path in entries:
            if total <= most or used_ns >= self._began:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
        return total

    def _entries(self) -> Iterator[tuple[int, int, str]]:
        """When used last (ns), bytes, path; files that somebody has left half-written are removed."""
        abandoned = time.time_ns() - int(_ABANDONED_S * 1e9)
        for folder in os.scandir(self._folder):
            if not folder.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(folder.path):
                with contextlib.suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    if not entry.name.startswith("."):
                        yield about.st_mtime_ns, about.st_size, entry.path
                    elif about.st_mtime_ns < abandoned:
                        os.unlink(entry.path)


def _key_of(medium: Medium, number: int, processor: Processor) -> bytes:
    """Of all that the part's pixels follow from. Raises MediumError where its file cannot be looked at."""
    source = medium.source if isinstance(medium.source, str) else medium.source[number]
    changed_ns, size = check_file(source, processor.media_roots)
    where = source if is_url(source) else os.path.abspath(source)
    # Tiles follow from how many there are; of a clip, the frame's number says all.
    units = medium.units if medium.kind == "image" else 0
    follows_from = (
        *(where, size, changed_ns),
        *(medium.kind, number, units, medium.height, medium.width, part_size(medium, processor)),
        *(processor.family, processor.fingerprint, _LIBRARIES),
    )
    return hashlib.blake2b(json.dumps(follows_from).encode(), digest_size=16).digest()


def _head_of(key: bytes, levels: Pixels) -> bytes:
    height, width, _ = levels.shape
    return _HEAD.pack(_MARK, key, height, width, _check_of(key, height, width, levels.data))


def _check_of(key: bytes, height: int, width: int, levels: memoryview) -> int:
    return zlib.crc32(levels, zlib.crc32(struct.pack("<16sII", key, height, width)))


def _pixels_in(text: bytes, key: bytes) -> Pixels | None:
    """Of an entry; None where it is damaged, or another's."""
    if len(text) < _HEAD.size:
        return None
    mark, own, height, width, check = _HEAD.unpack_from(text)
    levels = memoryview(text)[_HEAD.size :]
    if (
        mark != _MARK
        or own != key
        or len(levels) != 3 * height * width
        or check != _check_of(key, height, width, levels)
    ):
        return None
    return np.frombuffer(levels, np.uint8).reshape(height, width, 3)


__all__ = ["LOCK", "FrameCache"]
