"""Fits of made-up measurements whose coefficients are known."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from dhp._core import Cluster, CostModel, Exchange, Link, PassCost, device_presets, task_seconds
from dhp._core import Sequence as Lengths
from dhp.cost.fit import (
    TERMS,
    NoFit,
    TermSeconds,
    TimeFit,
    TimeSample,
    _own_shares,
    error_of,
    estimate_error,
    estimate_s,
    fit_attention,
    fit_times,
    least_squares,
    terms_of,
)

TRUE = TermSeconds(task_s=3e-3, patch_s=8e-6, token_s=5e-5, pair_s=4e-8, step_s=1e-3, sequence_step_s=2e-4)
ALL = TERMS[:-1]
FRAMES = TermSeconds(task_s=3e-3, patch_s=8e-6, patch_pair_s=2e-8)
VISION = ("task_s", "patch_s", "patch_pair_s")


def exact(count: int, seed: int, degree: int = 0, terms: TermSeconds = TRUE) -> list[TimeSample]:
    """Tasks of every kind: 1 to 4 sequences of 30 to 3,000 tokens, some with vision, on 1 to 6 ranks."""
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        tokens = (30 * 100 ** random.uniform(0, 1, random.integers(1, 5))).astype(int).tolist()
        sequences = [Lengths(0, n, int(random.integers(0, 2) * random.integers(0, 4 * n))) for n in tokens]
        d = degree or int(random.integers(1, 7))
        samples.append(TimeSample(sequences, d, estimate_s(terms, sequences, d)))
    return samples


def times(samples: Sequence[TimeSample], factors: Sequence[float]) -> list[TimeSample]:
    return [replace(s, seconds=s.seconds * float(f)) for s, f in zip(samples, factors, strict=True)]


def fitted(samples: Sequence[TimeSample], terms: Sequence[str], prior: TermSeconds | None = None) -> TimeFit:
    answer = fit_times(samples, terms, prior=prior)
    assert isinstance(answer, TimeFit), answer
    return answer


def reason(samples: Sequence[TimeSample], terms: Sequence[str]) -> str:
    answer = fit_times(samples, terms)
    assert isinstance(answer, NoFit)
    return answer.reason


def assert_near(found: TermSeconds, expected: TermSeconds, relative: float) -> None:
    for term in TERMS:
        assert getattr(found, term) == pytest.approx(getattr(expected, term), rel=relative, abs=0), term


def test_estimate_is_task_time_without_transfers() -> None:
    # 2 sequences, 30 + 50 tokens, 40 patches on 2 ranks, by hand:
    # 0.5 + 3*40/2 + 2*80/2 + 0.1*(900+2500)/4 + 2*(7 + 2*0.25) = 0.5 + 60 + 80 + 85 + 15
    sequences = [Lengths(0, 30), Lengths(1, 50, 40)]
    terms = TermSeconds(task_s=0.5, patch_s=3, token_s=2, pair_s=0.1, step_s=7, sequence_step_s=0.25)
    assert estimate_s(terms, sequences, 2) == pytest.approx(240.5, rel=1e-15)
    cost = CostModel("x", 2, 0.5, 3, PassCost(0.5, 0.025, 3, 0.25), PassCost(1.5, 0.075, 4, 0), 1, 1, 0, 0, 0)
    assert terms_of(cost) == terms
    link = Link(1e30, 0.0, 1)
    whole = task_seconds(cost, Cluster(1, 2, 1e9, link, link), sequences, [0, 1], Exchange.ring)
    assert whole == pytest.approx(240.5, rel=1e-15)


def test_finds_known_coefficients() -> None:
    fit = fitted(exact(40, 1), ALL)
    assert_near(fit.seconds, TRUE, 1e-9)
    assert fit.error.worst < 1e-9
    assert fit.error.samples == 40


@pytest.mark.parametrize("seed", range(5))
def test_a_coefficient_that_is_zero_is_found_to_be_zero(seed: int) -> None:
    without = replace(TRUE, patch_s=0.0, sequence_step_s=0.0)
    exactly = fitted(exact(60, seed, terms=without), ALL).seconds
    assert_near(replace(exactly, patch_s=0.0, sequence_step_s=0.0), without, 1e-9)
    assert max(exactly.patch_s / TRUE.patch_s, exactly.sequence_step_s / TRUE.sequence_step_s) < 1e-9
    noise = 1 + 0.02 * np.random.default_rng(seed).standard_normal(60)
    noisy = fitted(times(exact(60, seed, terms=without), noise), ALL).seconds
    assert min(getattr(noisy, term) for term in ALL) >= 0.0
    assert_near(replace(noisy, patch_s=0.0, sequence_step_s=0.0), without, 0.3)


def test_noise_averages_out() -> None:
    noise = np.exp(0.05 * np.random.default_rng(3).standard_normal(400))
    samples = exact(400, 2)
    fit = fitted(times(samples, noise), ALL)
    # Standard deviations by the normal equations, about 0.05 of what one sample tells.
    units = [TermSeconds(**{term: 1.0}) for term in ALL]
    x = np.array([[estimate_s(unit, s.sequences, s.degree) / s.seconds for unit in units] for s in samples])
    deviations = 0.05 * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
    for term, deviation in zip(ALL, deviations, strict=True):
        assert getattr(fit.seconds, term) == pytest.approx(getattr(TRUE, term), abs=4 * deviation), term
    assert fit.error.mean == pytest.approx(0.04, abs=0.006)  # the mean of |normal| is 0.8 of its deviation
    assert estimate_error(fit.seconds, exact(200, 4)).mean < 0.01


def test_shrugs_off_outliers() -> None:
    factors = np.exp(0.01 * np.random.default_rng(6).standard_normal(100))
    factors[::10] *= 5.0  # 20 of 100
    factors[5::10] *= 1.7
    fit = fitted(times(exact(100, 5), factors), ALL)
    assert fit.set_aside == 20
    assert estimate_error(fit.seconds, exact(200, 7)).mean < 0.01


def test_coefficients_are_never_negative() -> None:
    # Seconds fall with length: the best line has a negative slope, the best one allowed is a constant.
    samples = [TimeSample([Lengths(0, n)], 1, 1.1 - 1e-4 * n) for n in range(100, 1001, 100)]
    found = fitted(samples, ("task_s", "token_s", "pair_s")).seconds
    assert (found.token_s, found.pair_s) == (0.0, 0.0)
    assert 1.0 < found.task_s < 1.1


def test_scales_with_the_unit_of_time() -> None:
    found, scaled = (fitted(times(exact(40, 8), [factor] * 40), ALL).seconds for factor in (1, 1024))
    for term in ALL:
        assert getattr(scaled, term) == pytest.approx(1024 * getattr(found, term), rel=1e-9)


def test_says_what_is_missing() -> None:
    linear = ("task_s", "token_s", "pair_s")
    samples = [TimeSample([Lengths(0, 900 if i % 2 else 100)], 1, 0.1) for i in range(10)]
    assert reason(samples, linear).endswith("by these 10 samples: measure more lengths, further apart")
    assert reason(samples[:2], linear) == ("2 samples for 3 coefficients (task_s, token_s, pair_s): measure at least 5")
    assert reason([], linear).startswith("0 samples for 3")
    assert reason(exact(40, 9, degree=2), ("task_s", "token_s", "step_s")) == (
        "step_s cannot be told from the other coefficients (task_s, token_s, step_s) by these 40 samples: "
        "measure more degrees"
    )
    alone = [TimeSample([Lengths(0, 100 * i)], 1 + i % 3, 0.1 * i) for i in range(1, 12)]
    assert "pack more and fewer" in reason(alone, ("token_s", "step_s", "sequence_step_s"))
    assert reason(alone, ("token_s", "patch_s")).startswith("patch_s cannot be told")
    assert reason(alone, ("patch_s",)).startswith("patch_s cannot be told")


def test_a_prior_stands_in_for_what_samples_do_not_tell() -> None:
    # All on 1 rank: task_s and step_s show as their sum alone, and the prior, twice too slow, says how it divides.
    samples = exact(60, 10, degree=1)
    twice = TermSeconds(**{term: 2 * getattr(TRUE, term) for term in TERMS})
    fit = fitted(samples, ALL, twice)
    assert fit.seconds.task_s + fit.seconds.step_s == pytest.approx(TRUE.task_s + TRUE.step_s, abs=1e-5)
    assert_near(fit.seconds, TRUE, 0.02)
    assert fit.error.worst < 1e-3
    # Without any sample that tells, the prior in the right unit of time.
    one = replace(samples[0], degree=3, seconds=2 * estimate_s(TRUE, samples[0].sequences, 3))
    assert_near(fitted([one], ALL, TRUE).seconds, twice, 1e-6)
    answer = fit_times([], ALL, prior=TRUE)
    assert isinstance(answer, NoFit) and answer.reason == "there are no samples"


def test_a_prior_yields_to_what_samples_tell() -> None:
    wrong = TermSeconds(task_s=1e-3, token_s=1e-4, pair_s=1e-8, step_s=4e-3)
    fit = fitted(exact(200, 11), ALL, wrong)
    assert estimate_error(fit.seconds, exact(200, 12)).mean < 0.01


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_refuses_seconds_that_are_none(seconds: float) -> None:
    bad = exact(20, 13)
    bad[7] = replace(bad[7], seconds=seconds)
    with pytest.raises(ValueError, match="samples take a positive number of seconds on at least 1 rank, found"):
        fit_times(bad, ALL)


def test_refuses_nonsense() -> None:
    samples = exact(20, 13)
    with pytest.raises(ValueError, match="no terms"):
        fit_times(samples, ())
    with pytest.raises(ValueError, match="a term stands twice"):
        fit_times(samples, ("task_s", "task_s"))
    samples[7] = replace(samples[7], degree=0)
    with pytest.raises(ValueError, match=r"found 0\.\d+ s on 0$"):
        fit_times(samples, ALL)


def test_errors_are_relative_and_ranked() -> None:
    estimated = [3.0, 1.5, 2.25] + [2.0] * 17  # 50 %, 25 %, 12.5 % off
    error = error_of(estimated, [2.0] * 20)
    assert (error.mean, error.p95, error.worst, error.samples) == (0.875 / 20, 0.25, 0.5, 20)  # p95: the 19th
    assert error_of([], []).samples == estimate_error(TRUE, []).samples == 0
    with pytest.raises(ValueError, match="longer"):
        error_of([1.0], [1.0, 2.0])


def test_least_squares_are_those_of_another_solver() -> None:
    random = np.random.default_rng(14)
    at_zero = 0
    for trial in range(200):
        columns = 1 + trial % 6
        x = np.abs(random.standard_normal((12, columns))) * 10.0 ** (3 * np.arange(columns))
        y, weights = random.standard_normal(12) + 0.5, np.abs(random.standard_normal(12)) + 0.1
        found = least_squares(x, y, weights)
        root, scale = np.sqrt(weights), 10.0 ** (3 * np.arange(columns))
        other = lsq_linear(x / scale * root[:, None], y * root, (0, np.inf), method="bvls", tol=1e-14).x
        assert found * scale == pytest.approx(other, rel=1e-9, abs=1e-12), trial
        at_zero += int((found == 0.0).sum())
    assert at_zero > 50  # else the trials tested nothing


def test_own_shares() -> None:
    # Columns (1, 1, 1, 1), (0, 0, 1, 1), and their sum: each is given by the others; without the third, half of the
    # second (its part beyond its mean) and half of the first are its own.
    rows = np.array([[1.0, 0, 1], [1, 0, 1], [1, 1, 2], [1, 1, 2]])
    assert _own_shares(rows[:, :2]) == pytest.approx([0.5, 0.5], abs=1e-12)
    assert _own_shares(rows) == pytest.approx([0, 0, 0], abs=1e-12)
    assert _own_shares(rows * [1, 0, 1])[1] == 0.0


def fullest_s(degree: int, large: int, large_s: float, small: int, small_s: float) -> float:
    """Frames of two sizes in turns over the ranks; the small ones first where a large one is missing."""
    turns = max(1, -(-large // degree))
    left = small - (turns * degree - large) * int(large_s / small_s + 1e-9) if small else 0
    total = large * large_s + small * small_s
    dealt = turns * large_s
    if left > 0 and degree > 1:
        dealt = max(dealt, min(dealt + -(-left // degree) * small_s, total / degree + (1 - 1 / degree) * small_s))
    return max(dealt, total / degree)


def frame_samples(count: int, seed: int, noise: float) -> list[TimeSample]:
    """Pictures and clips whose frames have 16 to 4,096 patches, on 1 to 8 ranks; about half last as long as one frame.
    The formula of vision once more, by hand."""
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        frames = (2 ** random.integers(4, 13, random.integers(1, 4))).tolist()
        counts = [frame * int(random.integers(1, 7)) for frame in frames]
        degree = int(random.integers(1, 9))
        one, pair = FRAMES.patch_s, FRAMES.patch_pair_s
        shared = sum(one * n + pair * n * u for n, u in zip(counts, frames, strict=True))
        largest = max(frames)
        units = [u for n, u in zip(counts, frames, strict=True) for _ in range(n // u)]
        large, large_s = units.count(largest), (one + pair * largest) * largest
        small = len(units) - large
        small_s = (shared - large * large_s) / max(1, small)
        seconds = FRAMES.task_s + fullest_s(degree, large, large_s, small, small_s)
        sequences = [Lengths(0, 100, n, u) for n, u in zip(counts, frames, strict=True)]
        samples.append(TimeSample(sequences, degree, seconds * (1 + noise * random.uniform(-1, 1))))
    return samples


@pytest.mark.parametrize("seed", range(1, 21))
def test_finds_vision_that_frames_limit(seed: int) -> None:
    fit = fitted(frame_samples(40, seed, 0.0), VISION)
    assert_near(fit.seconds, FRAMES, 1e-6)
    assert fit.error.worst < 1e-8
    noisy = fitted(frame_samples(200, seed, 0.05), VISION).seconds
    assert noisy.patch_s == pytest.approx(FRAMES.patch_s, rel=0.1)
    assert noisy.patch_pair_s == pytest.approx(FRAMES.patch_pair_s, rel=0.1)


def test_frames_of_one_size_do_not_tell_pairs_from_patches() -> None:
    samples = [TimeSample([Lengths(0, 100, 256 * i, 256)], 1 + i % 3) for i in range(1, 21)]
    samples = [replace(s, seconds=2 * estimate_s(FRAMES, s.sequences, s.degree)) for s in samples]
    said = reason(samples, VISION)
    assert said.startswith("patch_pair_s cannot be told")
    assert said.endswith("measure pictures and frames of different sizes")
    # What is believed divides the two, and the samples say how quick the machine is.
    found = fitted(samples, VISION, FRAMES).seconds
    assert found.patch_s == pytest.approx(2 * FRAMES.patch_s, rel=1e-3)
    assert found.patch_pair_s == pytest.approx(2 * FRAMES.patch_pair_s, rel=1e-3)


MEASURED = [
    pytest.param(entry, id=f"{preset.name}-{entry['head_dim']}")
    for preset in device_presets()
    for entry in json.loads(preset.text)["attention"]
    if "measured" in entry
]


@pytest.mark.parametrize("entry", MEASURED)
def test_attention_rates_of_presets_are_fitted_to_what_was_measured(entry: dict[str, Any]) -> None:
    measured = entry["measured"]
    assert len(measured["tokens"]) >= 3
    for key, value in fit_attention(entry["head_dim"], **measured).items():
        assert entry[key] == pytest.approx(value, rel=1e-9), key
    # What docs/costs.md states: no length is missed by more than 2 %.
    tokens = np.array(measured["tokens"])
    pairs = tokens**2 / (2 if measured["causal"] else 1)
    flop = 4 * measured["heads"] * entry["head_dim"]
    seconds = (pairs + entry["token_pairs"] * tokens) * flop / entry["flop_per_s"] + entry["sequence_s"]
    assert pairs * flop / seconds == pytest.approx(measured["flop_per_s"], rel=0.02)


def test_attention_rates_are_what_a_table_was_made_of() -> None:
    assert len(MEASURED) == 9
    # 200 TFLOP/s, 300 pairs a token, 4 us a sequence, 8 heads of 64.
    tokens = np.array([256.0, 1000, 5000, 20000])
    flop = 4 * 8 * 64
    rates = tokens**2 / 2 * flop / ((tokens**2 / 2 + 300 * tokens) * flop / 200e12 + 4e-6)
    found = fit_attention(64, tokens.tolist(), rates.tolist(), heads=8)
    assert found == pytest.approx({"flop_per_s": 200e12, "token_pairs": 300, "sequence_s": 4e-6}, rel=1e-6)
    # A rate that falls with length has no negative fixed parts: the best constant, by relative error of time.
    best = (200e12 * 200e12 + 100e12 * 100e12) / (200e12 + 100e12)
    falling = fit_attention(64, [1000, 2000], [200e12, 100e12])
    assert falling == pytest.approx({"flop_per_s": best, "token_pairs": 0.0, "sequence_s": 0.0}, rel=1e-12, abs=0)
    # One length says no more than a rate.
    one = fit_attention(64, [1000], [5e12])
    assert one == pytest.approx({"flop_per_s": 5e12, "token_pairs": 0.0, "sequence_s": 0.0}, rel=1e-12, abs=0)


def test_scipy_is_loaded_where_something_is_fitted() -> None:
    program = "import sys, dhp.cost.fit, dhp.cost.recalibrate; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
