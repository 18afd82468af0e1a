"""A sample as a record of the index, and back. Paths below the data file's folder are stored relative to it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dhp.data.media import Medium
from dhp.data.samples import Message

_FIELDS = {field.name: field for field in dataclasses.fields(Medium)}
_WHOLE = ("grid", "height", "width", "frame_indices")  # fields of a Medium that hold whole numbers


def record_of(
    messages: Iterable[Message], media: Iterable[Medium], tools: tuple[dict[str, Any], ...], folder: Path
) -> bytes:
    row: dict[str, Any] = {"messages": [message.to_json() for message in messages]}
    if listed := [_medium_json(medium, folder) for medium in media]:
        row["media"] = listed
    if tools:
        row["tools"] = list(tools)
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def parts_of(
    row: dict[str, Any], folder: Path
) -> tuple[tuple[Message, ...], tuple[Medium, ...], tuple[dict[str, Any], ...]]:
    """Messages, media and tools. Raises TypeError, KeyError and the like for what no index of ours holds."""
    media = tuple(_medium_from(value, folder) for value in row.get("media", ()))
    return tuple(Message.from_json(message) for message in row["messages"]), media, tuple(row.get("tools", ()))


def portable(path: str, folder: Path) -> str:
    """Relative to the folder where it lies below it."""
    absolute = Path(path)
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


def _medium_json(medium: Medium, folder: Path) -> dict[str, Any]:
    """Its fields but for those that are as usual."""
    row = {name: getattr(medium, name) for name in _FIELDS}
    row = {name: value for name, value in row.items() if value != _FIELDS[name].default}
    source = medium.source
    row["source"] = portable(source, folder) if isinstance(source, str) else [portable(path, folder) for path in source]
    return row


def _medium_from(row: dict[str, Any], folder: Path) -> Medium:
    values = {name: _tuples(value) for name, value in row.items()}
    source = values["source"]
    values["source"] = str(folder / source) if isinstance(source, str) else tuple(str(folder / path) for path in source)
    for name in _WHOLE:
        found = values.get(name, ())
        _check_whole(found if isinstance(found, tuple) else (found,))
    if values["kind"] not in ("image", "video") or len(values["grid"]) != 3:
        raise TypeError(f"a medium of kind {values['kind']} and grid {values['grid']}")
    return Medium(**values)


def _tuples(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _check_whole(values: Iterable[Any]) -> None:
    for value in values:
        if type(value) is not int or not 0 <= value < 1 << 50:
            raise TypeError(f"found {json.dumps(value)[:40]} for a whole number")


__all__ = ["parts_of", "portable", "record_of"]
