"""Samples of an Arrow file, as Hugging Face's `datasets` keeps them, and of Parquet; pyarrow reads them.

A row is a row as in a JSON lines file: columns `messages` or `conversations`, `images`, `videos` and so on, nulls left
out. A medium is a path, or the struct of `datasets`, {bytes, path}: where there are bytes, they are the medium. In an
Arrow file they lie somewhere as they are, so that a medium is a piece of the file (pieces.py), and reading it needs no
pyarrow. Parquet packs them: such a file is to be written as Arrow once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhp.data.errors import DataError
from dhp.data.lines import opened
from dhp.data.pieces import Piece
from dhp.data.rows import Numbered
from dhp.data.urls import is_url, path_of, shown_url

_LIMIT = "max_line_bytes (dhp index --max-line-bytes)"
_AS_ARROW = (
    "Parquet packs the bytes of media, so that none can be read alone; write the file as Arrow: "
    "datasets.load_dataset('parquet', data_files=FILE, split='train').save_to_disk(FOLDER)"
)


def read_table(path: str | os.PathLike[str], max_row_bytes: int, at: Callable[[int], None]) -> Iterator[Numbered]:
    """Yields the rows, numbered from 1; an error in place of one that cannot be understood. `at` is told about how far
    in the file it is. Raises DataError where the file is none that pyarrow reads."""
    try:
        import pyarrow as pa
    except ImportError:
        raise DataError(f'{path}: reading it needs pyarrow: pip install "dhp[formats]"') from None
    if is_url(path):
        yield from _remote(path, max_row_bytes, at)
        return
    try:
        if str(path).endswith(".parquet"):
            import pyarrow.parquet as pq

            batches, mapped = pq.ParquetFile(path).iter_batches(64), range(0)
        else:
            source = pa.memory_map(str(path))
            whole = source.read_buffer()
            batches, mapped = _batches(pa, source), range(whole.address, whole.address + whole.size)
        yield from _rows(batches, mapped, str(path), max_row_bytes, at)
    except pa.ArrowException as error:
        raise DataError(f"{path}: cannot be read: {_said(error)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or _said(error)}") from None


def _remote(path: str | os.PathLike[str], max_row_bytes: int, at: Callable[[int], None]) -> Iterator[Numbered]:
    """Of a table at an address, which is read by ranges."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path_of(str(path)).endswith(".parquet"):
        raise DataError(f"{shown_url(str(path))}: Arrow files are read on a disk only; copy it there, or write Parquet")
    with opened(path) as file:
        try:
            yield from _rows(pq.ParquetFile(file).iter_batches(64), range(0), str(path), max_row_bytes, at)
        except pa.ArrowException as error:
            raise DataError(f"{shown_url(str(path))}: cannot be read: {_said(error)}") from None


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _batches(pa: Any, source: Any) -> Iterator[Any]:
    source.seek(0)
    try:
        batches = pa.ipc.open_stream(source)  # as `datasets` writes them
    except pa.ArrowInvalid:
        source.seek(0)
        file = pa.ipc.open_file(source)
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
    yield from batches


@dataclass(frozen=True)
class _Bytes:
    """A value somewhere in memory, which is not looked at."""

    address: int
    size: int


def _rows(
    batches: Iterator[Any], mapped: range, path: str, max_row_bytes: int, at: Callable[[int], None]
) -> Iterator[Numbered]:
    """`mapped`: addresses of the file's bytes; none of one whose bytes are packed."""
    number, read = 0, 0
    for batch in batches:
        columns = {name: _values(batch.column(place)) for place, name in enumerate(batch.schema.names)}
        for i in range(batch.num_rows):
            number += 1
            members: dict[str, str] = {}
            row = {name: _named(values[i], name, members, path, mapped) for name, values in columns.items()}
            text = json.dumps(row, ensure_ascii=False, default=str)
            if len(text) > max_row_bytes:
                what = f"is longer than {max_row_bytes:,} bytes; shorten it, or raise {_LIMIT}"
                yield Numbered(number, DataError(what))
            else:
                yield Numbered(number, text, members)
        read += batch.nbytes
        at(read)


def _values(array: Any) -> list[Any]:
    """Of an Arrow array, as Python has them; bytes are not copied."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_struct(kind):
        children = {kind.field(i).name: _values(array.field(i)) for i in range(kind.num_fields)}
        valid = array.is_valid().to_pylist()
        return [{key: child[i] for key, child in children.items()} if ok else None for i, ok in enumerate(valid)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        items, ends = _values(array.values), array.offsets.to_pylist()
        valid = array.is_valid().to_pylist()
        return [items[ends[i] : ends[i + 1]] if ok else None for i, ok in enumerate(valid)]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        _, ends, values = array.buffers()
        width = "<i4" if pa.types.is_binary(kind) else "<i8"
        places = np.frombuffer(ends, width)[array.offset : array.offset + len(array) + 1].tolist()
        address = values.address if values else 0
        return [
            _Bytes(address + places[i], places[i + 1] - places[i]) if ok else None
            for i, ok in enumerate(array.is_valid().to_pylist())
        ]
    found: list[Any] = array.to_pylist()
    return found


def _named(value: Any, name: str, members: dict[str, str], path: str, mapped: range) -> Any:
    """As JSON has it: bytes become a name, which `members` knows, and so does the struct {bytes, path}."""
    if isinstance(value, dict):
        if value.keys() == {"bytes", "path"}:
            return _named(value["path"] if value["bytes"] is None else value["bytes"], name, members, path, mapped)
        return {key: _named(one, f"{name}.{key}", members, path, mapped) for key, one in value.items()}
    if isinstance(value, list):
        return [_named(one, f"{name}[{i}]", members, path, mapped) for i, one in enumerate(value)]
    if isinstance(value, bytes) or (isinstance(value, _Bytes) and not mapped):
        raise DataError(f"{path}: {_AS_ARROW}")
    if not isinstance(value, _Bytes):
        return value
    if value.size and value.address not in mapped:
        raise DataError(f"{path}: is compressed, so that no medium can be read alone; write it without compression")
    members[name] = Piece(path, max(0, value.address - mapped.start), value.size, name).source()
    return name


__all__ = ["read_table"]
