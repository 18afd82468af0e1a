"""Measured seconds -> the coefficients of a cost model.

Compute time of one pass of a task, or of both, transfers apart; docs/design.md, "Task time":

    seconds = task_s + vision + token_s S1/d + pair_s S2/(2d) + d (step_s + n sequence_step_s)
    vision  = a (patch_s V + patch_pair_s sum(v u)) + b (patch_s u_max + patch_pair_s u_max^2)

n sequences on d ranks have S1 tokens, S2 squared tokens and V patches; one has v patches, its largest frame u. `a` and
`b` say what is in the fullest share of frames. They alone are not linear in the coefficients, and change in steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dhp._core import CostModel, fullest_share
from dhp._core import Sequence as BatchSequence

Array: TypeAlias = "NDArray[np.float64]"

# What to measure so that a coefficient stands out.
ADVICE = {
    "task_s": "measure more lengths, further apart",
    "patch_s": "measure tasks with different shares of vision",
    "token_s": "measure more lengths, further apart",
    "pair_s": "measure more lengths, further apart",
    "step_s": "measure more degrees",
    "sequence_step_s": "measure tasks that pack more and fewer sequences",
    "patch_pair_s": "measure pictures and frames of different sizes",
}
TERMS = tuple(ADVICE)
ROUNDS = 100
ROUNDS_OF_FRAMES = 16
HUBER, TUKEY = 1.345, 4.685  # 95 % efficiency for normal errors
DEVIATION_OF_MEDIAN = 1.4826  # standard deviation over median of |residuals|, normal errors
LEAST_SPREAD = 5e-3  # relative: no measurement of time is better, so nothing closer is off
SPARE_SAMPLES = 2  # beyond the terms, so that an error can show
SAME_SHARE = 1e-9  # of a rank's frames
LEAST_OWN = 1e-5  # of a term's squares: 1 % of noise then is 3 of a coefficient, for few samples


@dataclass
class TermSeconds:
    """The coefficients, by the names of TERMS."""

    task_s: float = 0.0
    patch_s: float = 0.0
    token_s: float = 0.0
    pair_s: float = 0.0
    step_s: float = 0.0
    sequence_step_s: float = 0.0
    patch_pair_s: float = 0.0


@dataclass(frozen=True)
class TimeSample:
    """Sequences that took this long on a group of `degree` ranks."""

    sequences: Sequence[BatchSequence]
    degree: int
    seconds: float = math.nan


@dataclass(frozen=True)
class EstimateError:
    """|estimate - measured| / measured over samples, the 95th percentile by nearest rank; all 0 without samples."""

    mean: float
    p95: float
    worst: float
    samples: int


@dataclass(frozen=True)
class TimeFit:
    seconds: TermSeconds  # all at least 0
    error: EstimateError  # on the samples of the fit
    set_aside: int  # samples so far off that they count nothing


@dataclass(frozen=True)
class NoFit:
    """The measurements do not determine the coefficients."""

    reason: str  # a sentence: what cannot be told from what, and what to measure


def terms_of(cost: CostModel) -> TermSeconds:
    """Both passes of a cost model together."""
    passes = ("token_s", "pair_s", "step_s", "sequence_step_s")
    sums = {name: getattr(cost.forward, name) + getattr(cost.backward, name) for name in passes}
    return TermSeconds(task_s=cost.task_s, patch_s=cost.patch_s, patch_pair_s=cost.patch_pair_s, **sums)


def estimate_s(terms: TermSeconds, sequences: Sequence[BatchSequence], degree: int) -> float:
    """Seconds by these coefficients, transfers apart."""
    return float(_estimates(terms, _loads([TimeSample(sequences, degree)]))[0])


def estimates_s(terms: TermSeconds, samples: Sequence[TimeSample]) -> Array:
    """[samples]: `estimate_s` of each."""
    return _estimates(terms, _loads(samples))


def error_of(estimated_s: Iterable[float], measured_s: Iterable[float]) -> EstimateError:
    """How far estimates are off. Raises ValueError for lists of different lengths."""
    pairs = zip(estimated_s, measured_s, strict=True)
    errors = sorted(abs(e - m) / m if m > 0.0 else math.inf for e, m in pairs)
    if not errors:
        return EstimateError(0.0, 0.0, 0.0, 0)
    return EstimateError(sum(errors) / len(errors), errors[math.ceil(0.95 * len(errors)) - 1], errors[-1], len(errors))


def estimate_error(terms: TermSeconds, samples: Sequence[TimeSample]) -> EstimateError:
    return error_of(_estimates(terms, _loads(samples)).tolist(), [sample.seconds for sample in samples])


def fit_times(
    samples: Sequence[TimeSample],
    terms: Sequence[str],
    *,
    prior: TermSeconds | None = None,
    prior_weight: float = 1e-3,
) -> TimeFit | NoFit:
    """Fits these terms to the samples; the others are 0. Least squares of *relative* residuals, so that short tasks
    count as much as long ones, coefficients at least 0, and robust: samples that are far off by the spread of the
    others count less (Huber), then nothing (Tukey's biweight). What the fullest share of frames consists of follows
    from the coefficients: fitted again, as often as that changes.

    prior  believed before: stands in where samples do not tell terms apart, scaled by the median of measured over
           believed first. Counts as much as `prior_weight` samples. Without it such samples give NoFit.

    Raises ValueError for samples that are not positive and finite, degrees below 1, or terms that repeat or are none.
    """
    _check(samples, terms)
    if prior and not samples:
        return NoFit("there are no samples")
    loads, seconds = _loads(samples), np.array([sample.seconds for sample in samples])
    columns = [TERMS.index(term) for term in terms]
    shares = _shares(TermSeconds(patch_s=1.0), loads)  # by numbers of patches, to begin with
    best: TimeFit | None = None
    for _ in range(ROUNDS_OF_FRAMES):
        rows = _features(loads, shares)[:, columns] / seconds[:, None]  # by the right coefficients: 1 each
        if prior is None and (reason := _why_undetermined(rows, terms)):
            return best or NoFit(reason)
        believed = _prior_rows(rows, terms, prior, _ratio(seconds, _estimates(prior, loads))) if prior else None
        coefficients, set_aside = _robust(rows, believed, prior_weight)
        found = TermSeconds(**dict(zip(terms, coefficients.tolist(), strict=True)))
        fit = TimeFit(found, estimate_error(found, samples), set_aside)
        if best is None or fit.error.mean < best.error.mean:
            best = fit
        before, shares = shares, _shares(found, loads)
        if np.allclose(shares, before, rtol=0.0, atol=SAME_SHARE):
            return fit
    assert best is not None
    return best  # shares change for ever


def fit_attention(
    head_dim: int, tokens: Sequence[float], flop_per_s: Sequence[float], *, causal: bool = True, heads: int = 1
) -> dict[str, float]:
    """What a dhp.device/1 file says of attention, from rates measured at several lengths: least squares of relative
    errors of time, no coefficient negative, none more than there are lengths; docs/costs.md, "Speed of attention"."""
    s, rate = np.asarray(tokens, dtype=np.float64), np.asarray(flop_per_s, dtype=np.float64)
    pairs = s * s / (2.0 if causal else 1.0)
    # Time by pairs, by tokens and fixed over the time measured, which should be 1.
    rows = np.stack([rate, rate * s / pairs, rate / pairs], axis=1)[:, : len(s)]
    ones = np.ones(len(s))
    found = np.zeros(3)
    found[: rows.shape[1]] = least_squares(rows, ones, ones)
    if found[0] <= 0.0:  # pairs always take time: a table whose time does not grow with them is a rate and nothing else
        found = np.append(least_squares(rows[:, :1], ones, ones), [0.0, 0.0])
    return {
        "flop_per_s": float(1.0 / found[0]),
        "token_pairs": float(found[1] / found[0]),
        "sequence_s": float(found[2] * 4.0 * heads * head_dim),
    }


def _check(samples: Sequence[TimeSample], terms: Sequence[str]) -> None:
    if not terms:
        raise ValueError("fit_times: no terms")
    if len(set(terms)) != len(terms):
        raise ValueError("fit_times: a term stands twice")
    for sample in samples:
        if not 0.0 < sample.seconds < math.inf or sample.degree < 1:
            raise ValueError(
                "fit_times: samples take a positive number of seconds on at least 1 rank, found "
                f"{sample.seconds:f} s on {sample.degree}"
            )


def _loads(samples: Sequence[TimeSample]) -> Array:
    """[samples, 9]: d, n, S1, S2, V, sum(v u), u_max, frames of that size, all frames."""
    rows = []
    for sample in samples:
        framed = [s for s in sample.sequences if s.frame_patches]
        largest = max((s.frame_patches for s in framed), default=0)
        rows.append(
            (
                sample.degree,
                len(sample.sequences),
                sum(s.tokens for s in sample.sequences),
                sum(s.tokens**2 for s in sample.sequences),
                sum(s.patches for s in sample.sequences),
                sum(s.patches * s.frame_patches for s in sample.sequences),
                largest,
                sum(s.patches // largest for s in framed if s.frame_patches == largest),
                sum(-(-s.patches // s.frame_patches) for s in framed),
            )
        )
    return np.array(rows, dtype=np.float64).reshape(-1, 9)


def _shares(terms: TermSeconds, loads: Array) -> Array:
    """[samples, 2]: a and b of the fullest share of frames."""
    degree, _, _, _, patches, pairs, frame, largest_frames, frames = loads.T
    work_s = terms.patch_s * patches + terms.patch_pair_s * pairs
    frame_s = (terms.patch_s + terms.patch_pair_s * frame) * frame
    numbers = zip(work_s, frame_s, largest_frames, frames, degree.astype(int), strict=True)
    return np.array([fullest_share(*of_sample) for of_sample in numbers]).reshape(-1, 2)


def _features(loads: Array, shares: Array) -> Array:
    """[samples, TERMS]: what each coefficient is multiplied by."""
    d, n, tokens, squared, patches, pairs, frame, _, _ = loads.T
    work, largest = shares.T
    columns = {
        "task_s": np.ones_like(d),
        "patch_s": work * patches + largest * frame,
        "token_s": tokens / d,
        "pair_s": squared / (2 * d),
        "step_s": d,
        "sequence_step_s": d * n,
        "patch_pair_s": work * pairs + largest * frame**2,
    }
    return np.stack([columns[term] for term in TERMS], axis=1)


def _estimates(terms: TermSeconds, loads: Array) -> Array:
    return _features(loads, _shares(terms, loads)) @ [getattr(terms, term) for term in TERMS]


def _ratio(measured: Array, believed: Array) -> float:
    known = believed > 0.0
    return _median(measured[known] / believed[known]) if known.any() else 1.0


def _median(values: Array) -> float:
    return float(np.sort(values)[len(values) // 2])  # of two in the middle the greater


def _prior_rows(rows: Array, terms: Sequence[str], prior: TermSeconds, scale: float) -> tuple[Array, Array]:
    """Further rows: each says that a coefficient is what the prior has, give or take all of it. One believed to be 0 is
    pulled there at the scale at which it would matter."""
    believed = np.array([getattr(prior, term) * scale for term in terms])
    largest = rows.max(axis=0)
    unit = np.where(believed > 0.0, believed, 1.0 / np.where(largest > 0.0, largest, 1.0))
    return np.diag(1.0 / unit), believed / unit


def _robust(rows: Array, prior: tuple[Array, Array] | None, prior_weight: float) -> tuple[Array, int]:
    """Least squares with weights that follow from the residuals, again and again: Huber's first, whose minimum is
    unique; from there Tukey's, at the spread then known. Returns the coefficients and how many rows ended at weight 0.
    """
    count = len(rows)
    x, y = (np.vstack([rows, prior[0]]), np.append(np.ones(count), prior[1])) if prior else (rows, np.ones(count))
    weights = np.append(np.ones(count), np.full(len(y) - count, prior_weight))
    coefficients = least_squares(x, y, weights)
    spread = 0.0
    for rejects in (False, True):
        for _ in range(ROUNDS):
            off = np.abs(rows @ coefficients - 1.0)
            if not rejects:
                spread = max(LEAST_SPREAD, DEVIATION_OF_MEDIAN * _median(off))
            ratio = off / (spread * (TUKEY if rejects else HUBER))
            now = np.clip(1.0 - ratio**2, 0.0, None) ** 2 if rejects else 1.0 / np.maximum(ratio, 1.0)
            change = np.abs(now - weights[:count]).max()
            weights[:count] = now
            if change < 1e-9:
                break
            coefficients = least_squares(x, y, weights)
    return coefficients, int((weights[:count] == 0.0).sum())


def least_squares(x: Array, y: Array, weights: Array) -> Array:
    """The coefficients >= 0 with the least sum of weights (x c - y)^2."""
    from scipy.optimize import nnls  # here, since the planner alone does without scipy

    root = np.sqrt(weights)
    scaled = x * root[:, None]
    length = np.linalg.norm(scaled, axis=0)  # columns differ by many powers of ten
    length[length == 0.0] = 1.0
    return nnls(scaled / length, y * root, maxiter=1000)[0] / length  # a few do; its error would end a run


def _why_undetermined(rows: Array, terms: Sequence[str]) -> str:
    named = ", ".join(terms)
    if len(rows) < len(terms) + SPARE_SAMPLES:
        return (
            f"{len(rows)} samples for {len(terms)} coefficients ({named}): measure at least "
            f"{len(terms) + SPARE_SAMPLES}"
        )
    own = _own_shares(rows)
    worst = None
    for j, share in enumerate(own):
        # Of equals the last: what a task is packed into and split over is more easily changed than its length.
        if share < LEAST_OWN and (worst is None or share <= own[worst] + LEAST_OWN / 10):
            worst = j
    if worst is None:
        return ""
    return (
        f"{terms[worst]} cannot be told from the other coefficients ({named}) by these {len(rows)} samples: "
        f"{ADVICE[terms[worst]]}"
    )


def _own_shares(rows: Array) -> list[float]:
    """By column: the share of its squares that no combination of the others gives (1 - R^2); 0 for a column of 0."""
    scaled = rows / np.maximum(np.linalg.norm(rows, axis=0), 1e-300)
    shares = []
    for j in range(rows.shape[1]):
        others = np.delete(scaled, j, axis=1)
        left = scaled[:, j] - others @ np.linalg.lstsq(others, scaled[:, j])[0]
        shares.append(float(left @ left))
    return shares
