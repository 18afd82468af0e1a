"""How quick each rank is, from the seconds that it took itself for its share of tasks; docs/calibration.md.

What counts is log(own seconds / estimate of the own share): the estimate knows the frames that a member encodes, since
frames are dealt whole, and says nothing of the rank. Longer tasks count more, as the root of their estimates: they vary
less. What is far off by the spread of the rank's other tasks counts as CLIP spreads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dhp._core import Sequence as BatchSequence
from dhp.cost.fit import DEVIATION_OF_MEDIAN, TermSeconds, TimeSample, estimates_s

Array: TypeAlias = "NDArray[np.float64]"
Indices: TypeAlias = "NDArray[np.int64]"

CLIP = 3.0  # spreads
KEPT = 0.5  # of what is known of a rank's speed, each time that more is learned: speeds change
LEAST_ERROR = 0.005  # of a log speed: work that the estimates do not tell apart differs by more than tasks do
DEGREE = 0.02  # how far estimates of all tasks of a degree may be off together
DOUBT = 2.0  # standard errors: nearer to what is believed, nothing is said
STEP = 0.005  # speeds are multiples of it, so that plans change rarely
SLOWEST = 0.05  # no rank is taken to be slower: 0 would be out of service
FEWEST = 8  # tasks beyond one a rank, so that they show a spread


@dataclass(frozen=True)
class MemberTimes:
    """What each member of a task had to do and took, in the order of the task's ranks.

    seconds      of computing: CPU time of the computing thread, or the device's without its waits for other ranks
    patches      encoded by itself
    patch_pairs  of patches within the frames that it encoded
    """

    seconds: tuple[float, ...]
    patches: tuple[float, ...]
    patch_pairs: tuple[float, ...]


@dataclass(frozen=True)
class TimedTask:
    """A task that has run."""

    sequences: list[BatchSequence]
    ranks: tuple[int, ...]
    members: MemberTimes

    def nominal_s(self, speeds: Sequence[float]) -> float:
        """Seconds of the slowest member at nominal speed: a group is as quick as the slowest of its ranks."""
        return max(self.members.seconds) * min(speeds[rank] for rank in self.ranks)


@dataclass(frozen=True)
class SpeedHistory:
    """What is known of ranks: log of speed, against the median of all, and 1 / its variance (0: nothing is known)."""

    log_speed: tuple[float, ...]
    precision: tuple[float, ...]

    @staticmethod
    def empty(ranks: int) -> SpeedHistory:
        return SpeedHistory((0.0,) * ranks, (0.0,) * ranks)


def member_estimates_s(terms: TermSeconds, tasks: Sequence[TimedTask]) -> list[Array]:
    """By task [members]: seconds of each member's own share at nominal speed."""
    samples = [TimeSample(task.sequences, len(task.ranks)) for task in tasks]
    bare = estimates_s(replace(terms, patch_s=0.0, patch_pair_s=0.0), samples)
    return [
        seconds
        + terms.patch_s * np.array(task.members.patches)
        + terms.patch_pair_s * np.array(task.members.patch_pairs)
        for seconds, task in zip(bare.tolist(), tasks, strict=True)
    ]


def learn(before: SpeedHistory, tasks: Sequence[TimedTask], estimates_s: Sequence[Array]) -> SpeedHistory:
    """What is known once these tasks, too, have run. As before where they are too few to say how sure they are."""
    ranks = np.array([rank for task in tasks for rank in task.ranks], dtype=np.int64)
    degrees = np.array([len(task.ranks) for task in tasks for _ in task.ranks], dtype=np.int64)
    own_s = np.array([seconds for task in tasks for seconds in task.members.seconds])
    estimate_s = np.concatenate([np.zeros(0), *estimates_s])
    timed = (own_s > 0.0) & (estimate_s > 0.0)
    measured, ranks = np.unique(ranks[timed], return_inverse=True)
    own_s, estimate_s = own_s[timed], estimate_s[timed]
    if len(measured) < 2 or len(ranks) - len(measured) < FEWEST:
        return before
    weights = np.sqrt(estimate_s / estimate_s.mean())
    slowness, variance = _of_ranks(clipped(np.log(own_s / estimate_s), ranks), weights, ranks, degrees[timed])
    now = 1.0 / np.maximum(variance, LEAST_ERROR**2)
    log_speed, precision = np.array(before.log_speed), KEPT * np.array(before.precision)
    total = precision[measured] + now
    log_speed[measured] = (precision[measured] * log_speed[measured] + now * (np.median(slowness) - slowness)) / total
    precision[measured] = total
    return SpeedHistory(tuple(log_speed.tolist()), tuple(precision.tolist()))


def _of_ranks(values: Array, weights: Array, ranks: Indices, degrees: Indices) -> tuple[Array, Array]:
    """[ranks] each: what a rank adds to `values`, and the variance of its difference from the mean of ranks. Values are
    a rank's part, a degree's, believed to be 0 give or take DEGREE, and noise: a rank that always runs what no other
    does can hardly be told from it. Least squares."""
    _, kinds = np.unique(degrees, return_inverse=True)
    count, others = int(ranks.max()) + 1, int(kinds.max()) + 1
    mean = np.bincount(ranks, weights * values) / np.bincount(ranks, weights)
    noise = float((weights * (values - mean[ranks]) ** 2).sum()) / (len(values) - count)
    noise = max(noise, LEAST_ERROR**2)
    table = np.bincount(ranks * others + kinds, weights, count * others).reshape(count, others)
    ties = np.zeros((others, others))
    np.fill_diagonal(ties, table.sum(axis=0) + noise / DEGREE**2)
    covariance = noise * np.linalg.inv(np.block([[np.diag(table.sum(axis=1)), table], [table.T, ties]]))
    sums = np.append(np.bincount(ranks, weights * values), np.bincount(kinds, weights * values))
    own = covariance[:count, :count]
    variance = np.diag(own) - 2.0 * own.mean(axis=1) + own.mean()
    return (covariance @ sums / noise)[:count], variance


def clipped(values: Array, classes: Indices) -> Array:
    """[samples]: values, none further than CLIP spreads from the median of its class. The spread is that of all."""
    middle = np.zeros(int(classes.max(initial=-1)) + 1)
    for one in np.unique(classes):
        middle[one] = np.median(values[classes == one])
    off = values - middle[classes]
    alone = np.bincount(classes)[classes] < 2  # its own median: it tells no spread
    spread = DEVIATION_OF_MEDIAN * float(np.median(np.abs(off[~alone]))) if not alone.all() else 0.0
    return values if spread == 0.0 else middle[classes] + np.clip(off, -CLIP * spread, CLIP * spread)


def speeds_of(history: SpeedHistory, given: Sequence[float]) -> list[float]:
    """Speeds to plan with, the largest 1. `given` is believed unless what is known says otherwise: a difference counts
    by 1 - (DOUBT standard errors / difference)^2, and nothing below DOUBT standard errors. Who is out of service stays
    so."""
    believed = np.array(given, dtype=np.float64)
    known = (np.array(history.precision) > 0.0) & (believed > 0.0)
    if known.sum() < 2:
        return list(given)
    difference = np.array(history.log_speed)[known] - np.log(believed[known])
    difference -= np.median(difference)
    error = np.maximum(np.array(history.precision)[known] ** -0.5, LEAST_ERROR)
    with np.errstate(divide="ignore"):
        kept = np.maximum(0.0, 1.0 - (DOUBT * error / difference) ** 2)
    if not kept.any():
        return list(given)
    believed[known] *= np.exp(difference * kept)
    believed /= believed.max()
    in_steps = np.maximum(np.round(believed / STEP) * STEP, SLOWEST)
    return [round(float(speed), 6) if service > 0.0 else 0.0 for speed, service in zip(in_steps, given, strict=True)]
