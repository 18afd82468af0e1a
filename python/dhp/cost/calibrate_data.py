"""Tasks to measure as a user's data and plans have them: pictures that no group can split, clips of all sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from dhp._core import Batch, Cluster, CostModel, Plan, min_degree, try_plan
from dhp._core import Sequence as BatchSequence
from dhp.cost.calibrate_tasks import Design, Shape
from dhp.data.decoding.media import Medium
from dhp.data.indexing.index import Sample
from dhp.task.made import MadeMedium

PLANNERS = ("free", "static", "paper")
BATCHES = 12  # planned by each planner
LEFT_OUT_SHARE = 0.25  # of the samples
MOST_SAMPLES = 20_000  # that tasks are made of; each is read for it


def shape_of(sample: Sample) -> Shape:
    return Shape(sample.tokens, tuple(_made(medium) for medium in sample.media), max(1, sample.label_tokens))


def _made(medium: Medium) -> MadeMedium:
    """What counts of it, without its file."""
    return MadeMedium(**{field.name: getattr(medium, field.name) for field in dataclasses.fields(MadeMedium)})


def planned_designs(
    samples: Sequence[Sample],
    cost: CostModel,
    cluster: Cluster,
    counts: dict[str, int],
    batch_size: int,
    seed: int = 0,
) -> list[Design]:
    """Tasks of plans of random batches, `counts` of "fit" and of "left out", whose samples are others. All degrees that
    occur are taken equally often as far as there are tasks. The same every time. Of fewer than two samples that fit,
    there are none of one use or of both."""
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(samples))[:MOST_SAMPLES].tolist()
    shuffled = fitting([samples[i] for i in chosen], cost, cluster)
    cut = max(1, round(LEFT_OUT_SHARE * len(shuffled)))
    designs: list[Design] = []
    for use, pool in (("fit", shuffled[cut:]), ("left out", shuffled[:cut])):
        if not pool:
            continue
        tasks = _tasks(pool, cost, cluster, min(batch_size, len(pool)), generator, use)
        designs += _evenly(tasks, counts[use], generator)
    return designs


def fitting(samples: Sequence[Sample], cost: CostModel, cluster: Cluster) -> list[Sample]:
    """The samples that some group of the cluster holds."""
    return [s for s in samples if 1 <= min_degree(cost, cluster, _sequence(s)) <= cluster.ranks]


def _sequence(sample: Sample) -> BatchSequence:
    return sample.as_sequence()


def _tasks(
    pool: Sequence[Sample],
    cost: CostModel,
    cluster: Cluster,
    batch_size: int,
    generator: np.random.Generator,
    use: str,
) -> list[Design]:
    by_id = {sample.id: sample for sample in pool}
    found: dict[tuple[int, ...], Design] = {}
    for _ in range(BATCHES):
        chosen = generator.choice(len(pool), batch_size, replace=False).tolist()
        batch = Batch([_sequence(pool[i]) for i in chosen])
        for planner in PLANNERS:
            plan = try_plan(batch, cluster, cost, planner=planner)
            if not isinstance(plan, Plan):
                continue
            for task in plan.tasks:
                shapes = tuple(shape_of(by_id[i]) for i in task.sequences)
                key = (len(task.ranks), *sorted(task.sequences))
                found.setdefault(key, Design(shapes, len(task.ranks), use))
    return list(found.values())


def _evenly(tasks: list[Design], count: int, generator: np.random.Generator) -> list[Design]:
    """At most `count`, taking one of each degree in turn."""
    shuffled = [tasks[i] for i in generator.permutation(len(tasks))]
    by_degree: dict[int, list[Design]] = {}
    for task in shuffled:
        by_degree.setdefault(task.degree, []).append(task)
    chosen: list[Design] = []
    while len(chosen) < count and any(by_degree.values()):
        for degree in sorted(by_degree):
            if by_degree[degree] and len(chosen) < count:
                chosen.append(by_degree[degree].pop())
    return chosen
