"""Sizes of errors of estimates, recovered from residuals made with known ones."""

import math

import numpy as np
import pytest

from dhp._core import ErrorSizes, Sequence
from dhp.cost.errors import Residual, error_sizes, residuals_of, spread_within, squared_shares
from dhp.cost.fit import TermSeconds
from dhp.cost.speeds import MemberTimes, TimedTask

BELIEVED = ErrorSizes(0.3, 0.2, 0.1)


def made(count: int, sizes: ErrorSizes, seed: int, most_degree: int = 4) -> list[Residual]:
    """Packs of 1 to 10 sequences on one rank, and single sequences on several, as in ErrorSizes: the same for all of a
    degree is added, which counts nothing."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        degree = int(random.integers(2, most_degree + 1)) if most_degree > 1 and number % 3 == 0 else 1
        shares = random.dirichlet(np.ones(random.integers(1, 11))) if degree == 1 else np.ones(1)
        by_sequence = np.log(shares @ np.exp(sizes.sequence * random.standard_normal(len(shares))))
        whole = by_sequence + sizes.task * random.standard_normal() + 0.03 * degree
        members = whole + sizes.rank * random.standard_normal(degree)
        found.append(Residual(tuple(members.tolist()), degree, float((shares**2).sum())))
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sizes", [(0.02, 0.02, 0.01), (0.04, 0.01, 0.03), (0.0, 0.03, 0.01), (0.05, 0.0, 0.0)])
def test_sizes_are_recovered(sizes: tuple[float, float, float], seed: int) -> None:
    found = error_sizes(made(4000, ErrorSizes(*sizes), seed), BELIEVED)
    # The square of a size a, from 4,000 residuals of variance v, is known to about sqrt(2) v / sqrt(4000) / 0.3, where
    # 0.3 is how much sums of squared shares vary; a step of 0.005 is half the error of rounding twice.
    v = sizes[0] ** 2 + sizes[1] ** 2 + sizes[2] ** 2
    doubt = math.sqrt(2) * v / math.sqrt(4000) / 0.3
    for found_size, size in ((found.sequence, sizes[0]), (found.task, sizes[1])):
        least, most = (math.sqrt(max(0.0, size**2 + sign * 3 * doubt)) for sign in (-1, 1))
        assert least - 0.0026 <= found_size <= most + 0.0026, (found, seed)
    assert found.rank == pytest.approx(sizes[2], abs=0.0051)


def test_sizes_by_hand() -> None:
    # 20 packs of equal halves are off by +-0.03, 20 single sequences by +-0.04: a/2 + b = 0.0009 and a + b = 0.0016, so
    # a = 0.0014 and b = 0.0002 but for the dispersion of means, 40/39, and the belief: 0.037 and 0.014.
    packs = [Residual(((-1) ** i * 0.03,), 1, 0.5) for i in range(400)]
    single = [Residual(((-1) ** i * 0.04,), 1, 1.0) for i in range(400)]
    assert error_sizes(packs + single, BELIEVED, rank=0.0) == ErrorSizes(0.035, 0.015, 0.0)
    # With 0.01 of it by ranks, b is 0.0001 and a the same.
    assert error_sizes(packs + single, BELIEVED, rank=0.01) == ErrorSizes(0.035, 0.01, 0.01)
    # All single: nothing tells sequences from tasks, so half of 0.0016 each.
    assert error_sizes(single, BELIEVED, rank=0.0) == ErrorSizes(0.03, 0.03, 0.0)


def test_groups_tell_the_size_of_ranks() -> None:
    # Members are 0.02 above and below what the task is: the deviation with one of two free is 0.02 sqrt(2).
    groups = [Residual((0.5 + 0.02, 0.5 - 0.02), 2, 1.0) for _ in range(32)]
    assert error_sizes(groups, BELIEVED) == ErrorSizes(0.0, 0.0, 0.03)


def test_too_few_tell_nothing() -> None:
    assert error_sizes([], BELIEVED) == BELIEVED
    few = made(31, ErrorSizes(0.02, 0.02, 0.02), 1)
    assert error_sizes(few, BELIEVED).task == 0.2
    alone = made(100, ErrorSizes(0.02, 0.02, 0.0), 1, most_degree=1)
    assert error_sizes(alone, BELIEVED).rank == 0.1
    assert spread_within(np.zeros(20), np.arange(20)) is None
    once = [Residual((0.1,), degree, 1.0) for degree in range(1, 41)]  # each degree once: means are all there is
    assert error_sizes(once, BELIEVED) == ErrorSizes(0.0, 0.0, 0.1)


def test_outliers_do_not_decide() -> None:
    sizes = ErrorSizes(0.02, 0.02, 0.01)
    tasks = made(1000, sizes, 3)
    odd = [
        Residual(tuple(m + 2.0 for m in r.members), r.degree, r.squares) if i < 20 else r for i, r in enumerate(tasks)
    ]
    found = error_sizes(odd, BELIEVED)
    assert found.rank == 0.01
    assert math.hypot(found.sequence, found.task) < 0.045


def test_residuals_and_shares_by_hand() -> None:
    terms = TermSeconds(task_s=1.0, token_s=0.1, patch_s=1.0)
    # Alone: 1 + 0.1 * 10 = 2 and 1 + 0.1 * 50 = 6; shares 1/4 and 3/4.
    pack = [Sequence(0, 10), Sequence(1, 50)]
    assert squared_shares(terms, [pack, [Sequence(2, 7)]]) == pytest.approx([0.625, 1.0])
    # On ranks 2 and 0: 1 + 0.1 * 60/2 = 4, and 4 patches of the first member; rank 2 is at half speed.
    task = TimedTask(pack, (2, 0), MemberTimes((16.0, 8.0), (4.0, 0.0), (0.0, 0.0)))
    untimed = TimedTask(pack, (1,), MemberTimes((0.0,), (0.0,), (0.0,)))
    (found,) = residuals_of([task, untimed], terms, [1.0, 1.0, 0.5])
    assert found.members == pytest.approx((0.0, math.log(2)))
    assert (found.degree, found.squares) == (2, pytest.approx(0.625))
