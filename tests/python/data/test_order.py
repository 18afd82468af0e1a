"""The order of epochs: a permutation, of which any part is had alone, and which looks random."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dhp.data.order import key_of, permuted


def whole(count: int, key: int) -> np.ndarray:
    return permuted(np.arange(count), count, key)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 16, 97, 1000, 1024, 65_537])
def test_is_a_permutation(count: int) -> None:
    for key in (0, 1, key_of(3, 4), (1 << 64) - 1):
        assert sorted(whole(count, key).tolist()) == list(range(count)), f"key {key}"


def test_any_part_is_as_in_the_whole() -> None:
    order = whole(10_007, 5)
    some = np.random.default_rng(1).integers(0, 10_007, 50)
    assert permuted(some, 10_007, 5).tolist() == order[some].tolist()
    assert permuted(some[:0], 10_007, 5).tolist() == []


def test_is_one_to_one_where_it_cannot_be_seen_whole() -> None:
    count = (1 << 40) + 15
    some = np.unique(np.random.default_rng(2).integers(0, count, 100_000))
    there = permuted(some, count, 9)
    assert len(np.unique(there)) == len(some)
    assert there.min() >= 0 and there.max() < count
    assert abs(there.mean() / count - 0.5) < 0.01


def test_is_the_same_on_every_machine() -> None:
    """Worked out with Python's own whole numbers, without numpy."""

    def mixed(value: int) -> int:
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
        return value ^ value >> 31

    def at(x: int, count: int, key: int) -> int:
        keys = [mixed((number * 0x9E3779B97F4A7C15 + key) % 2**64) for number in range(128)]
        for shift, secret in zip(keys[:64], keys[64:], strict=True):
            partner = (shift % count - x) % count
            if mixed(max(x, partner) ^ secret) >> 63:
                x = partner
        return x

    count, key = 1_000_003, key_of(7, 0, 2)
    some = [0, 1, 2, 500_000, 1_000_002]
    assert permuted(np.array(some), count, key).tolist() == [at(x, count, key) for x in some]


def test_keys_depend_on_every_number() -> None:
    keys = [key_of(*numbers) for numbers in itertools.product(range(3), range(3), range(3))]
    assert len(set(keys)) == 27
    assert all(0 <= key < 1 << 64 for key in keys)
    assert key_of(2**32 - 1, 10**9) != key_of(10**9, 2**32 - 1)


def chi_square(observed: np.ndarray, expected: float) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def test_all_orders_of_a_few_are_as_likely() -> None:
    """Of 4: 24 orders, 23 degrees of freedom; beyond 60 once in 30,000 times."""
    trials = 12_000
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(trials):
        order = tuple(whole(4, key_of(seed, 0)).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert chi_square(np.array(list(counts.values())), trials / 24) < 60


def test_numbers_land_anywhere_and_neighbours_apart() -> None:
    """Where each of 50 numbers lands, and how far the next lands from it, over 4,000 epochs: 49 degrees of freedom and
    more; beyond 130 once in ten million times."""
    count, trials = 50, 4000
    orders = np.stack([whole(count, key_of(11, epoch)) for epoch in range(trials)])
    for position in range(count):
        assert chi_square(np.bincount(orders[:, position], minlength=count), trials / count) < 130
    apart = (orders[:, 1:] - orders[:, :-1]) % count
    for position in range(count - 1):
        met = np.bincount(apart[:, position], minlength=count)
        assert met[0] == 0
        assert chi_square(met[1:], trials / (count - 1)) < 130


def test_epochs_have_nothing_in_common() -> None:
    """Numbers at the same place in two epochs: one on average, as of random orders."""
    count = 5000
    same = [int((whole(count, key_of(1, e)) == whole(count, key_of(1, e + 1))).sum()) for e in range(40)]
    assert 0.5 < sum(same) / len(same) < 1.6


def test_long_orders_have_no_runs() -> None:
    """Rises and falls: of n numbers (2n - 1)/3 ± √((16n - 29)/90) runs up or down."""
    count = 100_000
    order = whole(count, 3)
    turns = np.diff(np.sign(np.diff(order))) != 0
    runs = 1 + int(turns.sum())
    assert abs(runs - (2 * count - 1) / 3) < 5 * math.sqrt((16 * count - 29) / 90)
