"""One adapter per Hugging Face model family: how its modules are called on a shard of packed sequences.

An adapter copies and patches nothing of the model's code. It registers one attention function, encodes this rank's
share of the pictures, and calls the language model on this rank's tokens.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Protocol

import torch

from dhp._core import Cluster, Freeze, InputError, Task
from dhp.base.json_file import read_object
from dhp.run.runtime import Run, current_run
from dhp.task.input import TaskInput


class Adapter(Protocol):
    """A model that runs on shards. `loss` is the only call of the training loop."""

    model: torch.nn.Module

    def loss(self, task_input: TaskInput, task: Task, valid_tokens: int) -> torch.Tensor:
        """This rank's part of the loss of a task: the sum over its tokens, divided by `valid_tokens` of the global
        batch. A scalar; backward through it is collective in the task's group, so every member calls it, tokens or not.
        """
        ...


FAMILIES = ("qwen3_vl",)


def family_of(folder: str | Path) -> str:
    """model_type of a checkpoint folder. Raises InputError for a folder without a readable config, or a family that
    has no adapter."""
    config = Path(folder) / "config.json"
    if not os.path.exists(config):
        raise InputError(
            f"{config}: cannot be read (No such file or directory); expected a Hugging Face checkpoint folder"
        )
    model_type = read_object(config).get("model_type")
    if model_type not in FAMILIES:
        raise InputError(f'{config}: model_type: found "{model_type}", supported: {", ".join(FAMILIES)}')
    return str(model_type)


def import_families() -> None:
    """Imports what the models of all families need, which takes seconds: once, before local ranks are forked off,
    instead of once a rank. Starts no thread."""
    for module in ("transformers.models.auto.modeling_auto", "transformers.models.qwen3_vl.modeling_qwen3_vl"):
        importlib.import_module(module)
    importlib.import_module("dhp.models.qwen3_vl")


def attach(model: torch.nn.Module, run: Run | None = None, *, cluster: Cluster | None = None) -> Adapter:
    """Makes a Hugging Face model run on shards: returns its adapter.

    The text model's attention becomes ring attention over the group of the current task. Vision attention, which stays
    inside a frame, is one call for all frames. Patches are embedded by a matrix product. From then on, call the model
    through the adapter; `dhp.detach(model)` restores the model's own code, for generation or evaluation. `run` defaults
    to the current run. `cluster` says which ranks share a node, for tasks whose exchange is hierarchical; without it,
    all ranks do.

    Raises InputError for a family without an adapter.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if model_type == "qwen3_vl":
        from dhp.models.qwen3_vl import Qwen3VLAdapter

        return Qwen3VLAdapter(model, run or current_run(), cluster)
    raise InputError(f'model: model_type: found "{model_type}", supported: {", ".join(FAMILIES)}')


def freeze(model: torch.nn.Module, parts: Freeze) -> None:
    """Freezes parts of the model, in place. The aligner is every merger from vision to text, including deepstack's."""
    for name, parameter in model.named_parameters():
        vision = ".visual." in f".{name}"
        aligner = vision and "merger" in name
        parameter.requires_grad_(not (parts.aligner if aligner else parts.vit if vision else parts.llm))


def detach(model: torch.nn.Module) -> None:
    """Undoes `attach`: the model has its own attention again, and patches are embedded by a convolution."""
    from dhp.models.qwen3_vl import remove_deepstack_by_index

    model.set_attn_implementation({"text_config": "sdpa", "vision_config": "sdpa"})  # type: ignore[operator]
    model.model.visual.patch_embed.proj.__dict__.pop("forward", None)  # type: ignore[union-attr]
    remove_deepstack_by_index(model.model.language_model.layers)  # type: ignore[union-attr,arg-type]
