"""A sample as a record of the index, and back. Paths below the data file's folder are stored relative to it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dhp.data.access import remote
from dhp.data.access.files import check_root
from dhp.data.access.pieces import Piece, file_of, in_file, is_base64, remote_piece
from dhp.data.access.urls import Object, is_url, joined
from dhp.data.decoding.media import Medium
from dhp.data.formats.samples import Message

_FIELDS = {field.name: field for field in dataclasses.fields(Medium)}
# fields of a Medium that hold whole numbers
_WHOLE = ("grid", "height", "width", "unit_rows", "frame_indices", "last_rows", "last_patches", "mel_frames")


def record_of(
    messages: Iterable[Message],
    media: Iterable[Medium],
    tools: tuple[dict[str, Any], ...],
    folder: Path | str,
    seen: dict[str, Any] | None = None,
) -> bytes:
    """`seen`: see ignored_if_same."""
    row: dict[str, Any] = {"messages": [message.to_json() for message in messages]}
    if listed := [_medium_json(medium, folder) for medium in media]:
        row["media"] = listed
    if tools:
        row["tools"] = list(tools)
    if seen:
        row["seen"] = seen
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def parts_of(
    row: dict[str, Any], folder: Path | str
) -> tuple[tuple[Message, ...], tuple[Medium, ...], tuple[dict[str, Any], ...]]:
    """Messages, media and tools. Raises TypeError, KeyError and the like for what no index of ours holds."""
    media = tuple(_medium_from(value, folder) for value in row.get("media", ()))
    return tuple(Message.from_json(message) for message in row["messages"]), media, tuple(row.get("tools", ()))


# ---- what a line was when it was read -------------------------------------------------------------------------------


def digest_of(text: str) -> str:
    """Of a line of a data file."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def files_of(sources: Iterable[str | tuple[str, ...]]) -> list[list[Any]]:
    """Size and time of change (ns) of the files of media, in order; of those at addresses, size and tag as the source
    says; nothing of one that cannot be looked at, and of base64, which is a part of the line."""
    return _files_of(sources, lambda piece: piece.whole)


def _files_of(sources: Iterable[str | tuple[str, ...]], look: Callable[[Piece], Object | None]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for source in sources:
        for path in [source] if isinstance(source, str) else source:
            if is_base64(path):
                found.append([])
                continue
            try:
                if piece := remote_piece(path):
                    whole = look(piece)
                    found.append([whole.size, whole.tag] if whole else [])
                else:
                    about = os.stat(file_of(path))
                    found.append([about.st_size, about.st_mtime_ns])
            except (OSError, ValueError):
                found.append([])
    return found


def ignored_if_same(
    record: bytes, digest: str, begin: int, folder: Path | str, roots: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The ignored keys of the line of this record, if the line still has this digest (and, where it holds media itself,
    begins where it did) and its media are the files that they were, by size and time of change; else None. What
    record_of has got as `seen` says what they were."""

    def look(piece: Piece) -> Object:
        check_root(piece.path, roots)
        return remote.known(piece.path)

    try:
        row = json.loads(record)
        seen = row["seen"]
        if seen["line"] != digest or seen.get("begin", begin) != begin:
            return None
        sources = (_absolute(_tuples(medium["source"]), folder) for medium in row.get("media", ()))
        return tuple(seen.get("ignored", ())) if _files_of(sources, look) == seen.get("files", []) else None
    except (KeyError, TypeError, AttributeError, ValueError):
        return None


def portable(path: str, folder: Path | str) -> str:
    """Relative to the folder, whose links are resolved, where it lies below it; else from the root. Addresses stay."""
    if is_url(file_of(path)):
        return path
    absolute = Path(os.path.abspath(file_of(path)))
    resolved = Path(os.path.realpath(absolute.parent)) / absolute.name
    inside = next((one for one in (absolute, resolved) if one.is_relative_to(folder)), None)
    return in_file(path, str(inside.relative_to(folder) if inside else absolute))


def _medium_json(medium: Medium, folder: Path | str) -> dict[str, Any]:
    """Its fields but for those that are as usual."""
    row = {name: getattr(medium, name) for name in _FIELDS}
    row = {name: value for name, value in row.items() if value != _FIELDS[name].default}
    source = medium.source
    row["source"] = portable(source, folder) if isinstance(source, str) else [portable(path, folder) for path in source]
    return row


def _medium_from(row: dict[str, Any], folder: Path | str) -> Medium:
    values = {name: _tuples(value) for name, value in row.items()}
    values["source"] = _absolute(values["source"], folder)
    for name in _WHOLE:
        found = values.get(name, ())
        _check_whole(found if isinstance(found, tuple) else (found,))
    if values["kind"] not in ("image", "video", "audio") or len(values["grid"]) != 3:
        raise TypeError(f"a medium of kind {values['kind']} and grid {values['grid']}")
    return Medium(**values)


def _absolute(source: Any, folder: Path | str) -> str | tuple[str, ...]:
    if isinstance(source, str):
        return in_file(source, joined(folder, file_of(source)))
    return tuple(in_file(path, joined(folder, file_of(path))) for path in source)


def _tuples(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check_whole(values: Iterable[Any]) -> None:
    for value in values:
        if type(value) is not int or not 0 <= value < 1 << 50:
            raise TypeError(f"found {json.dumps(value)[:40]} for a whole number")


__all__ = ["digest_of", "files_of", "ignored_if_same", "parts_of", "portable", "record_of"]
