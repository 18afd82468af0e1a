"""Pictures and clips that are made up, to measure or to try a model."""

from __future__ import annotations

from dataclasses import dataclass

from dhp.task.layout import GridOfUnits


@dataclass(frozen=True)
class MadeMedium(GridOfUnits):
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
