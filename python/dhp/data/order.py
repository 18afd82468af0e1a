"""The order of an epoch: a keyed permutation of 0 … n-1, of which any part can be had without the rest.

Swap-or-not (Hoang, Morris and Rogaway, CRYPTO 2012): in each round every number x has one partner, K - x mod n, and the
two change places or stay, as a hash of the larger one and the round says. Each round is its own inverse, so all rounds
together are a permutation, whatever n; a number is as good as anywhere after some dozens of them. Whole numbers of 64
bits alone: the same on every machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

ROUNDS = 64
_STEP = 0x9E3779B97F4A7C15  # the golden ratio's fraction: counts through 64 bits evenly
_ALL = (1 << 64) - 1


def key_of(*numbers: int) -> int:
    """A key of 64 bits that depends on each of the numbers and on their order."""
    key = 0
    for number in numbers:
        key = int(_mixed(np.array([(key ^ number) + _STEP & _ALL], np.uint64))[0])
    return key


def permuted(positions: Rows, count: int, key: int) -> Rows:
    """What stands at these positions (0 … count-1) of the permutation of this key; time and memory follow from the
    number of positions alone."""
    rounds = np.arange(2 * ROUNDS, dtype=np.uint64) * np.uint64(_STEP) + np.uint64(key)
    keys = _mixed(rounds)
    size = np.uint64(count)
    x = positions.astype(np.uint64)
    for shift, secret in zip(keys[:ROUNDS] % size, keys[ROUNDS:], strict=True):
        partner = shift + size - x
        partner -= size * (partner >= size)
        swapped = _mixed(np.maximum(x, partner) ^ secret) >> np.uint64(63) == 1
        x = np.where(swapped, partner, x)
    return x.astype(np.int64)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finish: every bit of a value changes half of the bits. Steele, Lea and Flood, OOPSLA 2014."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


__all__ = ["key_of", "permuted"]
