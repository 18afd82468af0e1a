"""What goes wrong with data: bad samples, unreadable media, stale indexes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dhp._core import InputError
from dhp.base.output import one_line
from dhp.data.access.pieces import shown


class DataError(InputError):
    """Bad input. The message names file and location, the value found, and what to do."""

    kind = "malformed"  # of the Problem that it becomes where it concerns a sample: see scan.Problem


class MediumError(DataError):
    """A picture or clip that cannot be read: `path` names the file, `problem` says what happened."""

    kind = "media"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{one_line(shown(path))}: {problem}")
        self.path = path
        self.problem = problem

    def __reduce__(self) -> tuple[type[MediumError], tuple[str, str]]:
        return (type(self), (self.path, self.problem))  # crosses process boundaries whole


class RequestError(MediumError):
    """The file is fine; the line asks for something that is not in it."""

    kind = "malformed"


class StaleIndexError(DataError):
    """The index does not belong to this data file or this checkpoint any more."""


class Verbatim(str):
    """Text that goes into a message as it is, unquoted."""


class Location:
    """Where we are in the data file, for messages: `data.jsonl:7: images[1].fps: found …`."""

    def __init__(self, file: str, line: int, folder: Path | str) -> None:
        self.prefix = f"{shown(file)}:{line}"
        self.folder = folder  # of the data file; an address ends in a slash
        self.within: Any = None  # samples.Within
        self.hears = False  # whether sounds may be given

    def error(self, field: str, found: object, hint: str) -> DataError:
        shown = found if isinstance(found, Verbatim) else _show(found)
        return DataError(": ".join(part for part in (self.prefix, one_line(field), f"{shown}; {hint}") if part))


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "found " + (text if len(text) <= 80 else text[:77] + "...")
