"""The lines of a data file. No line is read further than a limit, and one odd line is no odd file.

A file that holds no JSON lines at all (a JSON array, one object over several lines, Parquet, UTF-16, …) is refused as a
whole, in one line; what is wrong with one line is said of that line.
"""

from __future__ import annotations

import collections
import contextlib
import io
import itertools
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from typing import IO, Any

from dhp.data.access import remote
from dhp.data.access.pieces import shown
from dhp.data.access.remote_file import RemoteFile
from dhp.data.access.urls import is_url
from dhp.data.errors import DataError

MAX_LINE_BYTES = 16_000_000  # a sample of a million tokens has a quarter of that
_MOST_LEVELS = 100  # of lists and objects in each other
_HEAD_BYTES = 1 << 20  # looked at to see what kind of file it is
_HEAD_LINES = 20
_OTHER_FILES = {
    b"\x1f\x8b": "a gzip file; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file; unpack it first",
    b"\xfd7zXZ": "an xz file; unpack it first",
    b"PK\x03\x04": "a zip file; unpack it first",
    b"PAR1": "a Parquet file; give it a name that ends in .parquet",
    b"ARROW1": "an Arrow file; give it a name that ends in .arrow",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it with git lfs pull",
}
_ONE_A_LINE = "write one JSON object a line"


def read_lines(
    path: str | os.PathLike[str],
    max_line_bytes: int = MAX_LINE_BYTES,
    at: Callable[[int, int], None] = lambda begin, end: None,
) -> Iterator[tuple[int, str | DataError]]:
    """Yields (number from 1, text) of every line that is not blank; an error in place of a text that is too long or
    not UTF-8. `at` is told where in the file each line is. Raises DataError where the file cannot be read, or is no
    JSONL file."""
    with opened(path) as file:
        _check_kind(path, file)
        for number in itertools.count(1):
            begin = file.tell()
            line = file.readline(max_line_bytes + 1)
            if not line:
                return
            at(begin, file.tell())
            if len(line) > max_line_bytes and not line.endswith(b"\n"):
                while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                    pass
                yield (
                    number,
                    DataError(
                        f"is longer than {max_line_bytes:,} bytes; shorten it, or raise max_line_bytes "
                        "(dhp index --max-line-bytes)"
                    ),
                )
            elif line.strip():
                yield number, _decoded(line)


def parse_json(text: str) -> Any:
    """A JSON value, as strict as the standard: no key twice, no NaN, no number beyond a double, no half of a character.
    Raises DataError."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite)
        if text.count("[") + text.count("{") > _MOST_LEVELS and _levels(value) > _MOST_LEVELS:
            raise RecursionError  # whoever walks through it later must not run out of stack
        if "\\ud" in text.lower():
            _refuse_halves(value)
        return value
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise DataError(f"not valid JSON: nested more than {_MOST_LEVELS} levels deep") from None
    except ValueError as error:  # of the hooks, and a whole number of more than 4,300 digits
        raise DataError(f"not valid JSON: {str(error).partition(';')[0]}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {json.dumps(twice)[:80]} stands twice in one object")
    return found


def _levels(value: Any) -> int:
    """How deep lists and objects are nested."""
    level, row = 0, [value]
    while row := [item for item in row if isinstance(item, (list, dict))]:
        level += 1
        row = [inner for item in row for inner in (item.values() if isinstance(item, dict) else item)]
    return level


def _refuse_halves(value: Any) -> None:
    """Of characters: no file in UTF-8 can hold them."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("unicode_escape").decode()
        raise ValueError(f"{half} is half of a character, and its other half is not there") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """The file, on a disk or at an address. Devices and pipes are refused before they are opened: that may wait for
    ever, or have no end, and an index reads its data twice. Raises DataError where it cannot be opened or read."""
    advice = "give the path of a JSONL file"
    if is_url(path):
        with RemoteFile(str(path), remote.known(str(path))) as raw:
            yield io.BufferedReader(raw)
        return
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            what = "is a folder" if os.path.isdir(path) else "is no regular file"
            raise DataError(f"{path}: cannot be read: {what}; {advice}")
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; {advice}") from None
    except DataError:
        raise
    except ValueError as error:  # a NUL in the path
        raise DataError(f"{str(path)!r}: cannot be read: {error}; {advice}") from None
    try:
        with file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _decoded(line: bytes) -> str | DataError:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        return DataError(f"is not UTF-8 text (byte {error.start + 1} of the line is 0x{line[error.start]:02x})")


def _check_kind(path: str | os.PathLike[str], file: IO[bytes]) -> None:
    """Raises DataError for a file that is no JSON lines; leaves `file` at its first line."""
    head, path = file.read(_HEAD_BYTES), shown(str(path))
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: is not UTF-8 text but UTF-16; give a JSONL file in UTF-8")
    for magic, what in _OTHER_FILES.items():
        if head.startswith(magic):
            raise DataError(f"{path}: is {what}")
    mark = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    file.seek(mark)
    whole = len(head) < _HEAD_BYTES
    rows = [row.strip() for row in head[mark:].splitlines(keepends=True)]
    rows = [row for row in rows if row][: _HEAD_LINES + 1]
    if not rows:
        return
    first, rest = rows[0], rows[1:]
    state = _ending(first)
    if first.startswith(b"[") and (state == "open" or (state == "whole" and whole and not rest)):
        raise DataError(f"{path}: is a JSON array; {_ONE_A_LINE} (jq -c '.[]' FILE)")
    if first.startswith(b"{") and state == "open" and rest and not rest[0].startswith(b"{"):
        raise DataError(f"{path}: has one JSON object over several lines; {_ONE_A_LINE} (jq -c . FILE)")
    if len(rows) > 1 and not any(row.startswith((b"{", b"[")) for row in rows):
        raise DataError(f"{path}: is no JSON lines (no line begins with a brace); {_ONE_A_LINE}")


def _ending(row: bytes) -> str:
    """open: JSON that its line's end cuts off; whole: JSON; odd: neither."""
    try:
        text = row.decode()
        json.loads(text)
        return "whole"
    except json.JSONDecodeError as error:
        return "open" if error.pos >= len(text) else "odd"
    except (ValueError, RecursionError):
        return "odd"
