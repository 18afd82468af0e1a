"""Media that are a part of a file: a member of a tar, a value of an Arrow or Parquet table, base64 in a line.

A source is the path of a file or, with a NUL behind it, which no path holds, where in the file the medium is and a name
for messages. Where it lies there as it is, that is a range of bytes, so that it is found without reading what stands
before it; Parquet packs its values, so there it is a row. The address of a file that is not on a disk has a NUL behind
it, too, and what the file was when it was indexed: another is not read for it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dhp.data.access.part_file import PartFile
from dhp.data.access.urls import Object, is_url, shown_url

_MARK = "\0"


@dataclass(frozen=True)
class Piece:
    """Bytes offset … offset+size-1 of a file. is_base64: they are text that stands for bytes. whole: of a file at an
    address, what it was when it was indexed."""

    path: str
    offset: int
    size: int
    name: str
    is_base64: bool = False
    whole: Object | None = None

    def source(self) -> str:
        kind = "base64" if self.is_base64 else "bytes"
        if self.whole:
            kind += f"@{self.whole.size}@{self.whole.tag}"
        return f"{self.path}{_MARK}{self.offset},{self.size},{kind},{self.name}"


@dataclass(frozen=True)
class Cell:
    """Bytes in a row of a Parquet file: the `nth` medium in the value that a column has there; all counted from 0."""

    path: str
    row: int
    size: int
    column: int
    nth: int
    name: str

    def source(self) -> str:
        return f"{self.path}{_MARK}{self.row},{self.size},cell {self.column} {self.nth},{self.name}"


def file_of(source: str) -> str:
    """The path of the file that a source is, or is a piece of."""
    piece = _piece_of(source)
    return piece if isinstance(piece, str) else piece.path


def in_file(source: str, path: str) -> str:
    """The same piece of a file at another path."""
    _, mark, rest = source.partition(_MARK)
    return path + mark + rest


def is_base64(source: str) -> bool:
    piece = _piece_of(source)
    return isinstance(piece, Piece) and piece.is_base64


def shown(source: str) -> str:
    """For messages."""
    piece = _piece_of(source)
    path = piece if isinstance(piece, str) else piece.path
    path = shown_url(path) if is_url(path) else path
    return path if isinstance(piece, str) or not piece.name else f"{path}: {piece.name}"


def _piece_of(source: str) -> Piece | Cell | str:
    path, mark, rest = source.partition(_MARK)
    parts = rest.split(",", 3)
    if not mark or len(parts) != 4 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return source  # with a NUL in it, it is no path either: whoever opens it says so
    if cell := re.fullmatch(r"cell (\d{1,9}) (\d{1,9})", parts[2]):
        return Cell(path, int(parts[0]), int(parts[1]), int(cell[1]), int(cell[2]), parts[3])
    kind, *whole = parts[2].split("@")
    found = Object(int(whole[0]), whole[1]) if len(whole) == 2 and whole[0].isdecimal() else None
    return Piece(path, int(parts[0]), int(parts[1]), parts[3], kind == "base64", found)


def remote_piece(source: str) -> Piece | None:
    """What a source is that lies at an address; None for one on a disk. An address without what it was when it was
    indexed has no `whole`, and no size."""
    piece = _piece_of(source)
    if isinstance(piece, str):
        return Piece(piece, 0, 0, "") if is_url(piece) else None
    return piece if isinstance(piece, Piece) and is_url(piece.path) else None


@contextlib.contextmanager
def readable(source: str) -> Iterator[Any]:
    """What libraries open: a path, or a file object of the piece. Not for addresses: see opening.py. Raises OSError or
    ValueError."""
    piece = _piece_of(source)
    if isinstance(piece, str):
        yield source
        return
    if isinstance(piece, Cell):
        from dhp.data.access.cells import read_cell

        yield io.BytesIO(read_cell(piece))
        return
    with open(piece.path, "rb") as file:
        if os.fstat(file.fileno()).st_size < piece.offset + piece.size:
            raise ValueError("its file has become shorter since it was indexed")
        if piece.is_base64:
            yield io.BytesIO(decoded(os.pread(file.fileno(), piece.size, piece.offset)))
        else:
            yield io.BufferedReader(_Range(file.fileno(), piece.offset, piece.size))


def decoded(text: bytes) -> bytes:
    """Bytes of base64, with JSON's escape of its slashes. Raises ValueError."""
    try:
        return base64.b64decode(text.replace(b"\\", b""), validate=True)
    except binascii.Error as error:
        raise ValueError(f"is not base64 ({error})") from None


class _Range(PartFile):
    """A part of an open file."""

    def __init__(self, handle: int, offset: int, size: int) -> None:
        super().__init__(size)
        self._handle, self._offset = handle, offset

    def _read(self, count: int) -> bytes:
        return os.pread(self._handle, count, self._offset + self._at)


__all__ = ["Cell", "Piece", "decoded", "file_of", "in_file", "is_base64", "readable", "shown"]
