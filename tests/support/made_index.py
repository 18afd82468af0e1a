"""Indexes made of numbers alone: for what reads an index without its data, and for odd ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dhp.data.indexing.index_file import COLUMNS, check_of, pieces
from dhp.data.processor import RULES_VERSION

RECORD: dict[str, Any] = {"messages": [{"role": "assistant", "content": ["a"]}]}


def write_made_index(
    file: Path,
    lengths: Sequence[Mapping[str, int]],
    records: Sequence[Any] = (),
    header: Mapping[str, Any] | None = None,
) -> Path:
    """An index of these samples (columns that are not given: 0, `id` from 1), whose checksums are right whatever they
    hold."""
    texts = [json.dumps(record).encode() for record in records or [RECORD] * len(lengths)]
    given = {
        "id": range(1, len(lengths) + 1),
        "end": np.cumsum([len(text) for text in texts]),
        "check": [check_of(text) for text in texts],
    }
    nothing = [0] * len(lengths)
    columns = {
        name: np.array([row.get(name, given.get(name, nothing)[i]) for i, row in enumerate(lengths)], np.int64)
        for name in COLUMNS
    }
    facts = {
        "rules": RULES_VERSION,
        "problems": {},
        "ignored": {},
        "media_roots": [],
        "max_line_bytes": 1,
        **(header or {}),
    }
    file.write_bytes(b"".join(pieces(facts, columns, [], texts)))
    return file
