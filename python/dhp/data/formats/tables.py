"""Samples of an Arrow file, as Hugging Face's `datasets` keeps them, and of Parquet; pyarrow reads them.

A row is a row as in a JSON lines file: columns `messages` or `conversations`, `images`, `videos` and so on, nulls left
out. A medium is a path, its bytes, or the struct of `datasets`, {bytes, path}: where there are bytes, they are the
medium. In an Arrow file they lie somewhere as they are, so that a medium is a piece of the file (pieces.py), and
reading it needs no pyarrow. Parquet packs them: there a medium is known by its row (cells.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from dhp.data.access import cells, remote
from dhp.data.access.pieces import Cell, Piece
from dhp.data.access.urls import is_url, path_of, shown_url
from dhp.data.errors import DataError
from dhp.data.formats.lines import opened
from dhp.data.formats.rows import Numbered
from dhp.data.formats.table_values import Bytes, content_of, named, values_of

_LIMIT = "max_line_bytes (dhp index --max-line-bytes)"
_BATCH_BYTES = 32 << 20  # of Parquet, unpacked together; at least a row
_BATCH_ROWS = 64


def read_table(path: str | os.PathLike[str], max_row_bytes: int, at: Callable[[int], None]) -> Iterator[Numbered]:
    """Yields the rows, numbered from 1; an error in place of one that cannot be understood. `at` is told about how far
    in the file it is. Raises DataError where the file is none that pyarrow reads."""
    try:
        import pyarrow as pa
    except ImportError:
        raise DataError(f'{path}: reading it needs pyarrow: pip install "dhp[formats]"') from None
    if is_url(path):
        yield from _read_remote(str(path), max_row_bytes, at)
        return
    read = _read_parquet if str(path).endswith(".parquet") else _read_arrow
    try:
        yield from read(str(path), max_row_bytes, at)
    except pa.ArrowException as error:
        raise DataError(f"{path}: cannot be read: {_said(error)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or _said(error)}") from None


def _read_remote(path: str, max_row_bytes: int, at: Callable[[int], None]) -> Iterator[Numbered]:
    """Of a table at an address, which is read by ranges."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = shown_url(path)
    if not path_of(path).endswith(".parquet"):
        raise DataError(f"{name}: Arrow files are read on a disk only; copy it there, or write Parquet")
    number, size = 0, remote.known(path).size
    with opened(path) as file:
        try:
            table = pq.ParquetFile(file)
            rows = max(1, table.metadata.num_rows)
            for batch in table.iter_batches(_BATCH_ROWS):
                columns = _columns(batch)
                for i in range(batch.num_rows):
                    number += 1
                    media: list[tuple[str, Bytes | bytes]] = []
                    row = {column: named(values[i], column, media) for column, values in columns.items()}
                    if media:
                        raise DataError(
                            f"{name}: row {number}: {media[0][0]} holds the bytes of a medium, which Parquet packs: "
                            "they are read on a disk only; copy the file there, or give media as addresses"
                        )
                    yield _numbered(number, row, {}, max_row_bytes)
                at(size * number // rows)
        except pa.ArrowException as error:
            raise DataError(f"{name}: cannot be read: {_said(error)}") from None


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _read_arrow(path: str, max_row_bytes: int, at: Callable[[int], None]) -> Iterator[Numbered]:
    import pyarrow as pa

    source = pa.memory_map(path)
    whole = source.read_buffer()
    mapped = range(whole.address, whole.address + whole.size)
    number, read = 0, 0
    for batch in _batches(source):
        columns = _columns(batch)
        for i in range(batch.num_rows):
            number += 1
            media: list[tuple[str, Bytes | bytes]] = []
            row = {name: named(values[i], name, media) for name, values in columns.items()}
            members = {name: _piece(path, mapped, name, value) for name, value in media}
            yield _numbered(number, row, members, max_row_bytes)
        read += batch.nbytes
        at(read)


def _batches(source: Any) -> Iterator[Any]:
    import pyarrow as pa

    source.seek(0)
    try:
        batches = pa.ipc.open_stream(source)  # as `datasets` writes them
    except pa.ArrowInvalid:
        source.seek(0)
        file = pa.ipc.open_file(source)
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
    yield from batches


def _piece(path: str, mapped: range, name: str, value: Bytes | bytes) -> str:
    """The source of a medium in an Arrow file whose bytes have these addresses."""
    if isinstance(value, bytes):
        raise DataError(f"{path}: {name}: its bytes are of a type that is not read; write the column as binary")
    if value.size and value.address not in mapped:
        raise DataError(f"{path}: is compressed, so that no medium can be read alone; write it without compression")
    return Piece(path, max(0, value.address - mapped.start), value.size, name).source()


def _read_parquet(path: str, max_row_bytes: int, at: Callable[[int], None]) -> Iterator[Numbered]:
    """What was unpacked to find rows is kept for a while, for those who look at the media of these rows next."""
    file, size = cells.opened(path), os.path.getsize(path)
    number, rows = 0, max(1, file.metadata.num_rows)
    for group in range(file.num_row_groups):
        about = file.metadata.row_group(group)
        most = _BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)
        batches = file.iter_batches(max(1, min(_BATCH_ROWS, most)), row_groups=[group], use_threads=False)
        for batch in batches:
            columns = _columns(batch)
            for i in range(batch.num_rows):
                number += 1
                members: dict[str, str] = {}
                row = {}
                for place, (name, values) in enumerate(columns.items()):
                    media: list[tuple[str, Bytes | bytes]] = []
                    row[name] = named(values[i], name, media)
                    contents = [content_of(value) for _, value in media]
                    for nth, ((one, _), content) in enumerate(zip(media, contents, strict=True)):
                        members[one] = Cell(path, number - 1, len(content), place, nth, one).source()
                    if contents:
                        cells.check_group(path, about, group)
                        cells.keep(path, number - 1, place, contents)
                yield _numbered(number, row, members, max_row_bytes)
            at(size * number // rows)


def _numbered(number: int, row: dict[str, Any], members: dict[str, str], max_row_bytes: int) -> Numbered:
    text = json.dumps(row, ensure_ascii=False, default=str)
    if len(text) > max_row_bytes:
        return Numbered(number, DataError(f"is longer than {max_row_bytes:,} bytes; shorten it, or raise {_LIMIT}"))
    return Numbered(number, text, members)


def _columns(batch: Any) -> dict[str, list[Any]]:
    return {name: values_of(batch.column(place)) for place, name in enumerate(batch.schema.names)}


__all__ = ["read_table"]
