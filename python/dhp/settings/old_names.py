"""Names that settings had until the last release: read for one more, with a hint."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dhp._core import InputError
from dhp.base.output import complain

RENAMED = {"schedule": "planner"}  # then: now


def todays_names(source: str, keys: Iterable[str]) -> dict[str, str]:
    """Every key of a settings file, or of a command line, and its name today. Old names are said to be old, by rank 0
    alone where there are ranks. Raises InputError where a setting is given by both names."""
    names = {key: RENAMED.get(key, key) for key in keys}
    for then, now in names.items():
        if then == now:
            continue
        if now in names:
            raise InputError(f"{source}: {then}: is the old name of {now}, which is given too; leave it out")
        if os.environ.get("RANK", "0") == "0":
            complain(f"dhp: note: {source}: {then} is now {now}; the next release drops the old name")
    return names


__all__ = ["RENAMED", "todays_names"]
