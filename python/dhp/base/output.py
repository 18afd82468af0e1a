"""What commands write: files, checked before the work and whole or not at all after it, and standard output."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from dhp._core import InputError, foreign_link

# C0 and C1 controls, marks of writing direction and of annotations, line separators (Unicode 15, category Cc, parts of
# Cf and Zl), as steers() of src/base/text.cpp; and lone surrogates, which no stream can encode.
_UNPRINTABLE = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"

PARTIAL = ".dhp-"  # how names of files begin that are not whole yet


def check_writable(option: str, file: str, *, append: bool = False) -> None:
    """Makes sure, before the work, that `write_atomically` can write `file` after it, or that `open_append` can add to
    it, and makes the file's folder. No file is made or changed. Raises InputError, which names `option`."""
    path = Path(file)
    try:
        check_links(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)  # links that lead to themselves, say, which pathlib takes for nothing
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_replaceable(path) and not (append and path.exists()):
            handle, partial = new_beside(path)
            os.close(handle)
            partial.unlink()
        elif not _may_write(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except (OSError, ValueError) as error:
        raise _unwritable(option, file, error) from None


def check_apart(outputs: dict[str, str], inputs: dict[str, str], model: str = "") -> None:
    """Raises InputError for a file to write (by option; empty: none) that is also read, written as something else, or
    lies in the model's folder: whoever mixes two paths up must not lose the data."""
    taken = {os.path.realpath(file): what for what, file in inputs.items() if file}
    folder = os.path.realpath(model)
    for option, file in outputs.items():
        if not file or file.startswith(("/dev/", "/proc/")):
            continue
        real = os.path.realpath(file)
        if real in taken:
            raise InputError(f"{option}: {file} is {taken[real]} itself; give another path")
        if model and os.path.commonpath((real, folder)) == folder:
            raise InputError(f"{option}: {file} lies in the model's folder; give another path")
        taken[real] = f"the file of {option}"


def write_atomically(option: str, file: str, text: str | Iterable[str | bytes]) -> None:
    """Writes the file (text or bytes, whole or in pieces), whole or not at all: nobody sees a half, and what was there
    stays until it is whole. What a link points to is replaced, the link stays, unless it is somebody else's (see
    `check_links`); devices and pipes are written to. Raises InputError, which names `option`."""
    path = Path(file)
    pieces = (part.encode() if isinstance(part, str) else part for part in ([text] if isinstance(text, str) else text))
    try:
        check_links(path)
        if _is_replaceable(path):
            _replace(Path(os.path.realpath(path)), pieces)
        else:
            with open(path, "wb") as stream:
                stream.writelines(pieces)
    except InputError:  # of who makes the pieces
        raise
    except (OSError, ValueError) as error:
        raise _unwritable(option, file, error) from None


def open_append(option: str, file: str) -> TextIO:
    """The file, opened to add lines to it; made, with its folder, where it is missing. Raises InputError."""
    path = Path(file)
    try:
        check_links(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unwritable(option, file, error) from None


def check_links(path: str | Path) -> None:
    """Raises PermissionError if a link that another user has laid would lead our writing elsewhere: see
    `foreign_link`."""
    if link := foreign_link(os.fsencode(path)):
        raise PermissionError(errno.EPERM, f"{os.fsdecode(link)} is a link that another user has made")


def printable(text: str) -> str:
    """The text with control characters, marks that reorder a line, and halves of characters as escapes: names from a
    data file must not steer the terminal. Line ends and tabs stay."""
    return re.sub(_UNPRINTABLE, lambda match: match.group().encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """A name, or what a library says, for a message of one line: `printable`, and line ends and tabs as escapes too. A
    name must not look like a message of ours."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def complain(text: str) -> None:
    """Prints to standard error, whatever characters it holds; where that is closed, nobody reads. In one piece, also
    where Python does not buffer: lines of several ranks must not run into each other. Of a line too long to read, as a
    path of thousands of characters makes it, the middle is left out."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write("\n".join(map(_readable, printable(text).split("\n"))) + "\n")
        sys.stderr.flush()


def _readable(line: str) -> str:
    first, last = 600, 300  # characters
    left_out = len(line) - first - last
    return line if left_out <= 100 else f"{line[:first]} … {left_out:,} characters left out … {line[-last:]}"


def say(text: str) -> int:
    """Prints; returns the exit code. Whoever reads may have seen enough (head): no error; a full disk is one."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
    except OSError as error:
        complain(f"dhp: error: standard output cannot be written ({error.strerror})")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return 0


def _replace(path: Path, pieces: Iterable[bytes]) -> None:
    handle, partial = new_beside(path)
    try:
        with open(handle, "wb") as stream:
            stream.writelines(pieces)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _is_replaceable(path: Path) -> bool:
    """Not devices, pipes, and whatever stands for an open file."""
    if str(path).startswith(("/dev/", "/proc/")):
        return False
    return path.is_file() or not path.exists()


def _may_write(path: Path) -> bool:
    read_only = os.statvfs(path).f_flag & os.ST_RDONLY and path.is_file()  # root may write, but not there
    return os.access(path, os.W_OK) and not read_only


def new_beside(path: Path) -> tuple[int, Path]:
    """An empty file, open for writing, beside `path`, so that it can be renamed; a link's is beside what it points to.
    It is new, under a name that nobody foresees: it cannot be somebody's link, nor taken for one of its kind."""
    path = Path(os.path.realpath(path))
    partial = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
    return os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), partial


def _unwritable(option: str, file: str, error: OSError | ValueError) -> InputError:
    reason = error.strerror if isinstance(error, OSError) else error
    return InputError(f"{option}: {file} cannot be written ({reason}); give another path")
