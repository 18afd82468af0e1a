"""What commands write: files, checked before the work and whole or not at all after it, and standard output."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from dhp._core import InputError

# C0 and C1 controls, marks of writing direction and line separators (Unicode 15, category Cc, parts of Cf and Zl), and
# lone surrogates, which no stream can encode.
_UNPRINTABLE = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def check_writable(option: str, file: str) -> None:
    """Makes sure, before the work, that `write_atomically` can write `file` after it, and makes the file's folder. No
    file is made or changed. Raises InputError, which names `option`."""
    path = Path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_replaceable(path):
            partial = _partial(path)
            partial.touch()
            partial.unlink()
        elif not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _unwritable(option, file, error) from None


def write_atomically(option: str, file: str, text: str | Iterable[str]) -> None:
    """Writes the file, UTF-8, whole or not at all: nobody sees a half, and what was there stays until it is whole. What
    a link points to is replaced, the link stays; devices and pipes are written to. A long text may come in pieces.
    Raises InputError, which names `option`."""
    path = Path(file)
    try:
        if _is_replaceable(path):
            _replace(Path(os.path.realpath(path)), text)
        else:
            _write(path, text)
    except OSError as error:
        raise _unwritable(option, file, error) from None


def printable(text: str) -> str:
    """The text with control characters, marks that reorder a line, and halves of characters as escapes: names from a
    data file must not steer the terminal. Line ends and tabs stay."""
    return re.sub(_UNPRINTABLE, lambda match: match.group().encode("unicode_escape").decode(), text)


def complain(text: str) -> None:
    """Prints to standard error, whatever characters it holds; where that is closed, nobody reads."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(text), file=sys.stderr, flush=True)


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


def _replace(path: Path, text: str | Iterable[str]) -> None:
    partial = _partial(path)
    try:
        _write(partial, text)
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _write(path: Path, text: str | Iterable[str]) -> None:
    if isinstance(text, str):
        path.write_text(text, encoding="utf-8")
        return
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(text)


def _is_replaceable(path: Path) -> bool:
    """Not devices, pipes, and whatever stands for an open file."""
    if str(path).startswith(("/dev/", "/proc/")):
        return False
    return path.is_file() or not path.exists()


def _partial(path: Path) -> Path:
    """Beside the file, so that it can be renamed; a link's is beside what it points to."""
    path = Path(os.path.realpath(path))
    return path.with_name(f".{path.name}.{os.getpid()}")


def _unwritable(option: str, file: str, error: OSError) -> InputError:
    return InputError(f"{option}: {file} cannot be written ({error.strerror}); give another path")
