"""Runs tasks on the clock, and fits a cost model to what they took."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from dhp._core import CostModel, ErrorSizes, Exchange, PassCost
from dhp.cost.calibrate_tasks import (
    MODULES,
    PASSES,
    Design,
    ModuleClock,
    UnitRule,
    busiest_position,
    make_input,
    make_task,
    rule_of,
)
from dhp.cost.errors import Residual, error_sizes, rounded, spread_within, squared_shares
from dhp.cost.fit import (
    TERMS,
    EstimateError,
    NoFit,
    TermSeconds,
    TimeFit,
    TimeSample,
    estimate_error,
    estimates_s,
    fit_times,
    terms_of,
)
from dhp.cost.speeds import Array, MemberTimes, SpeedHistory, TimedTask, learn, speeds_of
from dhp.models import Adapter, family_class
from dhp.run.runtime import Run

PARTS = [(module, direction) for module in MODULES for direction in PASSES]
# What the seconds of a module depend on. Only attention knows of steps: they are the layers'.
MODULE_TERMS = {
    "vision": ["task_s", "patch_s"],
    "projector": ["task_s", "patch_s", "token_s"],
    "layers": ["task_s", "token_s", "pair_s", "step_s", "sequence_step_s"],
    "head": ["task_s", "token_s"],
}
# Beyond these errors on what was left out, a fit is marked as not good.
GOOD_MEAN, GOOD_P95 = 0.10, 0.25
MIRROR = "calibrate"


@dataclass(frozen=True)
class Measured:
    """A design and its median seconds by part, of the slowest member of its group."""

    design: Design
    seconds: dict[tuple[str, str], float]

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    def sample(self, parts: list[tuple[str, str]]) -> TimeSample:
        return TimeSample(self.design.sequences, self.design.degree, sum(self.seconds[part] for part in parts))


@dataclass(frozen=True)
class Measurements:
    """What was measured.

    tasks       seconds at nominal speed
    rank_speed  of the ranks, 1: the quickest; empty: all alike, or only one
    rank_error  how far runs of the same task on the same rank are apart, sd of the logarithm; None: too few runs
    """

    tasks: list[Measured]
    rank_speed: list[float]
    rank_error: float | None


@dataclass(frozen=True)
class PartFit:
    """The fit of one pass of one module."""

    module: str
    direction: str
    fit: TimeFit


@dataclass(frozen=True)
class Calibration:
    """A cost model, and how good it is."""

    cost: CostModel
    parts: list[PartFit]
    fitted: EstimateError  # whole tasks of the fit
    left_out: EstimateError  # whole tasks left out of it
    by_degree: dict[int, EstimateError]  # of those left out
    text: EstimateError  # tasks without vision, which the fit has not seen

    @property
    def good(self) -> bool:
        return self.left_out.mean <= GOOD_MEAN and self.left_out.p95 <= GOOD_P95


def measure(
    adapter: Adapter,
    designs: list[Design],
    repeats: int,
    run: Run,
    *,
    exchange: Exchange = Exchange.ring,
    forward: Callable[[Callable[[], torch.Tensor]], torch.Tensor] = lambda loss: loss(),
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Measurements:
    """Runs every design `repeats` times, in turns, so that what disturbs the machine for a while disturbs all alike;
    once more before, unmeasured. Collective.

    With several ranks, groups are real, as many at once as there is room for. With one, it runs the share of the
    busiest rank, and the shards of the others are zeros (`create_mirror_group`).
    """
    rule = rule_of(family_class(adapter.model)(adapter.model))
    clock = ModuleClock(adapter)
    table = np.full((len(designs), repeats, len(PARTS)), np.nan)
    inputs: dict[int, tuple[Any, Any]] = {}
    order = np.random.default_rng(0)
    for repeat in range(-1, repeats):
        for number in order.permutation(len(designs)).tolist():
            design = designs[number]
            group = run.rank // design.degree
            if run.world_size > 1 and (group + 1) * design.degree > run.world_size:
                continue
            if number not in inputs:
                inputs[number] = _share(adapter, design, rule, run, group, exchange)
            task_input, task = inputs[number]
            if run.world_size == 1:
                _use_mirror(adapter, design)
            seconds = clock.run(lambda: forward(lambda: adapter.loss(task_input, task, 1000)))  # noqa: B023 (run now)
            if repeat >= 0:
                table[number, repeat] = [seconds[part] for part in PARTS]
        progress(repeat + 2, repeats + 1)
    clock.close()
    return summarize(designs, _of_all_ranks(table, run))


def _share(
    adapter: Adapter, design: Design, rule: UnitRule, run: Run, group: int, exchange: Exchange
) -> tuple[Any, Any]:
    position = run.rank % design.degree if run.world_size > 1 else busiest_position(design)
    task = make_task(design, exchange)
    if run.world_size > 1:
        task.ranks = [group * design.degree + i for i in range(design.degree)]
    task_input = make_input(design, position, adapter.model, rule)
    if run.device.type != "cpu":
        adapter.prepare(task_input)  # as in training, where another thread does
    return task_input, task


def _use_mirror(adapter: Any, design: Design) -> None:
    name = f"{MIRROR}/{design.degree}/{busiest_position(design)}"
    torch.ops.dhp.create_mirror_group(
        name, design.degree, busiest_position(design), str(next(adapter.model.parameters()).device)
    )
    adapter.run = SimpleNamespace(traffic=name, group_of=lambda task: list(task.ranks))


def _of_all_ranks(table: Any, run: Run) -> Any:
    """[ranks, designs, repeats, parts]"""
    return np.stack(run.all(table)) if run.world_size > 1 else table[None]


def summarize(designs: list[Design], table: Array) -> Measurements:
    """Of seconds [ranks, designs, repeats, parts], NaN where a rank took no part. Speeds come first: what is fitted are
    seconds at nominal speed."""
    own_s = table.sum(axis=-1)
    speeds = _speeds(designs, own_s)
    tasks = _medians(designs, table * np.array(speeds)[:, None, None, None])
    which = np.arange(own_s.shape[0] * own_s.shape[1]).reshape(*own_s.shape[:2], 1) + np.zeros(own_s.shape, np.int64)
    timed = own_s > 0.0  # not NaN
    rank_error = spread_within(np.log(own_s[timed]), which[timed])
    return Measurements(tasks, speeds if min(speeds) < 1.0 else [], rank_error)


def _speeds(designs: list[Design], own_s: Array) -> list[float]:
    """By rank, from tasks of a single rank, which all ranks run alike: each rank's median of own_s [ranks, designs,
    repeats] against that of all ranks."""
    ranks = len(own_s)
    tasks, estimates = [], []
    for number, design in enumerate(designs):
        medians = np.median(own_s[:, number], axis=-1)
        if design.degree == 1 and (medians > 0.0).all():
            tasks += [TimedTask([], (rank,), MemberTimes((own,), (0,), (0,))) for rank, own in enumerate(medians)]
            estimates += [np.array([np.median(medians)])] * ranks
    return speeds_of(learn(SpeedHistory.empty(ranks), tasks, estimates), [1.0] * ranks)


def _medians(designs: list[Design], table: Any) -> list[Measured]:
    """A task lasts as long as its slowest member; of its runs, the median."""
    measured = []
    for number, design in enumerate(designs):
        runs = []
        for group in range(max(1, len(table) // design.degree)):
            members = table[group * design.degree : (group + 1) * design.degree, number]
            slowest = members.sum(axis=-1).argmax(axis=0)  # by repeat
            runs += [members[member, repeat] for repeat, member in enumerate(slowest.tolist())]
        medians = np.median(np.stack(runs), axis=0)
        measured.append(Measured(design, dict(zip(PARTS, medians.tolist(), strict=True))))
    return measured


def fit(measured: list[Measured], base: CostModel, name: str, rank_error: float | None = None) -> Calibration | NoFit:
    """Fits every pass of every module by itself; their sum is the cost model. Memory, heads, bytes that travel and the
    optimizer's time are those of `base`; `rank_error`: of Measurements. NoFit where the measurements do not determine a
    coefficient, or are none."""
    if missing := {m.design.degree for m in measured if not math.isfinite(m.total_s)}:
        listed = ", ".join(str(degree) for degree in sorted(missing))
        return NoFit(f"tasks of degree {listed} were not measured: take as many ranks, or a lower --max-degree")
    used = [m for m in measured if m.design.use == "fit"]
    parts: list[PartFit] = []
    for module, direction in PARTS:
        with_part = [m for m in used if m.seconds[module, direction] > 0.0]
        if module == "vision":
            with_part = [m for m in with_part if any(shape.media for shape in m.design.shapes)]
        if not with_part:
            continue  # frozen, or there is none
        answer = _fit_module(module, [m.sample([(module, direction)]) for m in with_part])
        if isinstance(answer, NoFit):
            return NoFit(f"{module}, {direction}: {answer.reason}")
        parts.append(PartFit(module, direction, answer))
    if not parts:
        return NoFit(f"{len(used)} tasks to fit to, and no module took any time on them: measure more, or longer ones")
    cost = _cost_of(parts, base, name)
    cost.expected_error = _expected_error(cost, measured, rank_error)
    left_out = [m for m in measured if m.design.use == "left out"]
    degrees = sorted({m.design.degree for m in left_out})
    return Calibration(
        cost,
        parts,
        _error(cost, used),
        _error(cost, left_out),
        {degree: _error(cost, [m for m in left_out if m.design.degree == degree]) for degree in degrees},
        _error(cost, [m for m in measured if m.design.use == "text"]),
    )


def _expected_error(cost: CostModel, measured: list[Measured], rank_error: float | None) -> ErrorSizes:
    """Medians of several runs have next to nothing of the errors of ranks: these come from runs of the same task."""
    terms, believed = terms_of(cost), ErrorSizes()
    timed = [m for m in measured if m.total_s > 0.0]
    estimates = estimates_s(terms, [m.sample(PARTS) for m in timed]).tolist()
    squares = squared_shares(terms, [m.design.sequences for m in timed])
    residuals = [
        Residual((math.log(m.total_s / estimate),), m.design.degree, square)
        for m, estimate, square in zip(timed, estimates, squares, strict=True)
        if estimate > 0.0
    ]
    found = error_sizes(residuals, believed, rank=0.0)
    return ErrorSizes(found.sequence, found.task, believed.rank if rank_error is None else rounded(rank_error))


def _fit_module(module: str, samples: list[TimeSample]) -> TimeFit | NoFit:
    """Vision with its attention apart where frames of several sizes tell the two apart; else it is in patch_s, which
    then holds for frames like these."""
    terms = MODULE_TERMS[module]
    if not any(sequence.patches for sample in samples for sequence in sample.sequences):  # of text alone
        terms = [term for term in terms if term != "patch_s"]
    if module == "vision":
        answer = fit_times(samples, [*terms, "patch_pair_s"])
        if isinstance(answer, TimeFit):
            return answer
    return fit_times(samples, terms)


def _cost_of(parts: list[PartFit], base: CostModel, name: str) -> CostModel:
    sums = {direction: TermSeconds() for direction in PASSES}
    for part in parts:
        for key in TERMS:
            setattr(sums[part.direction], key, getattr(sums[part.direction], key) + getattr(part.fit.seconds, key))
    passes = {}
    for direction, old in (("forward", base.forward), ("backward", base.backward)):
        s = sums[direction]
        passes[direction] = PassCost(
            s.token_s,
            s.pair_s,
            s.step_s,
            s.sequence_step_s,
            old.ring_bytes_per_token,
            old.all_to_all_bytes_per_token,
        )
    return CostModel(
        name,
        base.layers,
        sum(s.task_s for s in sums.values()),
        sum(s.patch_s for s in sums.values()),
        passes["forward"],
        passes["backward"],
        base.query_heads,
        base.kv_heads,
        base.token_bytes,
        base.patch_bytes,
        base.state_bytes,
        base.gradient_bytes,
        base.optimizer_s,
        patch_pair_s=sum(s.patch_pair_s for s in sums.values()),
    )


def _error(cost: CostModel, measured: list[Measured]) -> EstimateError:
    return estimate_error(terms_of(cost), [m.sample(PARTS) for m in measured])
