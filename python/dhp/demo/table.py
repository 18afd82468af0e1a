"""The demo's samples as a table (samples.toml): captions written for this project, regions, clip segments."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any


@functools.cache
def table() -> dict[str, Any]:
    return tomllib.loads(resources.files("dhp.demo").joinpath("samples.toml").read_text(encoding="utf-8"))


def captions() -> Iterator[str]:
    """Every text of the table that a model reads or writes, in order."""
    for sample in table()["sample"]:
        for question, answer in sample["turns"]:
            yield question
            yield answer
