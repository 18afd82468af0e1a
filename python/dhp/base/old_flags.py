"""Flags by the names that they had until the last release: read for one more, with a hint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from dhp._core import InputError
from dhp.base.output import complain


def todays_flags(words: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """The words of a command line with today's flags. `renamed` says how, with a value where that matters:
    {"--memory-of": "--device", "--device cpu": "--torch-device cpu"}. Old ones are said to be old, by rank 0 alone
    where there are ranks. Raises InputError where a flag is given by both names."""
    flags = {then.split()[0] for then in renamed}
    left = [part for word in words for part in (word.split("=", 1) if word.split("=")[0] in flags else [word])]
    today: list[str] = []
    olds: list[str] = []
    while left:
        then = next((then for then in renamed if left[: len(then.split())] == then.split()), "")
        if not then:
            today.append(left.pop(0))
            continue
        del left[: len(then.split())]
        olds.append(then)
        today += renamed[then].split()
        if os.environ.get("RANK", "0") == "0":
            complain(f"dhp: note: {then} is now {renamed[then]}; the next release drops the old name")
    for then in olds:
        flag = renamed[then].split()[0]
        if sum(word.split("=")[0] == flag for word in today) > 1:
            raise InputError(f"{then}: is the old name of {renamed[then]}, which is given too; leave it out")
    return today


__all__ = ["todays_flags"]
