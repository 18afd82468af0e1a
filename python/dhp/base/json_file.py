"""Small JSON files of checkpoint folders, read with a word for what is no JSON."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from dhp._core import InputError

POINTER = b"version https://git-lfs"
MOST_CHARACTERS = 100_000_000


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InputError, which names the file."""
    try:
        if problem := pointer_problem(file):
            raise InputError(problem)
        with open(file, encoding="utf-8") as content:
            text = content.read(MOST_CHARACTERS + 1)
        if len(text) > MOST_CHARACTERS:
            raise InputError(f"{file}: is longer than {MOST_CHARACTERS:,} characters; expected a small JSON file")
        value = json.loads(text)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a JSON object ({first_line(error)})") from None
    if not isinstance(value, dict):
        raise InputError(f"{file}: not a JSON object")
    return value


def pointer_problem(file: Path) -> str:
    """What to say of a file that Git LFS has not downloaded, and of what is no file; nothing of others."""
    if not stat.S_ISREG(os.stat(file).st_mode):  # reading a pipe may wait for ever
        return f"{file}: is no regular file; download it again"
    with open(file, "rb") as content:
        pointer = content.read(len(POINTER)) == POINTER
    return f"{file}: is a pointer of Git LFS, not the file itself; download it: git lfs pull" if pointer else ""


def first_line(error: Exception) -> str:
    """What a library says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
