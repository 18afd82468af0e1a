"""The numbers of `dhp index --stats`, from the columns of an index; records are read for a part of the samples."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    ErrorSizes,
    Infeasible,
    infeasible_sequences,
    parse_error_sizes,
    simulate,
    try_plan,
)
from dhp.data.access.pieces import shown
from dhp.data.access.urls import folder_of
from dhp.data.draws import Draws
from dhp.data.indexing import shapes
from dhp.data.indexing.index import Index
from dhp.data.indexing.records import portable
from dhp.data.sources import Source
from dhp.stats.spread import Spread, spread_of

_KINDS = {"image": "pictures", "video": "clips", "audio": "sounds"}
MOST_RECORDS = 20_000  # read to tell tokens of pictures from those of clips; evenly over all samples
LONGEST = 5  # samples that are named
_USUAL_ERRORS = "0.02,0.02,0.01"  # of estimates, where a cost file says nothing; as of `dhp compare`
_REPEATS = 20  # of a planned step, with errors


@dataclass(frozen=True)
class Share:
    """Of text, pictures or clips, from 0 to 1. samples: that hold some of the kind (of text: nothing else); tokens: of
    all."""

    name: str
    samples: float
    tokens: float


@dataclass(frozen=True)
class Long:
    """A sample that is among the longest. name: file and line; media: the first of its pictures and clips, relative to
    the data where they lie below it."""

    name: str
    tokens: int
    patches: int
    media: list[str]


@dataclass(frozen=True)
class Batches:
    """What batches as training draws them look like. longest_over_mean: tokens of the longest sample of a batch over
    its mean sample; top_share: of a batch's tokens in its `top` longest samples, which are a tenth of them. Means
    over batches."""

    size: int
    count: int
    tokens: Spread
    longest: Spread
    longest_over_mean: float
    top: int
    top_share: float
    tokens_each: list[int]
    longest_each: list[int]


@dataclass(frozen=True)
class Steps:
    """What these batches take on a cluster, in simulated seconds, with errors of estimates; gradients and optimizer
    count. without_plan: reasons, and how many batches; left_out: samples that no plan holds."""

    cluster: str
    cost: str
    planner: str
    ranks: int
    planned: int
    seconds: list[float]  # of each batch
    step_s: float
    steps_per_s: float
    tokens_per_s: float
    idle_share: float
    epoch_steps: int
    epoch_s: float
    without_plan: dict[str, int] = field(default_factory=dict)
    left_out: int = 0


@dataclass(frozen=True)
class Stats:
    data: list[str]
    samples: int
    tokens: int
    patches: int
    label_tokens: int
    lengths: Spread
    shares: list[Share]
    records: int  # that shares of tokens are of; fewer than samples: an estimate
    longest: list[Long]
    batches: Batches | None = None  # None: fewer samples than a batch has
    steps: Steps | None = None


@dataclass(frozen=True)
class Asked:
    """batch_size, batches, seed: of the batches that are drawn. cluster and cost: none, and there are no steps."""

    batch_size: int = 64
    batches: int = 20
    seed: int = 0
    planner: str = "free"
    cluster: Cluster | None = None
    cost: CostModel | None = None
    cluster_name: str = ""
    cost_name: str = ""


def stats_of(indexes: Sequence[Index], asked: Asked) -> Stats:
    """Of all samples of some indexes together. Raises InputError."""
    tokens = _column(indexes, "tokens")
    draws = Draws(tuple(Source(str(index.data)) for index in indexes), indexes)
    steps, left_out = None, 0
    if asked.cluster and asked.cost:
        left_out = _leave_out_too_long(draws, asked)
    drawn = _drawn(draws, asked)
    if asked.cluster and asked.cost:
        steps = _steps(drawn, draws, asked, left_out)
    shares, records = _shares(indexes)
    return Stats(
        data=[shown(str(index.data)) for index in indexes],
        samples=len(tokens),
        tokens=int(tokens.sum()),
        patches=int(_column(indexes, "patches").sum()),
        label_tokens=int(_column(indexes, "label_tokens").sum()),
        lengths=spread_of(tokens),
        shares=shares,
        records=records,
        longest=_longest(indexes),
        batches=_batches(drawn, asked) if drawn else None,
        steps=steps,
    )


def _column(indexes: Sequence[Index], name: str) -> Any:
    return np.concatenate([index.samples.column(name).astype(np.int64) for index in indexes])


# ---- kinds ----------------------------------------------------------------------------------------------------------


def _shares(indexes: Sequence[Index]) -> tuple[list[Share], int]:
    """Text, pictures, clips and sounds, and how many samples their tokens were counted in."""
    has = {"pictures": _column(indexes, "pictures") > 0, "clips": _column(indexes, "clips") > 0}
    every = len(has["pictures"])
    tokens: collections.Counter[str] = collections.Counter()
    with_sound = without_media = total = records = 0
    for index in indexes:
        count = len(index.samples)
        some = max(1, min(count, round(MOST_RECORDS * count / every)))
        for at in np.linspace(0, count - 1, some).round().astype(int).tolist():
            sample = index.samples[at]
            total, records = total + sample.tokens, records + 1
            without_media += not sample.media
            with_sound += any(medium.kind == "audio" for medium in sample.media)
            for medium in sample.media:
                tokens[_KINDS[medium.kind]] += medium.unit_sizes.all_rows
    samples = {kind: float(of.mean()) for kind, of in has.items()}
    alone = float((~has["pictures"] & ~has["clips"]).mean())
    if with_sound:  # no column tells of them
        samples["sounds"], alone = with_sound / records, without_media / records
    text = Share("text", alone, (total - tokens.total()) / total)
    return [text, *(Share(kind, share, tokens[kind] / total) for kind, share in samples.items())], records


def _longest(indexes: Sequence[Index]) -> list[Long]:
    found = []
    for index in indexes:
        tokens = index.samples.tokens
        most = np.argpartition(-tokens.astype(np.int64), min(LONGEST, len(tokens)) - 1)[:LONGEST]
        found += [(int(tokens[at]), -int(at), index) for at in most]
    longest = []
    for count, at, index in sorted(found, key=lambda one: (-one[0], -one[1]))[:LONGEST]:
        sample = index.samples[-at]
        media = [medium.source if isinstance(medium.source, str) else medium.source[0] for medium in sample.media]
        name, folder = f"{shown(str(index.data))}:{sample.id}", folder_of(index.data)
        names = [shown(portable(source, folder)) for source in media[:3]]
        longest.append(Long(name, count, sample.patches, names))
    return longest


# ---- batches --------------------------------------------------------------------------------------------------------


def _leave_out_too_long(draws: Draws, asked: Asked) -> int:
    """Takes out what no plan holds, as training may; how many samples that are. Raises InputError."""
    cluster, cost = asked.cluster, asked.cost
    assert cluster is not None and cost is not None
    left_out = 0
    for at, part in enumerate(draws.parts):
        found = shapes.too_long(
            part.samples, lambda some: infeasible_sequences(some, cluster, cost, planner=asked.planner)
        )
        if found and not found.whatever:
            draws.leave_out(at, found.ids.tolist())
            left_out += len(found.ids)
    return left_out


def _drawn(draws: Draws, asked: Asked) -> list[Batch]:
    """Batches of the first epoch, evenly over it."""
    steps = draws.steps_per_epoch(asked.batch_size)
    if not steps:
        return []
    at = sorted(set(np.linspace(0, steps - 1, min(steps, asked.batches)).round().astype(int).tolist()))
    return [draws.batch(step, asked.batch_size, asked.seed) for step in at]


def _batches(drawn: list[Batch], asked: Asked) -> Batches:
    lengths = np.sort(np.array([[s.tokens for s in batch.sequences] for batch in drawn], np.int64), axis=1)
    top = max(1, asked.batch_size // 10)
    totals = lengths.sum(axis=1)
    return Batches(
        size=asked.batch_size,
        count=len(drawn),
        tokens=spread_of(totals),
        longest=spread_of(lengths[:, -1]),
        longest_over_mean=float((lengths[:, -1] / lengths.mean(axis=1)).mean()),
        top=top,
        top_share=float((lengths[:, -top:].sum(axis=1) / totals).mean()),
        tokens_each=totals.tolist(),
        longest_each=lengths[:, -1].tolist(),
    )


def _steps(drawn: list[Batch], draws: Draws, asked: Asked, left_out: int) -> Steps:
    cluster, cost = asked.cluster, asked.cost
    assert cluster is not None and cost is not None
    errors: ErrorSizes = cost.expected_error or parse_error_sizes(_USUAL_ERRORS, "errors")
    seconds, tokens, idle_s = [], 0, 0.0
    reasons: collections.Counter[str] = collections.Counter()
    for batch in drawn:
        plan = try_plan(batch, cluster, cost, planner=asked.planner)
        if isinstance(plan, Infeasible):
            reasons[plan.reason] += 1
            continue
        runs = simulate(plan, batch, cluster, cost, steps=_REPEATS, noise=errors, seed=7).steps
        seconds.append(sum(run.seconds for run in runs) / len(runs))
        idle_s += sum(run.idle.total_s for run in runs) / len(runs)
        tokens += sum(sequence.tokens for sequence in batch.sequences)
    step_s = sum(seconds) / len(seconds) if seconds else 0.0
    epoch_steps = draws.steps_per_epoch(asked.batch_size)
    return Steps(
        cluster=asked.cluster_name,
        cost=asked.cost_name,
        planner=asked.planner,
        ranks=cluster.ranks,
        planned=len(seconds),
        seconds=seconds,
        step_s=step_s,
        steps_per_s=1 / step_s if step_s else 0.0,
        tokens_per_s=tokens / sum(seconds) if seconds else 0.0,
        idle_share=idle_s / (cluster.ranks * sum(seconds)) if seconds else 0.0,
        epoch_steps=epoch_steps,
        epoch_s=epoch_steps * step_s,
        without_plan=dict(reasons),
        left_out=left_out,
    )


__all__ = ["Asked", "Stats", "stats_of"]
