"""Pictures and clips that are made up, to measure or to try a model."""

from __future__ import annotations

from dataclasses import dataclass

from dhp.task.layout import MediumUnits


@dataclass(frozen=True)
class MadeMedium:
    """What a model needs to know of a medium (`dhp.data.placeholders.MediumShape`), and its units."""

    kind: str  # image | video | audio
    grid: tuple[int, int, int]  # units, rows and columns of patches
    unit_rows: int  # tokens that each unit becomes
    timestamps: tuple[float, ...] = ()
    unit_seconds: float = 1.0
    height: int = 0  # of the file, in pixels, where its family looks at them
    width: int = 0
    last_rows: int | None = None  # of the last unit, where they differ
    last_patches: int | None = None
    mel_frames: int = 0  # of a sound
    seconds: float = 0.0  # that a clip lasts

    @property
    def units(self) -> int:
        return self.grid[0]

    @property
    def unit_patches(self) -> int:
        return self.grid[1] * self.grid[2]

    @property
    def unit_sizes(self) -> MediumUnits:
        return MediumUnits(self.units, self.unit_rows, self.unit_patches, self.last_rows, self.last_patches)
