"""What a run plans and trains with: cluster, cost and data, from the files of its settings or counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    InputError,
    Recompute,
    infeasible_sequences,
    read_cluster,
    read_cost_model,
    try_plan,
)
from dhp.base.output import complain
from dhp.cost.local import local_cluster, local_cost, no_room, preset_at_hand
from dhp.data.dataset import Dataset
from dhp.data.indexing import shapes
from dhp.data.indexing.index import Index, default_path, load_or_build_index
from dhp.data.sources import Source, sources_of
from dhp.run.made_once import Progress, made_once
from dhp.run.runtime import Run
from dhp.settings.config import MOST_STEPS, TrainConfig

T = TypeVar("T")


def open_dataset(settings: TrainConfig, cluster: Cluster, cost: CostModel, run: Run | None) -> Dataset:
    """The data and its index, which one rank a disk makes where it is missing. Samples that no plan of this cluster and
    these options holds are named now, with what they need, not in the middle of the run. Without a run (the launcher,
    before there is one) nothing is said of what is left out. Raises InputError."""
    check_room(settings, cluster, cost)
    if run:
        with run.at("start, making or reading the index"):
            data = read_dataset(settings, run)
            check_alike(run, data)
    else:
        data = read_dataset(settings)
    for index in data.indexes if run and run.rank == 0 else ():
        if index.problem_counts:
            complain(f"dhp: {index.left_out()}")
        if index.ignored:
            complain(f"dhp: {index.data}: {index.ignored_keys()}")
    leave_out_too_long(data, settings, cluster, cost, run)
    every = sum(len(index.samples) for index in data.indexes)
    if not len(data):
        raise InputError(f"{settings.data_name}: no samples left: all {every:,} are left out as too long")
    if len(data) < settings.global_batch_size:
        left = f"; {every - len(data)} are left out" if every > len(data) else ""
        raise InputError(
            f"global_batch_size: found {settings.global_batch_size}, but the data has {len(data)} samples{left}"
        )
    return data


def leave_out_too_long(
    data: Dataset, settings: TrainConfig, cluster: Cluster, cost: CostModel, run: Run | None
) -> None:
    """Takes the samples out that no plan holds. Raises InputError where they are to end the run."""
    for at, part in enumerate(data.draws.parts):
        found = shapes.too_long(
            part.samples,
            lambda batch: infeasible_sequences(batch, cluster, cost, planner=settings.planner, **settings.plan),
        )
        if found is None:
            continue
        file = part.index.data
        if found.whatever:
            raise InputError(f"{file}: planner {settings.planner} can plan no sample: {found.whatever}")
        listed = "; ".join(f"sample {number}: {reason}" for number, reason in found.reasons.items())
        more = "; ..." if len(found.ids) > len(found.reasons) else ""
        problem = f"{file}: {len(found.ids)} samples do not fit on {cluster.ranks} ranks: {listed}{more}"
        if settings.on_too_long == "fail":
            raise InputError(f'{problem}; take more ranks or memory, or leave them out with on_too_long = "skip"')
        if run and run.rank == 0:
            complain(f"dhp: left out: {problem}")
        data.draws.leave_out(at, found.ids.tolist())


def with_steps(settings: TrainConfig, data: Dataset) -> TrainConfig:
    """With the steps that num_train_epochs asks for."""
    if not settings.num_train_epochs:
        return settings
    steps = data.draws.steps(settings.global_batch_size, settings.num_train_epochs)
    if steps > MOST_STEPS:
        raise InputError(f"num_train_epochs: makes {steps:,} steps, expected at most {MOST_STEPS:,}")
    return replace(settings, steps=steps)


def check_alike(run: Run, data: Dataset) -> None:
    """Raises InputError on all ranks where one has read other data than rank 0: hosts may have files of their own."""
    first, *others = run.all((run.name, [index.identity() for index in data.indexes]))
    for name, theirs in others:
        for index, ours, other in zip(data.indexes, first[1], theirs, strict=True):
            for what, value in ours.items():
                if other[what] != value:
                    raise InputError(
                        f"{index.data}: {first[0]} and {name} differ in the {what}; give all hosts the same data, "
                        f"media and model, and remove {index.path} where it was made from other files"
                    )


def read_dataset(settings: TrainConfig, run: Run | None = None) -> Dataset:
    """The data, its indexes made where they are missing: one after the other, each by one rank a disk. Raises
    InputError."""
    sources = sources_of(settings.data, settings.index)
    opened: list[Index] = []
    for source in sources[:-1]:
        opened.append(_made_once(run, source, partial(_read_index, settings, source)))

    def rest(progress: Progress) -> Dataset:  # in one go with the last index: who fails, fails for all
        indexes = [*opened, _read_index(settings, sources[-1], progress)]
        return Dataset(
            settings.data,
            settings.model,
            settings.index,
            media_roots=settings.media_roots,
            media_cache=settings.cache_of_media,
            opened=indexes,
            data_workers=settings.data_workers,
            frame_cache=settings.frame_cache,
            frame_cache_bytes=int(settings.frame_cache_gb * 1e9),
            timeout_s=settings.timeout_s,
        )

    return _made_once(run, sources[-1], rest)


def _made_once(run: Run | None, source: Source, work: Callable[[Progress], T]) -> T:
    return made_once(run, source.index or default_path(source.path), work) if run else work(lambda lines: None)


def _read_index(settings: TrainConfig, source: Source, progress: Progress) -> Index:
    return load_or_build_index(
        source.path,
        settings.model,
        source.index or None,
        on_error=settings.on_bad_media,
        on_malformed=settings.on_malformed,
        media_roots=settings.media_roots,
        media_cache=settings.cache_of_media,
        max_line_bytes=settings.max_line_bytes,
        progress=progress,
    )


def check_room(settings: TrainConfig, cluster: Cluster, cost: CostModel) -> None:
    """Raises InputError where the model's state leaves no memory for activations: no number of ranks holds a sample."""
    why = no_room(cost, cluster)
    if not why:
        return
    if settings.capacity_tokens and settings.cost and not settings.cluster:
        raise InputError(
            f"capacity_tokens: found {settings.capacity_tokens}, but {settings.cost} counts memory in bytes, "
            f"{cost.state_bytes:,.0f} of them for the model's state; make it with dhp calibrate --capacity-tokens "
            f"{settings.capacity_tokens}, or leave capacity_tokens out"
        )
    memory = f"cluster: {settings.cluster}" if settings.cluster else f"cost_device: {cost_device(settings)}"
    smaller = (
        f"a cost file instead of {settings.cost} that counts more ranks or frozen parts"
        if settings.cost
        else "more ranks, which share the optimizer's state, freeze_vit or freeze_llm, or count tokens: capacity_tokens"
    )
    raise InputError(f"{memory}: {why}; take more memory a rank, or {smaller}")


def cost_device(settings: TrainConfig) -> str:
    """The device of `dhp cost` that counted costs are of. Raises InputError where the one at hand has no preset."""
    return settings.cost_device or preset_at_hand(settings.device, "cost_device")


def planning_inputs(settings: TrainConfig, ranks: int) -> tuple[Cluster, CostModel]:
    """From the files of the config, or counted. Raises InputError, also for options of which no batch has a plan."""
    cluster = (
        read_cluster(settings.cluster)
        if settings.cluster
        else local_cluster(ranks, device=cost_device(settings), capacity_tokens=settings.capacity_tokens)
    )
    cost = (
        read_cost_model(settings.cost)
        if settings.cost
        else local_cost(
            settings.model,
            ranks,
            device=cost_device(settings),
            recompute=getattr(Recompute, settings.recomputed),
            freeze=settings.frozen,
            capacity_tokens=settings.capacity_tokens,
            precision=settings.precision,
            lora_rank=settings.lora_rank,
        )
    )
    if cluster.ranks != ranks:
        raise InputError(
            f"cluster: {settings.cluster} has {cluster.ranks} ranks, the run has {ranks}; take a cluster of as many"
        )
    try_plan(Batch([]), cluster, cost, planner=settings.planner, **settings.plan)
    return cluster, cost
