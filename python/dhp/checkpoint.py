"""Checkpoints: a Hugging Face folder (safetensors) with the optimizer's state and the position in the data beside it.

Written under a temporary name and renamed when complete: a folder named step-* is whole, whatever happened.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dhp._core import InputError
from dhp.config import TrainConfig
from dhp.runtime import Run

STATE = "trainer_state.json"
OPTIMIZER = "optimizer.pt"
# What the batches and the path of the weights depend on: a run that continues with other values is another run.
FIXED = ("data", "global_batch_size", "seed")


def save_checkpoint(step: int, model: Any, optimizer: torch.optim.Optimizer, config: TrainConfig, run: Run) -> Path:
    """Saves the state after `step` steps as output_dir/step-NNNNNN. Collective: sharded state is gathered on rank 0,
    which writes; all return when the folder is complete."""
    target = checkpoint_folder(config, step)
    if hasattr(optimizer, "consolidate_state_dict"):
        optimizer.consolidate_state_dict(to=0)
    if run.rank == 0:
        temporary = target.with_name(f".{target.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _copy_processor_files(Path(config.model), temporary)
        model.save_pretrained(temporary)
        torch.save(optimizer.state_dict(), temporary / OPTIMIZER)
        (temporary / STATE).write_text(json.dumps({"step": step, "config": asdict(config)}, indent=1))
        _sync(temporary)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        _drop_old(Path(config.output_dir), config.save_total_limit)
    run.barrier()
    return target


def latest_checkpoint(output_dir: str | Path) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    found = [p for p in Path(output_dir).glob("step-*") if re.fullmatch(r"step-\d+", p.name) and (p / STATE).is_file()]
    return max(found, key=lambda p: int(p.name[5:]), default=None)


def read_state(checkpoint: Path, config: TrainConfig) -> int:
    """Steps done at the checkpoint. Raises InputError if it belongs to another run."""
    try:
        state = json.loads((checkpoint / STATE).read_text())
        step, saved = int(state["step"]), state["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{checkpoint / STATE}: cannot be read ({error}); remove the folder to use an older one"
        ) from None
    for key in FIXED:
        if saved.get(key) != getattr(config, key):
            raise InputError(
                f"{checkpoint}: {key}: was {saved.get(key)!r}, is now {getattr(config, key)!r}: the same batches "
                "cannot be drawn again; set it back, or start afresh in another output_dir"
            )
    return step


def load_optimizer(config: TrainConfig, step: int, optimizer: torch.optim.Optimizer) -> None:
    """Restores the optimizer's state after `step` steps; any number of ranks may continue."""
    file = checkpoint_folder(config, step) / OPTIMIZER
    optimizer.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))


def checkpoint_folder(config: TrainConfig, step: int) -> Path:
    return Path(config.output_dir) / f"step-{step:06d}"


def _copy_processor_files(source: Path, target: Path) -> None:
    """Tokenizer and processor settings, so that the checkpoint loads as a model of its own."""
    for file in sorted(source.iterdir()):
        small = file.suffix in (".json", ".jinja", ".txt", ".model") and not file.name.endswith(".index.json")
        if file.is_file() and small and file.name not in ("config.json", STATE):
            shutil.copyfile(file, target / file.name)


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def _drop_old(output_dir: Path, keep: int) -> None:
    if keep:
        folders = sorted(p for p in output_dir.glob("step-*") if re.fullmatch(r"step-\d+", p.name))
        for old in folders[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
