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
import hashlib
import json
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL
import torch

from dhp._core import InputError
from dhp.base.output import PARTIAL, complain, new_beside
from dhp.data.access.bounded import Room
from dhp.data.access.files import check_file
from dhp.data.access.pieces import remote_piece
from dhp.data.decoding.media import Medium, Pixels, decode, part_size
from dhp.data.processor import RULES_VERSION, Processor

LOCK = "used"
_HEAD = struct.Struct("<8s16sIII")  # mark, key, height, width, CRC-32 of key, sizes and pixels
_MARK = b"dhpframe"
_COARSE_NS = 50_000_000  # the clock of files may be behind by a tick of the kernel
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
        self._folder = Path(os.path.abspath(folder))
        self._is_writable = True
        began = time.time_ns() - _COARSE_NS
        self._room = Room(self._folder, most_bytes, LOCK, self._entries, _unlinked, spare_from_ns=began)
        try:
            self._room.make()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"frame_cache: {folder} cannot be written ({reason}); give another folder") from None

    def decode(self, medium: Medium, numbers: Sequence[int], processor: Processor) -> dict[int, Pixels]:
        """As media.decode: what is here is taken from here, the rest is decoded and kept."""
        if not _tells_changes(medium):
            return decode(medium, numbers, processor)
        keys = _keys_of(medium, numbers, processor)
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
                    with contextlib.suppress(OSError):  # another user's, in a folder of several
                        os.utime(file.fileno())  # used now
                    return pixels
            self._room.give_back(len(text), lambda: _unlinked(path))
        except OSError:  # not there; or gone meanwhile, or unreadable: it is decoded again
            pass
        return None

    def _put(self, key: bytes, pixels: Pixels) -> None:
        """Keeps it, unless there is no room for it. Who cannot write goes on without."""
        path, levels = self._path(key), np.ascontiguousarray(pixels)
        size = _HEAD.size + levels.nbytes
        try:
            if self._is_writable and (made := self._room.take(size, lambda: _new_file(path, size))):
                self._write(*made, path, size, [_head_of(key, levels), levels.data])
        except OSError as error:
            self._stop_writing(error)

    def _write(self, handle: int, partial: Path, path: Path, size: int, texts: Sequence[bytes | memoryview]) -> None:
        is_kept = False
        try:
            with open(handle, "wb") as file:
                for text in texts:
                    file.write(text)
            os.link(partial, path)
            is_kept = True
        except FileExistsError:  # another process has decoded it, too
            pass
        finally:
            if not is_kept:
                self._room.give_back(size)
            partial.unlink()

    def _stop_writing(self, error: OSError) -> None:
        self._is_writable = False
        reason = error.strerror or type(error).__name__
        complain(
            f"dhp: frame_cache: {self._folder} cannot be written ({reason}); what is not in it is decoded each time"
        )

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """When used last (ns), bytes, path; files that somebody has left half-written are removed."""
        abandoned = time.time_ns() - int(_ABANDONED_S * 1e9)
        for folder in os.scandir(self._folder):
            if not (re.fullmatch("[0-9a-f]{2}", folder.name) and folder.is_dir(follow_symlinks=False)):
                continue
            for entry in os.scandir(folder.path):
                with contextlib.suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    if re.fullmatch("[0-9a-f]{30}", entry.name):
                        yield about.st_mtime_ns, about.st_size, entry.path
                    elif entry.name.startswith(PARTIAL) and about.st_mtime_ns < abandoned:
                        os.unlink(entry.path)
                    elif entry.name.startswith(PARTIAL):
                        yield float("inf"), about.st_size, entry.path


def _new_file(path: Path, size: int) -> tuple[int, Path]:
    """One of so many bytes that is to become `path`: its handle and its name so far."""
    path.parent.mkdir(exist_ok=True)
    handle, partial = new_beside(path)
    try:
        os.ftruncate(handle, size)
    except OSError:
        os.close(handle)
        partial.unlink()
        raise
    return handle, partial


def _unlinked(path: str | Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        return True
    return False


def _tells_changes(medium: Medium) -> bool:
    """Of what lies at an address without an ETag or the like, nobody could tell whether it has changed."""
    pieces = map(remote_piece, [medium.source] if isinstance(medium.source, str) else medium.source)
    return all(piece is None or (piece.whole is not None and bool(piece.whole.tag)) for piece in pieces)


def _keys_of(medium: Medium, numbers: Sequence[int], processor: Processor) -> dict[int, bytes]:
    """Of all that the parts' pixels follow from. Raises MediumError where a file cannot be looked at."""
    # Tiles follow from how many there are; of a clip, the frame's number says all.
    units = medium.units if medium.kind == "image" else 0
    common = (
        *(medium.kind, units, medium.height, medium.width, part_size(medium, processor)),
        *(processor.family, processor.fingerprint, _LIBRARIES),
    )

    def file(source: str) -> tuple[Any, ...]:
        return source if remote_piece(source) else os.path.abspath(source), *check_file(source, processor.media_roots)

    if isinstance(medium.source, str):
        same = file(medium.source)
        return {number: _key_of(*same, number, *common) for number in numbers}
    return {number: _key_of(*file(medium.source[number]), number, *common) for number in numbers}


def _key_of(*follows_from: Any) -> bytes:
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
