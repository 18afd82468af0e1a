"""Corrections of estimates of groups, by degree and length."""

import math

import numpy as np
import pytest

from dhp._core import (
    Cluster,
    CostModel,
    Exchange,
    Link,
    PassCost,
    ResidualFactor,
    Sequence,
    residual_factor,
    task_seconds,
)
from dhp.cost.fit import TermSeconds, TimeSample, estimate_s
from dhp.cost.residuals import cell_of, learn_factors, longest

TERMS = TermSeconds(task_s=0.01, token_s=1e-3, pair_s=1e-6, step_s=1e-3)


def samples(
    count: int, degree: int, tokens: tuple[int, int], factor: float, noise: float, seed: int
) -> list[TimeSample]:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        sequences = [Sequence(0, int(random.integers(*tokens))), Sequence(1, 5)]
        seconds = estimate_s(TERMS, sequences, degree) * factor * math.exp(noise * random.standard_normal())
        made.append(TimeSample(sequences, degree, seconds))
    return made


def test_cells() -> None:
    assert [cell_of(3, tokens) for tokens in (1, 2, 3, 4, 1023, 1024)] == [(3, n) for n in (1, 2, 2, 4, 512, 1024)]
    assert longest([Sequence(0, 5), Sequence(1, 9), Sequence(2, 7)]) == 9


def test_factors_are_those_that_planners_apply() -> None:
    """The same cells as in C++: estimates times factors are task times."""
    factors = [ResidualFactor(2, 8, 1.5), ResidualFactor(2, 64, 0.8), ResidualFactor(4, 8, 1.2)]
    cost = CostModel("x", 1, 0.01, 0, PassCost(1e-3, 1e-6, 1e-3), PassCost(0, 0), 1, 1, 0, 0, 0, residuals=factors)
    by_cell = {(f.degree, f.tokens): f.factor for f in factors}
    link = Link(1e30, 0.0, 1)
    for degree in (1, 2, 3, 4):
        for tokens in (1, 7, 8, 15, 16, 63, 64, 127, 128):
            sequences = [Sequence(0, tokens), Sequence(1, 1)]
            expected = estimate_s(TERMS, sequences, degree) * residual_factor(cost, degree, tokens)
            ranks = list(range(degree))
            assert residual_factor(cost, degree, tokens) == by_cell.get(cell_of(degree, tokens), 1.0)
            found = task_seconds(cost, Cluster(1, 4, 1e9, link, link), sequences, ranks, Exchange.ring)
            assert found == pytest.approx(expected, rel=1e-14), (degree, tokens)


@pytest.mark.parametrize("seed", range(5))
def test_what_repeats_is_found(seed: int) -> None:
    given = [
        *samples(100, 2, (64, 128), 1.1, 0.03, seed),
        *samples(100, 2, (128, 256), 1.0, 0.03, seed + 10),
        *samples(100, 4, (64, 128), 0.9, 0.03, seed + 20),
        *samples(15, 3, (64, 128), 2.0, 0.0, seed + 30),  # too few
        *samples(100, 1, (64, 128), 1.5, 0.0, seed + 40),  # what single ranks take is for the fit alone
    ]
    found = {(f.degree, f.tokens): f.factor for f in learn_factors(given, TERMS)}
    # The standard error is 0.3 %: of log 1.1 = 9.5 % and log 0.9 = -10.5 % all but 0.4 % counts.
    assert found.pop((2, 64)) == pytest.approx(1.1, abs=0.0133)
    assert found.pop((4, 64)) == pytest.approx(0.9, abs=0.0133)
    assert all(abs(factor - 1.0) <= 0.0101 for factor in found.values()) and set(found) <= {(2, 128)}


def test_by_hand() -> None:
    # Half are 4 % above, half 8 % in logarithms: the mean is 6 %, its standard error 0.0203 / sqrt(32) = 0.36 %
    # so that 1 - (0.72 / 6)^2 = 0.9857 of it counts: exp(0.0591) = 1.0609.
    sequences = [Sequence(0, 40)]
    exact = estimate_s(TERMS, sequences, 2)
    given = [TimeSample(sequences, 2, exact * math.exp(0.04 if i % 2 else 0.08)) for i in range(32)]
    assert learn_factors(given, TERMS) == [ResidualFactor(2, 32, 1.06)]
    assert learn_factors(given[:15], TERMS) == []
    assert learn_factors([TimeSample(sequences, 2, exact)] * 40, TERMS) == []
    assert learn_factors([TimeSample(sequences, 2, 99 * exact)] * 40, TERMS) == [ResidualFactor(2, 32, 4.0)]
    assert learn_factors([], TERMS) == []
