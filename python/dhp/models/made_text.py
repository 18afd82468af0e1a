"""Text that is made up around media, to measure or to try a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dhp.data.placeholders import MediumShape
from dhp.data.text import IGNORED, KINDS, Encoded
from dhp.models.families import Family

Run = tuple[str, int]  # visual tokens that stand together: their kind, and how many


def runs_of(media: Sequence[MediumShape], apart: bool) -> list[Run]:
    """`apart`: text stands between the units of a medium."""
    runs: list[Run] = []
    for medium in media:
        units = medium.unit_sizes
        rows = [units.of(part)[0] for part in range(units.units)] if apart else [units.all_rows]
        runs += [(medium.kind, count) for count in rows]
    return runs


def marks_of(family: Family, runs: Sequence[Run]) -> int:
    """Tokens that the family has before and behind these runs."""
    return sum(len(tokens) for kind, _ in runs for tokens in family.marks(kind))


def made_text(
    family: Family,
    vocabulary: Sequence[int] | np.ndarray,
    runs: Sequence[Run],
    gaps: Sequence[int],
    labels: int,
    generator: np.random.Generator,
) -> Encoded:
    """Random text of the vocabulary with the family's placeholders and marks.

    gaps    tokens of text before the first run, between any two, and behind the last
    labels  tokens with a loss, at the end
    """
    ids, kinds = [generator.choice(vocabulary, gaps[0])], [np.zeros(gaps[0], np.int8)]
    for (kind, rows), gap in zip(runs, gaps[1:], strict=True):
        before, behind = family.marks(kind)
        text = [*behind, *generator.choice(vocabulary, gap)]
        ids += [np.array(before, np.int64), np.full(rows, family.placeholder(kind)), np.array(text, np.int64)]
        kinds += [np.zeros(len(before), np.int8), np.full(rows, KINDS[kind], np.int8), np.zeros(len(text), np.int8)]
    whole = np.concatenate(ids).astype(np.int64)
    learned = np.where(np.arange(len(whole)) < len(whole) - labels, IGNORED, whole)
    return Encoded(whole, learned, np.concatenate(kinds))
