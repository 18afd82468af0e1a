"""Names that settings had until the last release: read for one more, with a hint."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dhp._core import InputError, device_presets
from dhp.base.output import complain

RENAMED = {"schedule": "planner"}  # then: now
DEVICES = ("auto", "cpu", "cuda", "npu")  # what `device` may be; it was what `cost_device` is


def todays_names(source: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Every key of a settings file, or of a command line, and its name today. Old names are said to be old, by rank 0
    alone where there are ranks. Raises InputError where a setting is given by both names."""
    names = {key: RENAMED.get(key, key) for key in given}
    of_costs = str(given.get("device", ""))
    if of_costs.endswith(".json") or of_costs in (preset.name for preset in device_presets()):
        names["device"] = "cost_device"
    for then, now in names.items():
        if then == now:
            continue
        if now in names:
            raise InputError(f"{source}: {then}: is the old name of {now}, which is given too; leave it out")
        if os.environ.get("RANK", "0") == "0":
            complain(f"dhp: note: {source}: {then} is now {now}; the next release drops the old name")
    return names


__all__ = ["DEVICES", "RENAMED", "todays_names"]
