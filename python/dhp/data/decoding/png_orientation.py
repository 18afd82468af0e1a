"""How a PNG is turned, without decoding it.

Its EXIF may stand behind the pixels, as eXIf or text. Pillow's `getexif()` decodes the whole picture on its way there;
here the heads of chunks are read instead. What Pillow makes of a chunk is left to Pillow.
"""

from __future__ import annotations

import os
import struct
from typing import IO

from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngStream

_ORIENTATION = 0x0112  # EXIF tag 274
_SAYS_MORE = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # EXIF, or XMP
_HEAD = struct.Struct(">I4s")  # bytes of the chunk's data, and its kind
_CRC_BYTES = 4
_MOST_SAYING_MORE = 1000  # chunks; no picture has as many


def orientation_of(picture: Image.Image) -> object:
    """As Pillow's EXIF has it: 1 … 8, or whatever else a file says; 1 where it says nothing.

    What is broken raises as in Pillow, but for pixels, which are not looked at."""
    if isinstance(picture, PngImageFile) and "exif" not in picture.info and picture.png is not None:
        assert picture.fp is not None
        before = picture.fp.tell()
        chunks = _chunks_behind_pixels(picture.fp)
        picture.fp.seek(before)
        if chunks is not None:
            for kind, position, length in chunks:
                picture.fp.seek(position)
                picture.png.call(kind, position, length)  # adds to picture.info
            return Image.Image.getexif(picture).get(_ORIENTATION, 1)
    return picture.getexif().get(_ORIENTATION, 1)


def _chunks_behind_pixels(file: IO[bytes]) -> list[tuple[bytes, int, int]] | None:
    """(kind, position of its data, length) of those that may say more; None where only decoding tells what Pillow
    would say: files that are cut off or animated, and odd or very many chunks."""
    size = file.seek(0, os.SEEK_END)
    found: list[tuple[bytes, int, int]] = []
    offset = 8  # behind the signature
    last = b""
    pixels = False
    while offset + _HEAD.size <= size:
        file.seek(offset)
        length, kind = _HEAD.unpack(file.read(_HEAD.size))
        position = offset + _HEAD.size
        offset = position + length + _CRC_BYTES
        if kind == b"IEND":
            return found if pixels else None
        if offset > size or kind in (b"acTL", b"fcTL", b"fdAT"):
            return None
        if kind == b"IDAT":
            if pixels and last != b"IDAT":
                return None
            pixels = True
        elif pixels and kind in _SAYS_MORE:
            if len(found) == _MOST_SAYING_MORE:
                return None
            found.append((kind, position, length))
        elif pixels and (not kind.isalpha() or hasattr(PngStream, f"chunk_{kind.decode('ascii')}")):
            return None
        last = kind
    return None
