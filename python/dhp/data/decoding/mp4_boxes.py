"""Where in an MP4 or QuickTime file the frames are.

Their sizes, places and time stamps stand in a table of their own (the box `moov`), so the frames themselves (`mdat`)
need not be read to count them. Not so in files of fragments, whose tables stand between the frames.
"""

from __future__ import annotations

import os
import struct
from typing import IO

_HARMLESS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"udta", b"uuid", b"meta")
_MOST_BOXES = 64


def frames_in(file: IO[bytes]) -> range:
    """Bytes of the box that holds the frames, without its head; empty where the file has no one such box, or is of
    another kind. `file` stands where it stood."""
    before = file.tell()
    try:
        return _frames_in(file)
    finally:
        file.seek(before)


def _frames_in(file: IO[bytes]) -> range:
    size, at, found = file.seek(0, os.SEEK_END), 0, range(0)
    kinds: list[bytes] = []
    while at + 8 <= size and len(kinds) < _MOST_BOXES:
        file.seek(at)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        begin = at + 8
        if length == 1 and len(head) == 16:
            length, begin = struct.unpack(">Q", head[8:])[0], at + 16
        elif length == 0:
            length = size - at
        if kind not in _HARMLESS or length < begin - at:
            return range(0)
        kinds.append(kind)
        if kind == b"mdat":
            found = range(begin, min(size, at + length))
        at += length
    is_plain = kinds.count(b"moov") == kinds.count(b"mdat") == 1 and at >= size
    return found if is_plain else range(0)


__all__ = ["frames_in"]
