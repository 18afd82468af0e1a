"""Whether a model trains on shards what it trains alone: made-up samples, Hugging Face's own forward one sample at a
time, and the same samples as tasks over the ranks of a plan, which are threads of this process."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dhp._core import Exchange, Task
from dhp.data.text import IGNORED, Encoded
from dhp.models import family_class, router_loss, whole_rope
from dhp.models.adapter import ModelAdapter
from dhp.models.compiled import Backend
from dhp.models.families import Family
from dhp.models.made_text import made_text, runs_of
from dhp.run.threads import run_threads
from dhp.task.input import TaskInput
from dhp.task.layout import TaskLayout, Unit
from dhp.task.made import MadeMedium

# Ranks, samples and exchange of each task: groups of one to four ranks in any order, tasks of one and two sequences.
TASKS: list[tuple[list[int], list[int], str]] = [
    ([3, 0, 2], [0, 4], "direct"),
    ([1], [1], "ring"),
    ([2, 1], [2], "ring"),
    ([0, 3, 1, 2], [3, 5], "ring"),
]
RANKS = 4
_names = itertools.count()


@dataclass
class Made:
    """A made-up sample: what DHP takes, and in `pixels` all units of each of its media."""

    encoded: Encoded
    media: list[MadeMedium]
    pixels: list[torch.Tensor]


@dataclass(frozen=True)
class Difference:
    """From the model alone. Of gradients, the L2 norm of the difference by that of the gradient, the worst of all
    parameters; a gradient that is small beside the largest counts as that small part of it."""

    loss: float
    gradient: float
    parameter: str
    parameters: int  # that have a gradient

    def within(self, tolerance: float) -> bool:
        return self.loss <= tolerance and self.gradient <= tolerance


def made_samples(family: Family, seed: int = 0) -> list[Made]:
    """Six: with several pictures, a clip where the family has them, one, and none."""
    generator = np.random.default_rng(seed)
    shapes = family.shapes_to_try() if family.has_vision else []
    small = shapes[0] if shapes else None
    clip = next((medium for medium in shapes if medium.kind == "video"), small)
    mixed = [clip, small] if family.mixes_kinds else [clip]
    several = [medium for medium in shapes if medium.kind == "image" or family.mixes_kinds]
    media: list[list[MadeMedium | None]] = [[small], [], mixed, [*several], [clip], [*shapes[-1:]]]
    texts = [20, 50, 9, 40, 12, 25]
    return [
        _made(family, family.in_one_sample([m for m in chosen if m]), text, generator)
        for chosen, text in zip(media, texts, strict=True)
    ]


def _made(family: Family, media: list[MadeMedium], text: int, generator: np.random.Generator) -> Made:
    """Text, then each medium with a little text behind it, then more text, of which the last third is learned."""
    runs = runs_of(media, family.units_apart)
    gaps = [4] + [3] * len(runs)
    gaps[-1] += text
    encoded = made_text(family, family.text_ids(), runs, gaps, max(3, text // 3), generator)
    return Made(encoded, media, [family.random_pixels(medium, generator) for medium in media])


def alone(model: Any, samples: Sequence[Made]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the model's own forward, one sample at a time."""
    family, valid = family_class(model)(model), _valid(samples)
    total = 0.0
    for sample in samples:
        given = family.alone(sample.encoded, sample.media, sample.pixels)
        given |= {"labels": torch.from_numpy(sample.encoded.labels)[None], "use_cache": False}
        whole_rope.forget(family.text)
        out = model(**given, num_items_in_batch=valid)
        loss = out.loss
        if getattr(out, "aux_loss", None) is not None and (router := router_loss.of(model, family.text)):
            share = int((sample.encoded.labels[1:] != IGNORED).sum()) / valid
            loss = loss - (1.0 - share) * router.coefficient * out.aux_loss
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
    return total, _gradients(model)


def on_shards(
    model: Any,
    samples: Sequence[Made],
    tasks: Sequence[tuple[list[int], list[int], str]],
    family: type[Family] | None = None,
    compile_by: Backend | None = None,
) -> tuple[float, dict[str, torch.Tensor]]:
    """The same, summed over the ranks of `tasks`, each with a copy of the model. `family` of a model that has none;
    `compile_by`: layers go through torch.compile."""
    family = family or family_class(model)
    ranks = 1 + max(rank for members, _, _ in tasks for rank in members)
    name, valid = f"trial{next(_names)}", _valid(samples)

    def on_rank(rank: int, group: str) -> Any:
        return _rank(copy.deepcopy(model), family, samples, tasks, rank, group, valid, compile_by)

    results = run_threads(on_rank, ranks, name)
    errors = [result for result in results if isinstance(result, Exception)]
    if errors:
        raise next((error for error in errors if not isinstance(error, RuntimeError)), errors[0])
    total: dict[str, torch.Tensor] = {}
    for _, gradients in results:
        for parameter, gradient in gradients.items():
            total[parameter] = total[parameter] + gradient if parameter in total else gradient
    return sum(loss for loss, _ in results), total


def _rank(
    model: Any, family: Any, samples: Any, tasks: Any, rank: int, traffic: str, valid: int, compile_by: Any = None
) -> Any:
    run: Any = SimpleNamespace(traffic=traffic, group_of=lambda task: list(task.ranks))
    adapter, total = ModelAdapter(family(model), run, compile_by=compile_by), 0.0
    for number, (members, chosen, exchange) in enumerate(tasks):
        if rank in members:
            task = Task(id=number, ranks=members, sequences=chosen, exchange=getattr(Exchange, exchange))
            loss = adapter.loss(_input(adapter.family, [samples[i] for i in chosen], task, rank), task, valid)
            if loss.requires_grad:
                loss.backward()
            total += loss.item()
    return total, _gradients(model)


def _input(family: Family, samples: list[Made], task: Task, rank: int) -> TaskInput:
    encoded, media = [sample.encoded for sample in samples], [sample.media for sample in samples]
    layout = TaskLayout.of(len(task.ranks), list(task.ranks).index(rank), encoded, media)
    own = []
    for unit in layout.shares[layout.position]:
        own.append(unit_pixels(family, samples[unit.sequence], unit))
    pixels = torch.cat(own) if own else torch.empty(0)
    return TaskInput(layout, encoded, list(media), pixels)


def difference(alone: tuple[float, Any], ours: tuple[float, Any], floor: float) -> Difference:
    """`floor`: of the largest gradient; a smaller one counts as so large, since a gradient that is zero in exact
    arithmetic (of a key's bias) is rounding noise on both sides."""
    (loss, expected), (own_loss, gradients) = alone, ours
    least = floor * max((gradient.norm().item() for gradient in expected.values()), default=0.0)
    worst, name = 0.0, ""
    for parameter, gradient in expected.items():
        found = gradients.get(parameter, torch.zeros_like(gradient))
        error = (found - gradient).norm().item() / max(gradient.norm().item(), least)
        if not error <= worst:  # NaN too
            worst, name = error, parameter
    odd = gradients.keys() - expected.keys()
    if any(gradients[parameter].any() for parameter in odd):
        worst, name = float("inf"), sorted(odd)[0]
    return Difference(abs(own_loss - loss) / abs(loss), worst, name, len(expected))


def units_differ(family: Family, samples: Sequence[Made]) -> float:
    """How far the rows of units that are encoded one by one are from those of one call, by the largest row: what
    dealing them to ranks rests on."""
    worst = 0.0
    for sample in samples:
        task = Task(id=0, ranks=[0], sequences=[0], exchange=Exchange.ring)
        whole = _input(family, [sample], task, 0)
        units = whole.layout.shares[0]
        if not units:
            continue
        sizes = [len(unit_pixels(family, sample, unit)) for unit in units]
        with torch.no_grad():
            together = family.encode(units, whole.media, whole.pixels, _stay)
            apart = [
                family.encode([unit], whole.media, pixels, _stay)
                for unit, pixels in zip(units, whole.pixels.split(sizes), strict=True)
            ]
        worst = max(worst, ((torch.cat(apart) - together).abs().max() / together.abs().max()).item())
    return worst


def unit_pixels(family: Family, sample: Made, unit: Unit) -> torch.Tensor:
    """Of all units but the last there are equally many."""
    pixels, medium = sample.pixels[unit.medium], sample.media[unit.medium]
    each = family.pixels_of_unit(medium) or len(pixels) // medium.units
    return pixels[unit.part * each : (unit.part + 1) * each]


def _stay(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return list(tensors)


def _valid(samples: Sequence[Made]) -> int:
    return sum(int((sample.encoded.labels[1:] != IGNORED).sum()) for sample in samples)


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found
