"""How numbers are spread: a mean, percentiles, and counts in bins, as `dhp dataset` has them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Bin:
    """Values from `least` to less than `end`: how many, and the sum of them."""

    least: float
    end: float
    count: int
    total: float


@dataclass(frozen=True)
class Spread:
    """percentiles by name ("p50"): the least value that so large a share of all does not exceed."""

    count: int
    total: float
    mean: float
    least: float
    most: float
    percentiles: dict[str, float]
    bins: list[Bin]


def spread_of(values: npt.NDArray[np.int64]) -> Spread:
    """Of at least one value, all above 0. Bins go from 2^k to 1.5 x 2^k and on to 2^(k+1), from that of the least."""
    ordered = np.sort(values)
    percentiles = {f"p{round(share * 100)}": float(at_share(ordered, share)) for share in SHARES}
    edges = _edges(float(ordered[0]), float(ordered[-1]))
    places = np.searchsorted(ordered, edges)
    sums = np.concatenate([[0], np.cumsum(ordered, dtype=np.float64)])
    bins = [
        Bin(edges[i], edges[i + 1], int(places[i + 1] - places[i]), float(sums[places[i + 1]] - sums[places[i]]))
        for i in range(len(edges) - 1)
    ]
    total = float(sums[-1])
    return Spread(len(ordered), total, total / len(ordered), float(ordered[0]), float(ordered[-1]), percentiles, bins)


def at_share(ordered: npt.NDArray[np.int64], share: float) -> int:
    """The nearest rank."""
    rank = math.ceil(share * len(ordered))
    return int(ordered[min(max(rank, 1), len(ordered)) - 1])


def _edges(least: float, most: float) -> list[float]:
    power = 2.0 ** math.floor(math.log2(least))
    edges = [power if least < 1.5 * power else 1.5 * power]
    while edges[-1] <= most:
        edges.append(1.5 * power if edges[-1] == power else 2 * power)
        power *= 2 if edges[-1] == 2 * power else 1
    return edges


__all__ = ["Bin", "Spread", "at_share", "spread_of"]
