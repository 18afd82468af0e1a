"""What is looked at before a run begins: all that it will read and write, so that no refusal comes late."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dhp._core import InputError
from dhp.base import unregistered
from dhp.base.output import check_apart, check_writable, complain
from dhp.data.folder import check_folder as check_processor
from dhp.data.indexing.index import default_path
from dhp.data.sources import sources_of
from dhp.loop.inputs import open_dataset, planning_inputs
from dhp.models import FAMILIES, family_of
from dhp.models.model_folder import check_model_folder
from dhp.run import devices
from dhp.run.launch import ON_DEVICES
from dhp.run.runtime import Run
from dhp.save.checkpoint import Saved, read_checkpoint
from dhp.save.run_folder import claim, newest_checkpoint
from dhp.settings.config import MOST_STEPS, TrainConfig
from dhp.watch.record import check_result_options
from dhp.watch.trace import check_folder

T = TypeVar("T")


def launched_here() -> bool:
    """Whether `dhp train` itself has started this rank, and looked at everything before."""
    return "DHP_LAUNCHER" in os.environ


def says() -> bool:
    """Whether this process says what all ranks find before they have met: one a machine does."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def check_options(settings: TrainConfig, options: argparse.Namespace) -> None:
    """What costs nothing to look at: the model's kind, and the files to write. Raises InputError."""
    if settings.allow_unregistered:
        unregistered.allow()
    family_of(settings.model)
    check_processor(settings.model)
    sources = sources_of(settings.data, settings.index)
    inputs = {
        "the cluster file": settings.cluster,
        "the cost file": settings.cost,
        "the settings file": options.config,
    }
    given = {f"index of {source.path}": source.index for source in sources[1:]} | {"index": sources[0].index}
    for source in sources:  # by their names, if there are several
        of_which = f" {source.path}" if len(sources) > 1 else ""
        inputs[f"the data{of_which}"] = source.path
        # beside the data, wherever that is
        inputs[f"the index{of_which}"] = "" if source.index else str(default_path(source.path))
    outputs = {f"--{name}": getattr(options, name) for name in ("metrics", "trace", "result")}
    check_apart({**given, **outputs}, inputs, settings.model)
    check_beside(settings.output_dir, {**given, **outputs})
    if options.metrics:
        check_writable("--metrics", options.metrics, append=True)
    if options.trace.endswith(".json"):
        check_writable("--trace", options.trace)
    elif options.trace:
        check_folder(options.trace)
    if options.result:
        check_result_options(
            options.result, options.result_step, MOST_STEPS if settings.num_train_epochs else settings.steps
        )


def check_beside(output_dir: str, outputs: dict[str, str]) -> None:
    """Raises InputError for a file to write where the folder of the run, or one above it, will be."""
    folder = os.path.realpath(output_dir)
    for option, file in outputs.items():
        is_folder = option == "--trace" and not file.endswith(".json")
        if file and not is_folder and os.path.commonpath((os.path.realpath(file), folder)) == os.path.realpath(file):
            raise InputError(f"{option}: {file} is output_dir or a folder above it; give another path")


def check_before_ranks(settings: TrainConfig) -> int:
    """Everything else, once for all local ranks: the checkpoint to continue from, or the model's folder, then planning
    and data; makes the index. Returns an exit code, 0 or ON_DEVICES where all is well. In a process of its own: see
    train.launch."""
    try:
        kind = devices.check(settings.device, settings.ranks)
        newest = newest_checkpoint(settings.output_dir) if settings.resume else None
        if newest:
            read_checkpoint(newest, settings, whole=True)
        check_model_folder(weights_of(settings, newest))
        open_dataset(settings, *planning_inputs(settings, settings.ranks), None)
        return 0 if kind == "cpu" else ON_DEVICES
    except InputError as error:
        complain(f"dhp: error: {error}")
        return 2


def weights_of(settings: TrainConfig, checkpoint: Path | None) -> str | Path:
    """The folder that has the whole model: with LoRA a checkpoint has the adapters alone."""
    return checkpoint if checkpoint and not settings.lora_rank else settings.model


def begin(settings: TrainConfig, run: Run) -> Saved | None:
    """Takes the run's folder, and returns the checkpoint to continue from: the newest that rank 0 sees, on all ranks.
    Whatever the launcher has not looked at is looked at here. Raises InputError, on all ranks alike."""
    if not launched_here() and "RANK" in os.environ:  # else the launcher holds it
        together(run, lambda: claim(settings) if run.rank == 0 else None)
    newest = newest_checkpoint(settings.output_dir) if settings.resume and run.rank == 0 else None
    chosen: Path | None = run.from_rank_0(newest)

    def look() -> Saved | None:
        looks = says() and not launched_here()
        if chosen and not os.path.isdir(chosen):
            raise InputError(
                f"{chosen}: rank 0 continues from it, but on {socket.gethostname()} there is none: output_dir must be "
                "a folder that all ranks share"
            )
        saved = read_checkpoint(chosen, settings, whole=looks) if chosen else None
        if looks:
            check_model_folder(weights_of(settings, chosen))
        if settings.allow_unregistered and family_of(settings.model) not in FAMILIES and run.rank == 0:
            from dhp.models.check_model import config_of  # transformers: only where it is needed
            from dhp.models.unregistered import prove

            prove(config_of(settings.model), settings.output_dir)
        if settings.compile and says():
            from dhp.models.compiled import check_compiler

            check_compiler(run.device)
        return saved

    return together(run, look)


def together(run: Run, work: Callable[[], T]) -> T:
    """What `work` returns on this rank. Raises InputError on every rank where it raises one on any: the first one's."""
    result, problem = None, ""
    try:
        result = work()
    except InputError as error:
        problem = str(error)
    if first := next(filter(None, run.all(problem)), ""):
        raise InputError(first)
    return result  # type: ignore[return-value]


__all__ = ["begin", "check_before_ranks", "check_options", "launched_here", "says", "together", "weights_of"]
