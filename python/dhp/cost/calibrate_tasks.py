"""Tasks to measure: shapes of sequences, made-up inputs of these shapes, and one rank's run of a task on a clock."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dhp._core import Exchange, InputError, Task
from dhp._core import Sequence as BatchSequence
from dhp.data.text import Encoded
from dhp.models import Adapter, family_class
from dhp.models.families import Family
from dhp.models.made_text import made_text, marks_of, runs_of
from dhp.task.input import TaskInput
from dhp.task.layout import Indices, MediumUnits, TaskLayout, Unit, deal_units, vision_units
from dhp.task.made import MadeMedium

MODULES = ("vision", "projector", "layers", "head")  # projector: embedding, mergers, exchange and scatter of rows
PASSES = ("forward", "backward")
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class UnitRule:
    """What the units of a family's media become.

    merge        patches along a side that become one token, where units may be of any size
    tile_tokens  of a unit, where all are of one size, `tile`; else 0
    has_clips    whether a medium of several units is a clip; of one size, clips alone are made
    one_each     whether no medium has several units: there are as many media
    more_last    tokens of the last unit beyond those of the others
    """

    merge: int = 2
    tile_tokens: int = 0
    has_clips: bool = True
    tile: tuple[int, int] = (0, 0)
    one_each: bool = False
    more_last: int = 0

    def tokens(self, rows: int, columns: int) -> int:
        return self.tile_tokens or rows * columns // self.merge**2

    def medium(self, medium: Grid | MadeMedium) -> MadeMedium:
        """Of a grid; what is a medium already stays as it is."""
        if isinstance(medium, MadeMedium):
            return medium
        rows = self.tokens(*medium[1:])
        is_clip = self.has_clips and (medium[0] > 1 or self.tile_tokens > 0)
        last_rows = rows + self.more_last if self.more_last else None
        return MadeMedium("video" if is_clip else "image", medium, rows, last_rows=last_rows)


def rule_of(family: Family) -> UnitRule:
    """By the pictures and clips that the family is tried with: units of any size where a token is always a square of
    patches, else those of its longest medium. Of a model of text alone it says nothing. Raises InputError for media
    whose units are too different."""
    every = family.shapes_to_try() if family.has_vision else []
    shapes = [medium for medium in every if medium.kind != "audio"]
    if not shapes:
        return UnitRule(has_clips=False)
    clips = any(medium.kind == "video" for medium in shapes)
    one_each = all(medium.units == 1 for medium in shapes)
    merge = math.isqrt(shapes[0].unit_patches // max(1, shapes[0].unit_rows))
    squares = all(m.unit_patches == m.unit_rows * merge**2 and m.last_rows is None for m in shapes)
    if squares and len({medium.grid[1:] for medium in shapes}) > 1:
        return UnitRule(merge, 0, clips, one_each=one_each)
    kind = "video" if clips else "image"
    longest = max((medium for medium in shapes if medium.kind == kind), key=lambda medium: medium.units)
    if longest.last_patches is not None:
        raise InputError(
            f"model: of {type(family).__name__}, the last unit of a {kind} has other patches than the rest, which "
            "cannot be made up to be measured; give dhp calibrate --data"
        )
    more = (longest.last_rows or longest.unit_rows) - longest.unit_rows
    return UnitRule(1, longest.unit_rows, clips, longest.grid[1:], one_each, more)


@dataclass(frozen=True)
class Shape:
    """A sequence as far as its cost goes."""

    tokens: int
    media: tuple[Grid | MadeMedium, ...]  # a grid: (units, rows, columns) in patches, of which a rule makes a medium
    labels: int  # tokens with a loss, at the end

    @property
    def patches(self) -> int:
        return sum(_patches(medium) for medium in self.media)

    @property
    def frame_patches(self) -> int:
        """Of the largest unit."""
        return max((_grid(medium)[1] * _grid(medium)[2] for medium in self.media), default=0)


def _grid(medium: Grid | MadeMedium) -> Grid:
    return medium.grid if isinstance(medium, MadeMedium) else medium


def _patches(medium: Grid | MadeMedium) -> int:
    return medium.unit_sizes.all_patches if isinstance(medium, MadeMedium) else math.prod(medium)


@dataclass(frozen=True)
class Design:
    """A task to measure: packed sequences on `degree` ranks.

    use  "fit", "left out": of the fit, to see how far off that is, or "text": left out too, and without vision
    """

    shapes: tuple[Shape, ...]
    degree: int
    use: str = "fit"

    @property
    def sequences(self) -> list[BatchSequence]:
        return [
            BatchSequence(i, shape.tokens, shape.patches, shape.frame_patches) for i, shape in enumerate(self.shapes)
        ]


@dataclass(frozen=True)
class Range:
    """What is measured. Lengths are those of whole tasks; the lengths left out lie between those of the fit."""

    min_tokens: int
    max_tokens: int
    degrees: tuple[int, ...]
    left_out_degrees: tuple[int, ...]
    packings: tuple[int, ...] = (1, 1, 2, 4)
    left_out_packings: tuple[int, ...] = (1, 1, 3, 5)  # single sequences are of other lengths
    unit: tuple[int, int] = (16, 16)  # rows and columns of a frame pair or tile, in patches; where they may be of any
    # size, shorter clips have smaller ones
    vision_shares: tuple[float, ...] = (0.4, 0.7, 0.9)  # of a sequence's tokens
    label_share: float = 1.0
    rule: UnitRule = UnitRule()


LEAST_SHARD_TOKENS = 16


def make_designs(what: Range, counts: dict[str, int], seed: int = 0) -> list[Design]:
    """Tasks spread evenly over the logarithm of length, over degrees, packings, and shares of vision; so many of each
    use. The same every time."""
    generator = np.random.default_rng(seed)
    designs: list[Design] = []
    for use, count in counts.items():
        degrees = what.left_out_degrees if use == "left out" else what.degrees
        packings = what.left_out_packings if use == "left out" else what.packings
        for i in range(count):
            degree = degrees[i % len(degrees)]
            packing = packings[(i // len(degrees)) % len(packings)]
            place = (i + generator.uniform(0.0, 1.0)) / count  # every part of the range has its samples
            tokens = math.exp(math.log(what.min_tokens) + place * math.log(what.max_tokens / what.min_tokens))
            least = LEAST_SHARD_TOKENS * degree
            shares = generator.dirichlet([4.0] * packing)
            vision = 0.0 if use == "text" else float(generator.choice(what.vision_shares))
            lengths = [max(least, round(max(least * packing, tokens) * share)) for share in shares]
            designs.append(Design(tuple(make_shape(n, vision, degree, what) for n in lengths), degree, use))
    return designs


def make_shape(tokens: int, vision: float, degree: int, what: Range) -> Shape:
    """About `vision` of the tokens are a clip's, whose frames can be dealt evenly to the ranks; fewer where frames are
    so small that the token of text between any two of them takes more than the rest. None where the frames are of one
    size, and too large. The sides of `what.unit` are multiples of what a token merges."""
    visual, merge = int(vision * tokens), what.rule.merge
    rows, columns = what.unit
    if visual < degree * what.rule.tokens(rows, columns) and not what.rule.tile_tokens:
        rows = columns = max(merge, int(math.sqrt(visual * merge**2 / degree)) // merge * merge)
    frame_tokens = what.rule.tokens(rows, columns)
    with_text = (tokens - 1) // (frame_tokens + 1)  # frames that leave a token of text around each
    units = min(visual // frame_tokens, with_text) // degree * degree
    several = [(1, rows, columns)] * units if what.rule.one_each else [(units, rows, columns)] * (units > 0)
    return Shape(tokens, tuple(several), max(1, round(what.label_share * tokens)))


def encode(
    shape: Shape, family: Family, vocabulary: Indices, rule: UnitRule, generator: np.random.Generator
) -> Encoded:
    """Random text, as much of it everywhere. Every frame stands alone in it, as timestamps and markers put it, unless
    the family has all of a clip together, or there is not as much text."""
    media = [rule.medium(medium) for medium in shape.media]
    for apart in (family.units_apart, False):
        runs = runs_of(media, apart)
        marks = marks_of(family, runs)
        text = shape.tokens - sum(rows for _, rows in runs) - marks
        if text >= 0 and text + marks > len(runs):
            break
    else:
        raise ValueError(f"{shape}: no room for text around {len(runs)} frames")
    gaps = np.diff(np.linspace(0, text, len(runs) + 2).astype(int)).tolist()
    return made_text(family, vocabulary, runs, gaps, shape.labels, generator)


def make_input(design: Design, position: int, model: Any, rule: UnitRule | None = None, seed: int = 0) -> TaskInput:
    """The share of the rank at `position`. `rule`: that of the model, where it is known: to find it takes a while."""
    family = family_class(model)(model)
    rule, vocabulary = rule or rule_of(family), family.text_ids()
    generator = np.random.default_rng(seed)
    encoded = [encode(shape, family, vocabulary, rule, generator) for shape in design.shapes]
    media = [[rule.medium(medium) for medium in shape.media] for shape in design.shapes]
    layout = TaskLayout.of(design.degree, position, encoded, media)
    pixels = [torch.empty(0)]
    for (sequence, medium), units in itertools.groupby(
        layout.shares[position], lambda unit: (unit.sequence, unit.medium)
    ):
        pixels.append(_pixels(family, media[sequence][medium], list(units), generator).float())
    return TaskInput(layout, encoded, list(media), torch.cat(pixels[1:] or pixels))


def _pixels(family: Family, medium: MadeMedium, units: list[Unit], generator: np.random.Generator) -> torch.Tensor:
    """Of these units of a medium."""
    if each := family.pixels_of_unit(medium):  # the last has other ones
        whole = family.random_pixels(medium, generator)
        return torch.cat([whole[unit.part * each : (unit.part + 1) * each] for unit in units])
    return family.random_pixels(replace(medium, grid=(len(units), *medium.grid[1:])), generator)


def units_of(shape: Shape, rule: UnitRule) -> tuple[MediumUnits, ...]:
    """Of each of its media."""
    return tuple(rule.medium(medium).unit_sizes for medium in shape.media)


def busiest_position(design: Design) -> int:
    """The position whose share of a task's frames is largest: the task waits for it."""
    media = [units_of(shape, UnitRule()) for shape in design.shapes]  # tokens do not count
    shares = deal_units(vision_units(media), design.degree)
    patches = [sum(unit.patches for unit in share) for share in shares]
    return patches.index(max(patches))


def make_task(design: Design, exchange: Exchange = Exchange.ring) -> Task:
    return Task(
        id=0,
        ranks=list(range(design.degree)),
        sequences=[sequence.id for sequence in design.sequences],
        exchange=exchange,
    )


def _modules_of(family: Family) -> list[tuple[torch.nn.Module, bool | None]]:
    """What a family's encoder calls: its outermost modules (None), and what maps vision to text, inside of these or
    not."""
    if not family.has_vision:
        return []
    found: list[tuple[torch.nn.Module, bool | None]] = []

    def look(module: torch.nn.Module, name: str, inside: bool) -> None:
        for key, child in module.named_children():
            full = f"{name}{key}."
            if child is family.text:
                continue
            is_called = not isinstance(child, torch.nn.ModuleList)
            if family.aligner.search(full) and is_called:
                found.append((child, inside))
            elif family.vit.search(full) and not inside and is_called:
                found.append((child, None))
                look(child, full, True)
            else:
                look(child, full, inside)

    look(family.base, ".", False)
    return found


class ModuleClock:
    """Times the modules of a model while it runs a task, both passes, from marks where one module ends and the next
    begins: what is measured is the run itself, and the parts add up to it.

    On the CPU the clock is CPU time of this thread, which waiting and other processes leave alone; on a device, events
    of the current stream, without what it waits for other ranks.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter: Any = adapter  # with its run, whose stalls are no work of modules
        model: Any = adapter.model
        self._device = next(model.parameters()).device
        self._marks: list[tuple[str, Any]] = []
        self._handles: list[Any] = []
        family = family_class(model)(model)
        for module, inside_vision in _modules_of(family):
            if inside_vision is None:
                self._switch(module, "vision", "projector")
            else:
                after = "vision" if inside_vision else "projector"
                self._switch(module, "projector", after, backward=("projector", "vision"))
        self._switch(family.text, "layers", "head", backward=("layers", "projector"))
        self._switch(model.get_input_embeddings(), "projector", "projector", backward=("projector", None))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _switch(
        self, module: Any, inside: str, after: str, backward: tuple[str | None, str | None] = (None, None)
    ) -> None:
        """Marks where a module begins and ends; `backward`: what runs when its backward begins, and after it."""
        begins, ends = backward

        def before(_: Any, args: Any, kwargs: Any) -> None:
            self._mark(inside)
            self._mark_gradient(kwargs.get("inputs_embeds", args[0] if args else None), ends)

        def behind(_: Any, __: Any, ___: Any, output: Any) -> None:
            self._mark_gradient(getattr(output, "last_hidden_state", output), begins)
            self._mark(after)

        self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        self._handles.append(module.register_forward_hook(behind, with_kwargs=True))

    def _mark_gradient(self, tensor: Any, name: str | None) -> None:
        """The hook of a tensor runs just before the backward of what made it."""
        if name and isinstance(tensor, torch.Tensor) and tensor.requires_grad:
            tensor.register_hook(lambda _: self._mark(name))

    def _mark(self, name: str) -> None:
        self._marks.append((name, self._now()))

    def _now(self) -> Any:
        if self._device.type == "cpu":
            return time.thread_time()
        torch.ops.dhp.measure_stalls(self._adapter.run.traffic, True)  # from one mark to the next
        event = torch.Event(self._device.type, enable_timing=True)
        event.record()
        return event

    def run(self, loss: Callable[[], torch.Tensor]) -> dict[tuple[str, str], float]:
        """Seconds by (module, pass) of a task whose loss `loss()` computes."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        self._marks = []
        self._mark("projector")
        value = loss()
        split = len(self._marks)
        self._mark("head")
        if value.requires_grad:
            value.backward()
        self._mark("end")
        seconds = dict.fromkeys([(m, p) for m in MODULES for p in PASSES], 0.0)
        for i, ((name, _), lasted) in enumerate(zip(self._marks, self._lasted(), strict=False)):
            seconds[name, PASSES[0] if i < split else PASSES[1]] += lasted
        return seconds

    def _lasted(self) -> list[float]:
        """Seconds from each mark to the next."""
        pairs = list(itertools.pairwise(at for _, at in self._marks))
        if self._device.type == "cpu":
            return [end - begin for begin, end in pairs]
        torch.accelerator.synchronize()
        stalls = torch.ops.dhp.stalled_s(self._adapter.run.traffic)
        return [
            max(0.0, begin.elapsed_time(end) / 1e3 - stalled)
            for (begin, end), stalled in zip(pairs, stalls, strict=False)  # none begins at the end
        ]
