"""What a run plans and trains with: cluster, cost and data, from the files of its settings or counted."""

from __future__ import annotations

import re
from collections.abc import Callable

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    InputError,
    device_presets,
    infeasible_sequences,
    read_cluster,
    read_cost_model,
    try_plan,
)
from dhp.base.output import complain
from dhp.cost.local import local_cluster, local_cost, no_room
from dhp.data import shapes
from dhp.data.dataset import Dataset
from dhp.data.index import default_path
from dhp.run import devices
from dhp.run.made_once import made_once
from dhp.run.runtime import Run
from dhp.settings.config import TrainConfig


def open_dataset(settings: TrainConfig, cluster: Cluster, cost: CostModel, run: Run | None) -> Dataset:
    """The data and its index, which one rank a disk makes where it is missing. Samples that no plan of this cluster and
    these options holds are named now, with what they need, not in the middle of the run. Without a run (the launcher,
    before there is one) nothing is said of what is left out. Raises InputError."""
    check_room(settings, cluster, cost)

    if run:
        with run.at("start, making or reading the index"):
            file = settings.index or default_path(settings.data)
            data = made_once(run, file, lambda progress: read_dataset(settings, progress))
            check_alike(run, data)
    else:
        data = read_dataset(settings)
    if run and run.rank == 0:
        if data.index.problems:
            complain(f"dhp: {data.index.left_out()}")
        if data.index.ignored:
            complain(f"dhp: {settings.data}: {data.index.ignored_keys()}")
    leave_out_too_long(data, settings, cluster, cost, run)
    if not data.samples:
        raise InputError(f"{settings.data}: no samples left: all {len(data.index.samples):,} are left out as too long")
    if len(data.samples) < settings.global_batch_size:
        too_long = len(data.index.samples) - len(data.samples)
        left = f"; {too_long} are left out" if too_long else ""
        raise InputError(
            f"global_batch_size: found {settings.global_batch_size}, but the data has {len(data.samples)} samples{left}"
        )
    return data


def leave_out_too_long(
    data: Dataset, settings: TrainConfig, cluster: Cluster, cost: CostModel, run: Run | None
) -> None:
    """Takes the samples out that no plan holds. Raises InputError where they are to end the run."""
    too_long = shapes.too_long(
        data.samples,
        lambda batch: infeasible_sequences(batch, cluster, cost, planner=settings.planner, **settings.plan),
    )
    if too_long is None:
        return
    if too_long.whatever:
        raise InputError(f"{settings.data}: planner {settings.planner} can plan no sample: {too_long.whatever}")
    listed = "; ".join(f"sample {number}: {reason}" for number, reason in too_long.reasons.items())
    more = "; ..." if len(too_long.ids) > len(too_long.reasons) else ""
    problem = f"{settings.data}: {len(too_long.ids)} samples do not fit on {cluster.ranks} ranks: {listed}{more}"
    if settings.on_too_long == "fail":
        raise InputError(f'{problem}; take more ranks or memory, or leave them out with on_too_long = "skip"')
    if run and run.rank == 0:
        complain(f"dhp: left out: {problem}")
    data.leave_out(too_long.ids)


def check_alike(run: Run, data: Dataset) -> None:
    """Raises InputError on all ranks where one has read other data than rank 0: hosts may have files of their own."""
    first, *others = run.all((run.name, data.index.identity()))
    for name, theirs in others:
        for what, value in first[1].items():
            if theirs[what] != value:
                raise InputError(
                    f"{data.index.data}: {first[0]} and {name} differ in the {what}; give all hosts the same data, "
                    f"media and model, and remove {data.index.path} where it was made from other files"
                )


def read_dataset(settings: TrainConfig, progress: Callable[[int], None] | None = None) -> Dataset:
    """The data, its index made where it is missing. Raises InputError."""
    return Dataset(
        settings.data,
        settings.model,
        settings.index,
        on_error=settings.on_bad_media,
        on_malformed=settings.on_malformed,
        media_roots=settings.media_roots,
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
    if settings.cost_device:
        return settings.cost_device
    model = devices.model_of(settings.device)
    if not model:
        return "local-cpu"
    presets = [preset.name for preset in device_presets()]
    for preset in presets:
        if preset in re.split("[^a-z0-9]+", model.lower()):
            return preset
    raise InputError(
        f"cost_device: there is no preset for this device, {model}; set it to one that is alike "
        f"({', '.join(presets)}), or measure a cost file with dhp calibrate"
    )


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
            recompute=settings.gradient_checkpointing,
            freeze=settings.frozen,
            capacity_tokens=settings.capacity_tokens,
            precision=settings.precision,
        )
    )
    if cluster.ranks != ranks:
        raise InputError(
            f"cluster: {settings.cluster} has {cluster.ranks} ranks, the run has {ranks}; take a cluster of as many"
        )
    try_plan(Batch([]), cluster, cost, planner=settings.planner, **settings.plan)
    return cluster, cost
