"""Who holds what of a task: text tokens by the zigzag, vision frames by equal work, and the rows that travel between.

Everything here follows from the plan and the samples' sizes alone, so that every member of a group computes the same
layout without asking the others, before a single pixel is read.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dhp._core import padded_tokens, shard_ranges

if TYPE_CHECKING:
    from dhp.data.text import Encoded

Indices = npt.NDArray[np.int64]
WORTH_IT = 0.98  # of the fullest share: what makes decoding a clip in more runs worth it


@dataclass(frozen=True)
class Unit:
    """The smallest piece of vision work: a picture or a tile of it, a frame or a pair of frames of a clip."""

    sequence: int  # position in the task
    medium: int  # position in the sample
    part: int  # of the medium
    rows: int  # tokens that it becomes
    patches: int


class MediumUnits(NamedTuple):
    """How many units a medium has, and what each is. Only the last can be another than the rest: the rows of a clip may
    end with one more, a sound with less than a chunk."""

    units: int
    rows: int  # that each becomes
    patches: int  # of each
    last_rows: int | None = None  # of the last one, where they differ
    last_patches: int | None = None

    def of(self, part: int) -> tuple[int, int]:
        """Rows and patches of one unit."""
        if part < self.units - 1:
            return self.rows, self.patches
        last_rows = self.rows if self.last_rows is None else self.last_rows
        return last_rows, self.patches if self.last_patches is None else self.last_patches

    @property
    def all_rows(self) -> int:
        return (self.units - 1) * self.rows + self.of(self.units - 1)[0]

    @property
    def all_patches(self) -> int:
        return (self.units - 1) * self.patches + self.of(self.units - 1)[1]


class HasUnits(Protocol):
    """A medium."""

    @property
    def unit_sizes(self) -> MediumUnits: ...


class GridOfUnits:
    """A medium whose units have patches in rows and columns."""

    grid: tuple[int, int, int]  # units, rows, columns
    unit_rows: int
    last_rows: int | None
    last_patches: int | None

    @property
    def units(self) -> int:
        return self.grid[0]

    @property
    def unit_patches(self) -> int:
        return self.grid[1] * self.grid[2]

    @property
    def unit_sizes(self) -> MediumUnits:
        return MediumUnits(self.units, self.unit_rows, self.unit_patches, self.last_rows, self.last_patches)


def vision_units(media: Seq[Seq[MediumUnits]]) -> list[Unit]:
    """All units of a task in order of sequence, medium, part. `media[i][j]` are those of medium j of the i-th
    sequence."""
    return [
        Unit(i, j, part, *medium.of(part))
        for i, listed in enumerate(media)
        for j, medium in enumerate(listed)
        for part in range(medium.units)
    ]


def deal_units(units: Seq[Unit], degree: int) -> list[list[Unit]]:
    """Deals units to the members of a group, each share in the order of `units`: about the same number of patches to
    all, since the task waits for the fullest share. Consecutive units to each, so that a clip is decoded in few runs,
    unless another deal is clearly more level. No unit is encoded twice."""
    consecutive, level = _deal_consecutively(units, degree), _deal_largest_first(units, degree)
    return level if fullest(level) < WORTH_IT * fullest(consecutive) else consecutive


def fullest(shares: list[list[Unit]]) -> int:
    """Patches of the fullest share."""
    return max(sum(unit.patches for unit in share) for share in shares)


def _deal_consecutively(units: Seq[Unit], degree: int) -> list[list[Unit]]:
    """By where a unit's middle lies: as level as can be where all units are of one size, as those of one clip are."""
    shares: list[list[Unit]] = [[] for _ in range(degree)]
    total = sum(unit.patches for unit in units)
    before = 0
    for unit in units:
        middle = 2 * before + unit.patches  # twice the middle of the unit on the line of all patches
        shares[min(degree - 1, middle * degree // (2 * total))].append(unit)
        before += unit.patches
    return shares


def _deal_largest_first(units: Seq[Unit], degree: int) -> list[list[Unit]]:
    """Each unit, the largest first, to the member with the fewest patches. Units of one size are all the same for that:
    which they are is chosen so that each member's are consecutive."""
    loads = [(0, member) for member in range(degree)]
    by_size: dict[int, list[int]] = {}
    for number, unit in enumerate(units):
        by_size.setdefault(unit.patches, []).append(number)
    shares: list[list[int]] = [[] for _ in range(degree)]
    for size in sorted(by_size, reverse=True):
        counts = [0] * degree
        for _ in by_size[size]:
            load, member = heapq.heappop(loads)
            heapq.heappush(loads, (load + size, member))
            counts[member] += 1
        numbers = iter(by_size[size])
        for member, count in enumerate(counts):
            shares[member] += itertools.islice(numbers, count)
    return [[units[number] for number in sorted(share)] for share in shares]


def shard_tokens_of(tokens: int, degree: int, position: int) -> Indices:
    """Indices of the tokens that a ring position holds, in local order; indices >= tokens are pads."""
    return np.concatenate([np.arange(r.begin, r.end) for r in shard_ranges(tokens, degree, position)])


@dataclass(frozen=True)
class TaskLayout:
    """The share of one member (`position`) of a task.

    tokens[i]   length of the i-th sequence, unpadded
    visual[i]   indices of its visual tokens, ascending, in order of media and units
    media[i]    the units of its media
    """

    degree: int
    position: int
    tokens: tuple[int, ...]
    visual: tuple[Indices, ...]
    media: tuple[tuple[MediumUnits, ...], ...]

    @classmethod
    def of(cls, degree: int, position: int, encoded: Seq[Encoded], media: Seq[Seq[HasUnits]]) -> TaskLayout:
        """Of sequences, in packing order, and the media of each."""
        return cls(
            degree=degree,
            position=position,
            tokens=tuple(len(sequence.input_ids) for sequence in encoded),
            visual=tuple(np.flatnonzero(sequence.media_type) for sequence in encoded),
            media=tuple(tuple(medium.unit_sizes for medium in own) for own in media),
        )

    def __post_init__(self) -> None:
        for i, (media, positions) in enumerate(zip(self.media, self.visual, strict=True)):
            rows = sum(medium.all_rows for medium in media)
            if rows != len(positions):
                raise ValueError(f"sequence {i} of the task has {len(positions)} visual tokens, its media give {rows}")

    @cached_property
    def seq_tokens(self) -> list[int]:
        """Padded global lengths: what the attention op takes."""
        return [padded_tokens(n, self.degree) for n in self.tokens]

    @cached_property
    def local_tokens(self) -> list[Indices]:
        """Per sequence, the global indices of the tokens held here, in local order, pads included."""
        return [shard_tokens_of(n, self.degree, self.position) for n in self.tokens]

    @cached_property
    def shares(self) -> list[list[Unit]]:
        """Vision units of every member."""
        return deal_units(vision_units(self.media), self.degree)

    @property
    def own_vision(self) -> tuple[int, int]:
        """Patches of this member's units, and the pairs of patches within them."""
        own = [unit.patches for unit in self.shares[self.position]]
        return sum(own), sum(patches * patches for patches in own)

    @property
    def has_vision(self) -> bool:
        """Whether any sequence of the task has pictures or clips."""
        return any(len(v) for v in self.visual)

    @cached_property
    def _row_source(self) -> Indices:
        """Member that encodes each visual row of the task, rows in order of sequence, medium, unit."""
        member_of = {unit: member for member, share in enumerate(self.shares) for unit in share}
        units = vision_units(self.media)
        members = np.array([member_of[unit] for unit in units], np.int64)
        return np.repeat(members, [unit.rows for unit in units])

    @cached_property
    def _row_owner(self) -> Indices:
        """Member that holds the token of each visual row, same order."""
        owners = [np.zeros(0, np.int64)]
        for tokens, positions in zip(self.tokens, self.visual, strict=True):
            holder = np.empty(padded_tokens(tokens, self.degree), np.int64)
            for member in range(self.degree):
                holder[shard_tokens_of(tokens, self.degree, member)] = member
            owners.append(holder[positions])
        return np.concatenate(owners)

    @cached_property
    def send_order(self) -> Indices:
        """Order in which to send the rows encoded here: by owner, then as encoded."""
        return np.argsort(self._row_owner[self._row_source == self.position], kind="stable")

    @cached_property
    def send_counts(self) -> list[int]:
        """Rows encoded here for each member."""
        return np.bincount(self._row_owner[self._row_source == self.position], minlength=self.degree).tolist()

    @cached_property
    def receive_counts(self) -> list[int]:
        """Rows held here that each member encodes."""
        return np.bincount(self._row_source[self._row_owner == self.position], minlength=self.degree).tolist()

    @cached_property
    def receive_order(self) -> Indices:
        """Where the i-th local visual token finds its row among those received (by source, then as encoded).

        Sources encode their rows in the task's order, and local tokens are in that order too: a stable sort of the
        rows held here by their source is the order in which they arrive.
        """
        arrived = np.argsort(self._row_source[self._row_owner == self.position], kind="stable")
        order = np.empty_like(arrived)
        order[arrived] = np.arange(len(arrived))
        return order

    @cached_property
    def visual_slots(self) -> Indices:
        """Slots of this rank's packed shard that hold visual tokens, ascending."""
        slots, offset = [np.zeros(0, np.int64)], 0
        for local, positions in zip(self.local_tokens, self.visual, strict=True):
            slots.append(offset + np.flatnonzero(np.isin(local, positions)))
            offset += len(local)
        return np.concatenate(slots)
