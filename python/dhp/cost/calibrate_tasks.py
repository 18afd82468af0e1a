"""Tasks to measure: shapes of sequences, made-up inputs of these shapes, and one rank's run of a task on a clock."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dhp._core import Exchange, Task
from dhp._core import Sequence as BatchSequence
from dhp.data.placeholders import MediumShape
from dhp.data.text import IGNORED, IMAGE, TEXT, VIDEO, Encoded
from dhp.models import Adapter, family_class
from dhp.task.input import TaskInput
from dhp.task.layout import MediumUnits, TaskLayout, deal_units, vision_units
from dhp.task.made import MadeMedium

MODULES = ("vision", "projector", "layers", "head")  # projector: embedding, mergers, exchange and scatter of rows
PASSES = ("forward", "backward")
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """A sequence as far as its cost goes."""

    tokens: int
    media: tuple[Grid, ...]  # (units, rows, columns) in patches; one unit: a picture
    labels: int  # tokens with a loss, at the end

    @property
    def patches(self) -> int:
        return sum(t * h * w for t, h, w in self.media)

    @property
    def frame_patches(self) -> int:
        return max((h * w for _, h, w in self.media), default=0)


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
    unit: tuple[int, int] = (16, 16)  # rows and columns of a frame pair, in patches; shorter clips have smaller ones
    vision_shares: tuple[float, ...] = (0.4, 0.7, 0.9)  # of a sequence's tokens
    label_share: float = 1.0
    merge: int = 2


LEAST_SHARD_TOKENS = 16
MADE_PATCHES = 4096  # different ones in a task: they cost more to make up than to encode


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
    so small that the token of text between any two of them takes more than the rest. The sides of `what.unit` are
    multiples of `what.merge`."""
    patches = int(vision * tokens) * what.merge**2
    rows, columns = what.unit
    if patches and patches < degree * rows * columns:
        rows = columns = max(what.merge, int(math.sqrt(patches / degree)) // what.merge * what.merge)
    frame_tokens = rows * columns // what.merge**2
    with_text = (tokens - 1) // (frame_tokens + 1)  # frames that leave a token of text around each
    units = min(patches // (rows * columns), with_text) // degree * degree
    return Shape(tokens, ((units, rows, columns),) if units else (), max(1, round(what.label_share * tokens)))


def encode(
    shape: Shape, vocabulary: int, merge: int, generator: np.random.Generator, units_apart: bool = True
) -> Encoded:
    """Random tokens; every frame stands alone between text, as timestamps and markers put it, unless the family has all
    of a clip together."""
    places = [(VIDEO if t > 1 else IMAGE, t, h * w // merge**2) for t, h, w in shape.media]
    if units_apart:
        places = [(kind, 1, rows) for kind, units, rows in places for _ in range(units)]
    runs = [units * rows for _, units, rows in places]
    text = shape.tokens - sum(runs)
    if text < len(runs) + 1:
        raise ValueError(f"{shape}: no room for text between {len(runs)} frames")
    media_type = np.full(shape.tokens, TEXT, np.int8)
    gaps = np.diff(np.linspace(0, text, len(runs) + 2).astype(int))
    at = 0
    for gap, run, (kind, *_) in zip(gaps, runs, places, strict=False):
        at += int(gap)
        media_type[at : at + run] = kind
        at += run
    ids = generator.integers(0, vocabulary, shape.tokens)
    labels = ids.copy()
    labels[: shape.tokens - shape.labels] = IGNORED
    return Encoded(ids, labels, media_type)


def make_input(design: Design, position: int, model: Any, seed: int = 0) -> TaskInput:
    """The share of the rank at `position`."""
    vision = model.config.vision_config
    merge = vision.spatial_merge_size
    generator = np.random.default_rng(seed)
    vocabulary = model.config.text_config.vocab_size
    apart = family_class(model)(model).units_apart
    encoded = [encode(shape, vocabulary, merge, generator, apart) for shape in design.shapes]
    layout = TaskLayout(
        degree=design.degree,
        position=position,
        tokens=tuple(shape.tokens for shape in design.shapes),
        visual=tuple(np.flatnonzero(e.media_type) for e in encoded),
        media=tuple(units_of(shape, merge) for shape in design.shapes),
    )
    patches = sum(unit.patches for unit in layout.shares[position])
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    few = generator.standard_normal((min(patches, MADE_PATCHES), width), dtype=np.float32)
    pixels = torch.from_numpy(np.resize(few, (patches, width)))
    media: list[Sequence[MediumShape]] = [
        [MadeMedium("video" if t > 1 else "image", (t, h, w), h * w // merge**2) for t, h, w in shape.media]
        for shape in design.shapes
    ]
    return TaskInput(layout, encoded, media, pixels)


def units_of(shape: Shape, merge: int) -> tuple[MediumUnits, ...]:
    """Of each of its media."""
    return tuple(MediumUnits(t, h * w // merge**2, h * w) for t, h, w in shape.media)


def busiest_position(design: Design) -> int:
    """The position whose share of a task's frames is largest: the task waits for it."""
    media = [units_of(shape, merge=1) for shape in design.shapes]  # rows do not count
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
        inner = model.model
        visual, text = inner.visual, inner.language_model
        self._switch(visual, "vision", "projector")
        for merger in (visual.merger, *getattr(visual, "deepstack_merger_list", ())):
            self._switch(merger, "projector", "vision", backward=("projector", "vision"))
        self._switch(text, "layers", "head", backward=("layers", "projector"))
        self._switch(text.embed_tokens, "projector", "projector", backward=("projector", None))

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
