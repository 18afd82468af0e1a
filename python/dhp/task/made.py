"""Pictures and clips that are made up, to measure or to try a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MadeMedium:
    """What a model needs to know of a medium (`dhp.data.placeholders.MediumShape`), and its units."""

    kind: str  # image | video
    grid: tuple[int, int, int]  # units, rows and columns of patches
    unit_rows: int  # tokens that each unit becomes
    timestamps: tuple[float, ...] = ()
    unit_seconds: float = 1.0

    @property
    def units(self) -> int:
        return self.grid[0]

    @property
    def unit_patches(self) -> int:
        return self.grid[1] * self.grid[2]
