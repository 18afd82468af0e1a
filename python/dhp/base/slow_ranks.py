"""Slow ranks in words."""

from __future__ import annotations

from statistics import median

SLOW = 0.97  # of the others: devices of one model differ by some percent


def slow_ranks_text(rank_speed: list[float]) -> str:
    """The slowest rank in service against the median of the others: "rank 5 at 0.94 of the others", and how many more
    are slow. Nothing where none is at SLOW or below."""
    speeds = sorted((speed, rank) for rank, speed in enumerate(rank_speed) if speed > 0.0)
    if len(speeds) < 2:
        return ""
    (least, slowest), *others = speeds
    usual = median(speed for speed, _ in others)
    if least > SLOW * usual:
        return ""
    more = sum(speed <= SLOW * usual for speed, _ in others)
    return f"rank {slowest} at {least / usual:.2f} of the others" + (f", {more} more slow" if more else "")
