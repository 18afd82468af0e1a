"""What libraries open for a medium, wherever it lies: a path, or a file object."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from dhp.data.access import remote_file
from dhp.data.access.media_cache import MediaCache
from dhp.data.access.pieces import decoded, readable, remote_piece
from dhp.data.access.remote_file import RemoteFile

Cache = MediaCache | None
_MOST_IN_MEMORY = 64 << 20  # of a medium that is read as a whole


def pinned(source: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """With what each file at an address is now. Raises MediumError. Whether it may be asked for, check_root says."""
    if isinstance(source, tuple):
        return tuple(_pinned(path) for path in source)
    return _pinned(source)


def _pinned(source: str) -> str:
    piece = remote_piece(source)
    if piece is None or piece.whole is not None:
        return source
    found = remote_file.look(piece.path)
    return replace(piece, size=found.size, whole=found).source()


@contextlib.contextmanager
def opened_medium(source: str, cache: Cache = None, entire: bool = False) -> Iterator[Any]:
    """A path or a file object. `entire`: all of it will be read; else, of what lies at an address, only what is read is
    fetched. Raises OSError, ValueError and MediumError."""
    piece = remote_piece(_pinned(source))
    if piece is None:
        with readable(source) as local:
            yield local
        return
    assert piece.whole is not None
    place = (piece.path, piece.whole, piece.offset, piece.size)
    if piece.is_base64:
        yield io.BytesIO(decoded(remote_file.contents(*place, cache)))
    elif entire and (path := remote_file.cached(*place, cache)):
        try:
            file: Any = open(path, "rb")  # noqa: SIM115  # closed below
        except FileNotFoundError:  # it had to make room just now
            file = io.BytesIO(remote_file.contents(*place, None))
        with file:
            yield file
    elif entire and piece.size <= _MOST_IN_MEMORY:
        yield io.BytesIO(remote_file.contents(*place, None))
    else:
        with RemoteFile(*place, cache) as raw:
            yield io.BufferedReader(raw)


__all__ = ["Cache", "opened_medium", "pinned"]
