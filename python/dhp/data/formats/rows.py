"""The samples of a data file of any kind, one after the other, each as the text of its row."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dhp.data.access.urls import path_of
from dhp.data.errors import DataError
from dhp.data.formats.lines import read_lines

TABLES = (".arrow", ".parquet")
TARS = (".tar",)


@dataclass(frozen=True)
class Numbered:
    """A sample of a data file, not yet parsed.

    line     its number, from 1: its line, or its place among the samples of another kind of file
    text     its row in JSON, or what is wrong with it
    members  sources of media by the names that the row has for them, where they are parts of the file
    begin    where in the file the text begins; -1 where it is not in the file as it is
    """

    line: int
    text: str | DataError
    members: Mapping[str, str] | None = None
    begin: int = -1


def read_rows(
    path: str | os.PathLike[str], max_line_bytes: int, at: Callable[[int], None] = lambda offset: None
) -> Iterator[Numbered]:
    """Yields the samples; an error in place of one that cannot be read. `at` is told how far in the file it is. Raises
    DataError where the file as a whole is none."""
    if path_of(str(path)).endswith(TARS):
        from dhp.data.formats.tars import read_tar

        yield from read_tar(path, max_line_bytes, at)
        return
    if path_of(str(path)).endswith(TABLES):
        from dhp.data.formats.tables import read_table

        yield from read_table(path, max_line_bytes, at)
        return
    begin = 0

    def note(first: int, last: int) -> None:
        nonlocal begin
        begin = first
        at(last)

    for line, text in read_lines(path, max_line_bytes, note):
        yield Numbered(line, text, None, begin)


__all__ = ["TABLES", "TARS", "Numbered", "read_rows"]
