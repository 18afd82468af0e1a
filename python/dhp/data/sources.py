"""The files that a run trains on, and how often each is drawn from.

Without weights, several files are as one that holds them all. With weights, each position of the endless row of samples
belongs to one file, so that of any stretch each file has its share, as evenly as can be; and each file goes through its
own epochs. Which sample stands at a position follows from it alone: nothing is remembered from step to step.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dhp._core import InputError
from dhp.data.access.pieces import shown
from dhp.data.formats.rows import TABLES, TARS
from dhp.data.order import Rows

PERIOD = 100_000  # positions after which the pattern of files begins again: weights are kept to five digits
_KEYS = ("path", "weight", "index")
_MOST_FILES = 1000


@dataclass(frozen=True)
class Source:
    """A data file of a run. index: "" where it stands beside it. weight: share of the samples drawn, relative to the
    other files'; None: as many as it holds."""

    path: str
    weight: float | None = None
    index: str = ""


def sources_of(data: Any, index: str = "") -> tuple[Source, ...]:
    """From the setting `data`: a path, or a list of paths and of tables {path, weight, index}; `index` is the setting
    of that name, for one file alone. A folder stands for the data files in it. Raises InputError, which begins with the
    setting's name."""
    if isinstance(data, (str, Path)):
        if not (inside := files_in(str(data))):
            return (Source(str(data), None, str(index)),)
        data = inside
    if not isinstance(data, Sequence) or not 1 <= len(data) <= _MOST_FILES:
        raise InputError(f"data: expected a path, or a list of 1 to {_MOST_FILES:,} paths and tables {{path, weight}}")
    sources = tuple(one for i, entry in enumerate(data) for one in _sources(f"data[{i}]", entry))
    if index and len(sources) > 1:
        raise InputError("index: there are several data files; give each its own: {path = …, index = …}")
    if index and sources[0].index:
        raise InputError("index: given twice; give it beside data alone, or in its table alone")
    weighted = [source.weight is not None for source in sources]
    if any(weighted) and not all(weighted):
        without = weighted.index(False)
        raise InputError(
            f"data[{without}]: has no weight, and others have; give all files a weight, or none: then each is drawn "
            "from as often as it has samples"
        )
    paths = [source.path for source in sources]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise InputError(f"data[{i}]: {path} is given twice; give it a larger weight instead")
    return tuple(Source(s.path, s.weight, s.index or str(index)) for s in sources)


def files_in(folder: str) -> list[str]:
    """The data files in a folder, as `datasets` and WebDataset have them, by name; none for what is no folder."""
    try:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    except (OSError, ValueError):
        return []
    return [os.path.join(folder, name) for name in names if name.endswith((".jsonl", *TABLES, *TARS))]


def _sources(field: str, entry: Any) -> list[Source]:
    source = _source(field, entry)
    inside = files_in(source.path)
    if not inside:
        return [source]
    if source.weight is not None or source.index:
        raise InputError(f"{field}: {source.path} is a folder, whose files have no weight or index together; list them")
    return [Source(path) for path in inside]


def _source(field: str, entry: Any) -> Source:
    if isinstance(entry, (str, Path)):
        entry = {"path": str(entry)}
    if not isinstance(entry, Mapping):
        raise InputError(f"{field}: expected a path, or a table {{path = …, weight = …}}")
    for key in entry:
        if key not in _KEYS:
            raise InputError(f"{field}.{str(key)[:40]}: unknown; expected {', '.join(_KEYS)}")
    for key in ("path", "index"):
        value = entry.get(key, "")
        if not isinstance(value, (str, Path)) or (not str(value).strip() and (key == "path" or value)):
            raise InputError(f"{field}.{key}: expected a path")
    weight = entry.get("weight")
    if weight is not None:
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not (is_number and 0 < weight <= 1e9):
            raise InputError(f"{field}.weight: expected a number above 0, at most 1e9")
        weight = float(weight)
    return Source(str(entry["path"]), weight, str(entry.get("index", "")))


def named(sources: Sequence[Source]) -> str:
    """For messages: the path, or the first and how many more there are."""
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return shown(sources[0].path) + more


# ---- weights --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """Which file each of PERIOD positions belongs to, and how many of them before it belong to the same file."""

    source: npt.NDArray[np.int32]
    number: npt.NDArray[np.int64]
    shares: tuple[int, ...]  # positions of each file

    def at(self, positions: Rows) -> tuple[npt.NDArray[np.int32], Rows]:
        """The file of each position of the endless row, and the number of the file's own draw."""
        period, at = np.divmod(positions, PERIOD)
        source = self.source[at]
        return source, period * np.array(self.shares, np.int64)[source] + self.number[at]


@functools.lru_cache(maxsize=4)
def pattern_of(weights: tuple[float, ...]) -> Pattern:
    """Each file's draws evenly spaced: its k-th of n stands where (k + 1/2)/n of the period are over."""
    shares = shares_of(weights)
    source = np.repeat(np.arange(len(shares), dtype=np.int32), shares)
    number = np.concatenate([np.arange(share, dtype=np.int64) for share in shares])
    due = (2 * number + 1) / np.array(shares)[source]
    order = np.argsort(due, kind="stable")
    return Pattern(source[order], number[order], shares)


def shares_of(weights: tuple[float, ...]) -> tuple[int, ...]:
    """Whole numbers in proportion to the weights that add up to PERIOD; each at least 1."""
    total = math.fsum(weights)
    exact = [weight / total * PERIOD for weight in weights]
    shares = [max(1, math.floor(share)) for share in exact]
    # Largest remainder first, the earlier file first where they are alike; what the ones above took, from the largest.
    for i in sorted(range(len(shares)), key=lambda i: (shares[i] - exact[i], i))[: max(0, PERIOD - sum(shares))]:
        shares[i] += 1
    while sum(shares) > PERIOD:
        shares[shares.index(max(shares))] -= 1
    return tuple(shares)


__all__ = ["PERIOD", "Pattern", "Source", "named", "pattern_of", "shares_of", "sources_of"]
