"""Checkpoints: a Hugging Face folder (safetensors) with the optimizer's state and the position in the data beside it.

Written under a temporary name and renamed when complete: a folder named step-* is whole, whatever happened. Its
trainer_state.json, written last, says how long every other file is and what its SHA-256 is. No file is a pickle.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dhp._core import InputError
from dhp.base.json_file import read_object
from dhp.base.output import complain
from dhp.run.runtime import Run
from dhp.save.run_folder import checkpoints, drop_old, steps_of, temporary
from dhp.settings.config import TrainConfig
from dhp.step.sharded import MASTER, MOMENTS, ShardedAdamW, names_of

FORMAT = "dhp.checkpoint/1"
STATE = "trainer_state.json"
OPTIMIZER = "optimizer.safetensors"
# What the batches, the path of the weights, and the optimizer's state depend on: a run that continues with other values
# is another run.
FIXED = (
    "data",
    "global_batch_size",
    "seed",
    "freeze_vit",
    "freeze_aligner",
    "freeze_llm",
    "lora_rank",
)
OF_ADAPTERS = ("lora_alpha", "lora_target")
MARKED_BYTES = 1 << 20  # at the beginning and the end of a file of weights
MERGED = "merged"  # the folder of the whole model with its adapters


class NotSavedError(Exception):
    """A checkpoint could not be written, and nothing is left of it; earlier ones are as they were."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint to continue from.

    folder  the Hugging Face folder
    step    steps done
    costs   what Recalibration.state() returned
    """

    folder: Path
    step: int
    costs: dict[str, Any]


def save_checkpoint(
    step: int, model: Any, optimizer: ShardedAdamW, config: TrainConfig, run: Run, costs: dict[str, Any]
) -> Path:
    """Saves the state after `step` steps as output_dir/step-NNNNNN. Collective: sharded state is gathered on rank 0,
    which writes; all return when the folder is complete, or raise NotSavedError."""
    target = Path(config.output_dir) / f"step-{step:06d}"
    moments = optimizer.gathered_state()
    problem = ""
    if run.rank == 0:
        state = {"format": FORMAT, "step": step, "config": asdict(config), "costs": costs}
        if config.lora_rank:
            state["base"] = weights_mark(config.model)
        try:
            _write(target, model, _by_name(moments, model, optimizer), Path(config.model), state)
            if _is_synced(target):  # else the earlier ones are what a machine that stops now leaves
                drop_old(config.output_dir, config.save_total_limit)
        except (OSError, SafetensorError) as error:
            problem = f"{target} could not be saved ({_reason(error)})"
    problem = run.from_rank_0(problem)
    if problem:
        raise NotSavedError(problem)
    return target


def _write(target: Path, model: Any, moments: dict[str, torch.Tensor], source: Path, state: dict[str, Any]) -> None:
    with _whole_or_not_at_all(target, model, source) as partial:  # never over another checkpoint: that fails
        save_file(moments, partial / OPTIMIZER)
        state["files"] = {file.name: _checksum(file) for file in sorted(partial.iterdir())}
        (partial / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


@contextlib.contextmanager
def _whole_or_not_at_all(target: Path, model: Any, source: Path, replace: bool = False) -> Iterator[Path]:
    """A folder of the model to put more into, which has another name until it is whole and on disk."""
    partial = temporary(target)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _copy_processor_files(source, partial)
        model.save_pretrained(partial)
        yield partial
        _sync(partial)
        if replace:
            shutil.rmtree(target, ignore_errors=True)
        os.rename(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def save_merged(model: Any, config: TrainConfig, run: Run) -> Path:
    """Writes the model as output_dir/merged, a Hugging Face folder. Collective: rank 0 writes; all return when it is
    complete, or raise NotSavedError."""
    target = Path(config.output_dir) / MERGED
    problem = ""
    if run.rank == 0:
        try:
            # what is there is of the same run, before it was resumed
            with _whole_or_not_at_all(target, model, Path(config.model), replace=True):
                pass
        except (OSError, SafetensorError) as error:
            problem = f"{target} could not be saved ({_reason(error)})"
    problem = run.from_rank_0(problem)
    if problem:
        raise NotSavedError(problem)
    return target


def _is_synced(saved: Path) -> bool:
    """Whether the checkpoint's name is on disk; says where it is not."""
    try:
        _sync_folder(saved.parent)
        return True
    except OSError as error:
        complain(
            f"dhp: {saved} is saved, but {saved.parent} cannot be synced ({_reason(error)}): the checkpoint may "
            "be gone if the machine stops now; earlier ones are kept"
        )
        return False


def read_checkpoint(folder: Path, config: TrainConfig, *, whole: bool) -> Saved:
    """The state that a checkpoint of this run keeps; `whole`: every file of it is compared with its checksum. Raises
    InputError if it is damaged, naming the file and what to do, or belongs to another run."""
    older = [other for other in checkpoints(folder.parent) if steps_of(other) < steps_of(folder)]
    remedy = (
        f"remove {folder} to continue from {older[-1].name}"
        if older
        else "it is the only checkpoint: start afresh in another output_dir"
    )
    try:
        state = read_object(folder / STATE)
        if state.get("format") != FORMAT:
            found = json.dumps(state.get("format", "none"))[:60]
            raise InputError(
                f"{folder / STATE}: is not the state of {folder.name} in format {FORMAT}: found format {found}, of "
                "another version of dhp"
            )
        if state["step"] != steps_of(folder):
            raise InputError(f"{folder / STATE}: is not the state of {folder.name} (format {FORMAT})")
        files, then, costs = dict(state["files"]), dict(state["config"]), dict(state["costs"])
        for name, saved in files.items() if whole else ():
            if problem := _damage(folder / name, saved["bytes"], saved["sha256"]):
                raise InputError(f"{folder / name}: {problem}")
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / STATE}: is damaged ({type(error).__name__}: {error}); {remedy}") from None
    defaults = {setting.name: setting.default for setting in fields(TrainConfig)}  # of checkpoints from before one was
    if config.lora_rank and state.get("base") != weights_mark(config.model):
        raise InputError(
            f"{folder}: its adapters belong to other weights than those in {config.model}; set model to the folder "
            "that they were trained on"
        )
    with_adapters = config.lora_rank or then.get("lora_rank", 0)
    for key in FIXED + (OF_ADAPTERS if with_adapters else ()):
        was, now = then.get(key, defaults[key]), getattr(config, key)
        if was != now:
            raise InputError(
                f"{folder}: {key}: was {was!r}, is now {now!r}: that would be another run; "
                "set it back, or start afresh in another output_dir"
            )
    return Saved(folder, steps_of(folder), costs)


def weights_mark(folder: str) -> str:
    """Of a folder's weights: names, lengths, first and last bytes, since all would take minutes to read."""
    mark = hashlib.sha256()
    for file in sorted(Path(folder).glob("*.safetensors")):
        with open(file, "rb") as content:
            size = os.fstat(content.fileno()).st_size
            mark.update(f"{file.name} {size}\n".encode() + content.read(MARKED_BYTES))
            content.seek(max(0, size - MARKED_BYTES))
            mark.update(content.read(MARKED_BYTES))
    return mark.hexdigest()


def load_optimizer(folder: Path, model: torch.nn.Module, optimizer: ShardedAdamW) -> None:
    """Restores the optimizer's state; any number of ranks may continue. Rates and such are those of the settings."""
    try:
        tensors = load_file(folder / OPTIMIZER)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / OPTIMIZER}: cannot be read ({_reason(error)})") from None
    places = {name: place for place, name in enumerate(names_of(model, optimizer))}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        moment, _, name = key.partition("/")
        if name not in places:
            raise InputError(f"{folder / OPTIMIZER}: holds state of {name}, which the model lacks, or does not train")
        state.setdefault(places[name], {})[moment] = tensor
    _check_moments(folder / OPTIMIZER, list(places), state, optimizer)
    optimizer.load_state(state)


def _check_moments(
    file: Path, names: list[str], state: dict[int, dict[str, torch.Tensor]], optimizer: ShardedAdamW
) -> None:
    """Raises InputError unless each parameter has all of AdamW's moments, in its own size, or none: one that has never
    had a gradient. torch would begin afresh, or fail in the middle of a step."""
    for place, moments in state.items():
        shape_of_moments = tuple(optimizer.parameters[place].shape)
        shapes = {"step": (), **dict.fromkeys(MOMENTS, shape_of_moments)}
        if MASTER in moments:
            shapes[MASTER] = shape_of_moments
        for moment, shape in shapes.items():
            if moment not in moments:
                raise InputError(f"{file}: has no {moment}/{names[place]}; continue from another checkpoint")
            if (found := tuple(moments[moment].shape)) != shape:
                raise InputError(
                    f"{file}: {moment}/{names[place]}: found size {list(found)}, expected {list(shape)}; continue from "
                    "another checkpoint"
                )
        if unknown := sorted(moments.keys() - shapes.keys()):
            raise InputError(f"{file}: {unknown[0]}/{names[place]}: is no state of AdamW")


def _by_name(
    state: dict[int, dict[str, torch.Tensor]], model: torch.nn.Module, optimizer: ShardedAdamW
) -> dict[str, torch.Tensor]:
    """Moments by name: "exp_avg/model.visual…"."""
    names = names_of(model, optimizer)
    return {
        f"{moment}/{names[place]}": tensor for place, moments in state.items() for moment, tensor in moments.items()
    }


def _copy_processor_files(source: Path, target: Path) -> None:
    """Tokenizer and processor settings, so that the checkpoint loads as a model of its own."""
    for file in sorted(source.iterdir()):
        small = file.suffix in (".json", ".jinja", ".txt", ".model") and not file.name.endswith(".index.json")
        if os.path.isfile(file) and small and file.name not in ("config.json", STATE):
            shutil.copyfile(file, target / file.name)


def _checksum(file: Path) -> dict[str, Any]:
    with open(file, "rb") as content:
        return {
            "bytes": os.fstat(content.fileno()).st_size,
            "sha256": hashlib.file_digest(content, "sha256").hexdigest(),
        }


def _damage(file: Path, size: int, digest: str) -> str:
    """What is wrong with a file; nothing where it is what was saved."""
    try:
        now = file.stat().st_size
        if now != size:
            return f"is damaged: {now:,} bytes, {size:,} were saved"
        return "" if _checksum(file)["sha256"] == digest else "is damaged: its SHA-256 is not the one that was saved"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that does not sync folders
            raise
    finally:
        os.close(handle)


def _reason(error: Exception) -> str:
    """The system's words, also where a library wraps them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(number[1])) if number else str(error)
