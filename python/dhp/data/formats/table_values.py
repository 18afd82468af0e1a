"""Values of Arrow arrays, among them media: bytes, or the struct {bytes, path} of `datasets`. Bytes are not copied
before they are wanted."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bytes:
    """A value somewhere in memory, which is there as long as its array is."""

    address: int
    size: int


def content_of(value: Bytes | bytes) -> bytes:
    return ctypes.string_at(value.address, value.size) if isinstance(value, Bytes) else value


def values_of(array: Any) -> list[Any]:
    """As Python has them."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_struct(kind):
        children = {kind.field(i).name: values_of(array.field(i)) for i in range(kind.num_fields)}
        valid = array.is_valid().to_pylist()
        return [{key: child[i] for key, child in children.items()} if ok else None for i, ok in enumerate(valid)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        items, ends = values_of(array.values), array.offsets.to_pylist()
        valid = array.is_valid().to_pylist()
        return [items[ends[i] : ends[i + 1]] if ok else None for i, ok in enumerate(valid)]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        _, ends, values = array.buffers()
        width = "<i4" if pa.types.is_binary(kind) else "<i8"
        places = np.frombuffer(ends, width)[array.offset : array.offset + len(array) + 1].tolist()
        address = values.address if values else 0
        return [
            Bytes(address + places[i], places[i + 1] - places[i]) if ok else None
            for i, ok in enumerate(array.is_valid().to_pylist())
        ]
    found: list[Any] = array.to_pylist()
    return found


def named(value: Any, name: str, media: list[tuple[str, Bytes | bytes]]) -> Any:
    """As JSON has it: a medium becomes a name. `media` gets it with that name, in the order in which they stand."""
    if isinstance(value, dict):
        if value.keys() == {"bytes", "path"}:
            return named(value["path"] if value["bytes"] is None else value["bytes"], name, media)
        return {key: named(one, f"{name}.{key}", media) for key, one in value.items()}
    if isinstance(value, list):
        return [named(one, f"{name}[{i}]", media) for i, one in enumerate(value)]
    if not isinstance(value, (Bytes, bytes)):
        return value
    media.append((name, value))
    return name


__all__ = ["Bytes", "content_of", "named", "values_of"]
