"""What goes wrong with data: bad samples, unreadable media, stale indexes."""

from __future__ import annotations

from dhp._core import InputError


class DataError(InputError):
    """Bad input. The message names the file and place, the value found, and what to do."""


class MediumError(DataError):
    """A picture or clip that cannot be read: `path` names the file, `problem` says what happened."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem

    def __reduce__(self) -> tuple[type[MediumError], tuple[str, str]]:
        return (type(self), (self.path, self.problem))  # crosses process boundaries whole


class StaleIndexError(DataError):
    """The index does not belong to this data file or this checkpoint any more."""
