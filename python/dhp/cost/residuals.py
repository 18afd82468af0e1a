"""What estimates of groups are off by again and again, by degree and length; docs/calibration.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dhp._core import MOST_RESIDUAL_FACTOR, ResidualFactor
from dhp._core import Sequence as BatchSequence
from dhp.cost.fit import TermSeconds, TimeSample, estimates_s
from dhp.cost.speeds import DOUBT, clipped

FEWEST = 16  # tasks of a cell
STEP = 0.005  # factors are multiples of it, so that plans change rarely

Cell = tuple[int, int]  # degree; tokens of the longest sequence, rounded down to a power of two


def longest(sequences: Sequence[BatchSequence]) -> int:
    """Tokens of the longest sequence."""
    return max(sequence.tokens for sequence in sequences)


def cell_of(degree: int, tokens: int) -> Cell:
    return degree, 1 << (tokens.bit_length() - 1)


def learn_factors(samples: Sequence[TimeSample], terms: TermSeconds) -> list[ResidualFactor]:
    """From groups at nominal speed: the mean logarithm m of seconds over estimates of a cell with FEWEST tasks or more,
    by 1 - (DOUBT standard errors / m)^2. Nothing where it is below DOUBT standard errors."""
    groups = [sample for sample in samples if sample.degree > 1]
    seconds, estimates = np.array([sample.seconds for sample in groups]), estimates_s(terms, groups)
    timed = (seconds > 0.0) & (estimates > 0.0)
    by_cell: dict[Cell, list[float]] = {}
    for sample, off in zip(
        groups, np.log(np.where(timed, seconds / np.where(timed, estimates, 1.0), 1.0)), strict=True
    ):
        by_cell.setdefault(cell_of(sample.degree, longest(sample.sequences)), []).append(float(off))
    found = []
    for cell in sorted(by_cell):
        off = np.array(by_cell[cell])
        if len(off) < FEWEST:
            continue
        near = clipped(off, np.zeros(len(off), np.int64))
        mean, error = float(near.mean()), float(near.std(ddof=1)) / len(near) ** 0.5
        kept = mean * max(0.0, 1.0 - (DOUBT * error / mean) ** 2) if mean else 0.0
        within = float(np.clip(np.exp(kept), 1 / MOST_RESIDUAL_FACTOR, MOST_RESIDUAL_FACTOR))
        factor = round(round(within / STEP) * STEP, 6)
        if factor != 1.0:
            found.append(ResidualFactor(*cell, factor))
    return found
