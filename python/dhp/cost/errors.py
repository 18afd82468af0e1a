"""How far estimates are off, in the three kinds that planners tell apart (dhp::ErrorSizes); docs/calibration.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dhp._core import CostModel, ErrorSizes, residual_factor
from dhp._core import Sequence as BatchSequence
from dhp.cost.fit import TermSeconds, TimeSample, estimates_s, least_squares
from dhp.cost.residuals import longest
from dhp.cost.speeds import Array, Indices, TimedTask, clipped, member_estimates_s

STEP = 0.005  # sizes are multiples of it, so that plans change rarely
FEWEST_TASKS = 32  # that tell sizes of sequences and tasks
FEWEST_SPARE = 16  # members beyond one a group that tell those of ranks
BELIEVED = 4.0  # tasks that the belief counts as that both are of one size: it decides where nothing tells them apart
ROUNDS = 3


@dataclass(frozen=True)
class Residual:
    """What a task took against its estimate.

    members  log(seconds / estimate) of each member, at nominal speed
    squares  sum over its sequences of (share of the task's work)^2: 1 for a single one
    """

    members: tuple[float, ...]
    degree: int
    squares: float


def residuals_of(
    tasks: Sequence[TimedTask], terms: TermSeconds, speeds: Sequence[float], cost: CostModel | None = None
) -> list[Residual]:
    """Of the tasks that took any time, whose members are on ranks at these speeds. `cost`: whose factors count."""
    found = []
    squares = squared_shares(terms, [task.sequences for task in tasks])
    for task, bare, square in zip(tasks, member_estimates_s(terms, tasks), squares, strict=True):
        factor = residual_factor(cost, len(task.ranks), longest(task.sequences)) if cost else 1.0
        estimates = bare * factor
        own = np.array(task.members.seconds) * [speeds[rank] for rank in task.ranks]
        if (own > 0.0).all() and (estimates > 0.0).all():
            found.append(Residual(tuple(np.log(own / estimates).tolist()), len(task.ranks), square))
    return found


def squared_shares(terms: TermSeconds, tasks: Sequence[Sequence[BatchSequence]]) -> list[float]:
    """By task: the sum of (alone / sum of alone)^2, where `alone` is the estimate of a sequence alone on one rank."""
    alone = iter(estimates_s(terms, [TimeSample([one], 1) for task in tasks for one in task]).tolist())
    shares = []
    for task in tasks:
        seconds = np.array([next(alone) for _ in task])
        shares.append(float((seconds**2).sum() / seconds.sum() ** 2) if seconds.sum() > 0.0 else 1.0)
    return shares


def error_sizes(residuals: Sequence[Residual], believed: ErrorSizes, *, rank: float | None = None) -> ErrorSizes:
    """The sizes of errors, in steps of STEP; `believed` where residuals are too few to tell.

    rank  its size where it is known; else it follows from the spread of the members of groups
    """
    if rank is None:
        members = [value for r in residuals for value in r.members]
        groups = np.repeat(np.arange(len(residuals)), [len(r.members) for r in residuals])
        rank = spread_within(np.array(members), groups)
    if rank is None:
        rank = believed.rank
    if len(residuals) < FEWEST_TASKS:
        return ErrorSizes(believed.sequence, believed.task, rounded(rank))
    sequence, task = _sequence_and_task(residuals, rank)
    return ErrorSizes(rounded(sequence), rounded(task), rounded(rank))


def spread_within(values: Array, classes: Indices) -> float | None:
    """Standard deviation of values around the mean of their class, outliers clipped. None where too few tell."""
    spare = len(values) - len(np.unique(classes))
    if spare < FEWEST_SPARE:
        return None
    return float(np.sqrt((_centred(values, classes) ** 2).sum() / spare))


def _centred(values: Array, classes: Indices) -> Array:
    near = clipped(values, classes)
    return near - (np.bincount(classes, near) / np.maximum(1, np.bincount(classes)))[classes]


def _sequence_and_task(residuals: Sequence[Residual], rank: float) -> tuple[float, float]:
    """Square roots of a and b in: squared residual of a task's members together = a * squares + b + rank^2 / members.
    Residuals are those from the mean of their degree: what a degree has in common repeats."""
    degrees = np.array([r.degree for r in residuals])
    count = np.bincount(degrees)[degrees]
    off = _centred(np.array([np.mean(r.members) for r in residuals]), degrees)[count > 1]
    members = np.array([len(r.members) for r in residuals])[count > 1]
    y = off**2 * (count / (count - np.where(count > 1, 1, 0)))[count > 1] - rank**2 / members
    x = np.stack([np.array([r.squares for r in residuals])[count > 1], np.ones(len(off))], axis=1)
    if len(y) == 0:
        return 0.0, 0.0
    alike = max(0.0, float(y.sum() / x.sum()))  # both, were they of one size
    weights = np.ones(len(y))
    for _ in range(ROUNDS):
        rows, wanted = np.vstack([x, np.eye(2)]), np.append(y, [alike, alike])
        a, b = least_squares(rows, wanted, np.append(weights, [BELIEVED, BELIEVED])).tolist()
        expected = x @ [a, b] + rank**2 / members  # the square of a normal number varies by the square of its mean
        weights = (expected.mean() / np.maximum(expected, expected.mean() / 10)) ** 2 if expected.any() else weights
    return float(np.sqrt(a)), float(np.sqrt(b))


def sizes_text(sizes: ErrorSizes) -> str:
    """For people."""
    return f"errors: {sizes.sequence:.1%} a sequence, {sizes.task:.1%} a task, {sizes.rank:.1%} a rank"


def rounded(size: float) -> float:
    return round(min(1.0, round(size / STEP) * STEP), 6)
