"""Hugging Face models on shards of packed sequences: one adapter for all families.

The adapter copies and patches nothing of the model's code. It registers one attention function, encodes this rank's
share of the pictures, and calls the model on this rank's tokens.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path
from typing import Any, Protocol

import torch

from dhp._core import Cluster, Freeze, InputError, Task
from dhp.base.json_file import read_object
from dhp.base.unregistered import allowed
from dhp.run.runtime import Run, current_run
from dhp.task.input import TaskInput


class Adapter(Protocol):
    """A model that runs on shards. `loss` is the only call that a training loop needs.

    exchanges_rows  whether the members of every task exchange rows, as for a router loss (`dhp.plan(rows=…)`)
    """

    model: torch.nn.Module
    exchanges_rows: bool

    def prepare(self, task_input: TaskInput) -> None:
        """Makes what `loss` uploads, in memory that the device reads by itself: for a thread that reads ahead, so that
        the one that launches work does not wait for it."""
        ...

    def loss(self, task_input: TaskInput, task: Task, valid_tokens: int) -> torch.Tensor:
        """This rank's part of the loss of a task: the sum over its tokens, divided by `valid_tokens` of the global
        batch. A scalar; backward through it is collective in the task's group, so every member calls it, tokens or not.
        """
        ...


# model_type -> the class that says what is its own (families.py); packages may add theirs
FAMILIES: dict[str, str] = {
    "deepseek_v3": "dhp.models.families:Family",
    "glm4v": "dhp.models.families:GLM4V",
    "glm4v_moe": "dhp.models.families:GLM4V",
    "idefics3": "dhp.models.families:Idefics3",
    "internvl": "dhp.models.families:Family",
    "llama": "dhp.models.families:Family",
    "llava": "dhp.models.families:Llava",
    "llava_onevision": "dhp.models.llava_onevision:LlavaOneVision",
    "mistral3": "dhp.models.families:Mistral3",
    "qwen2": "dhp.models.families:Family",
    "qwen2_5_omni": "dhp.models.qwen_omni:Qwen25Omni",
    "qwen2_5_omni_thinker": "dhp.models.qwen_omni:Qwen25Omni",
    "qwen2_5_vl": "dhp.models.qwen_vl:Qwen25VL",
    "qwen2_vl": "dhp.models.qwen_vl:Qwen2VL",
    "qwen3": "dhp.models.families:Family",
    "qwen3_moe": "dhp.models.families:Family",
    "qwen3_vl": "dhp.models.qwen_vl:Qwen3VL",
    "qwen3_vl_moe": "dhp.models.qwen_vl:Qwen3VL",
    "smolvlm": "dhp.models.families:Idefics3",
}


def family_of(folder: str | Path) -> str:
    """model_type of a checkpoint folder. Raises InputError for a folder without a readable config, or a family that
    has no adapter."""
    config = Path(folder) / "config.json"
    if not os.path.exists(config):
        raise InputError(
            f"{config}: cannot be read (No such file or directory); expected a Hugging Face checkpoint folder"
        )
    model_type = read_object(config).get("model_type")
    if model_type not in FAMILIES and not (isinstance(model_type, str) and allowed()):
        hint = "dhp convert makes an internvl of it"
        if model_type != "internvl_chat":
            hint = "others may be tried with allow_unregistered = true"
        raise InputError(f'{config}: model_type: found "{model_type}", supported: {", ".join(FAMILIES)}; {hint}')
    return str(model_type)


def import_family(folder: str | Path) -> None:
    """Imports what the folder's model needs, which takes seconds: once, before local ranks are forked off, instead of
    once a rank. Starts no thread. A folder without a family is not this function's to complain about."""
    try:
        model_type = family_of(folder)
    except InputError:
        return
    importlib.import_module("transformers.models.auto.modeling_auto")
    importlib.import_module("dhp.models.adapter")
    if model_type in FAMILIES:
        package = model_type.removesuffix("_thinker")
        importlib.import_module(f"transformers.models.{package}.modeling_{package}")
        pkgutil.resolve_name(FAMILIES[model_type])


def attach(
    model: torch.nn.Module, run: Run | None = None, *, cluster: Cluster | None = None, compile: bool | str = False
) -> Adapter:
    """Makes a Hugging Face model run on shards: returns its adapter.

    The text model's attention becomes ring attention over the group of the current task. From then on, call the model
    through the adapter; `dhp.detach(model)` restores the model's own code, for generation or evaluation. A model that
    peft wraps is attached with its adapters. `run` defaults to the current run. `cluster` says which ranks share a
    node, for tasks whose exchange is hierarchical; without it, all ranks do. `compile`: the language model's layers go
    through torch.compile, by its backend of this name ("inductor" where it is true); the first task then takes longer.

    Raises InputError for a family without an adapter, and for attention that is not plain causal attention.
    """
    from dhp.models.adapter import ModelAdapter
    from dhp.models.compiled import INDUCTOR
    from dhp.models.unregistered import check_proven

    model = unwrapped(model)
    family = family_class(model)
    if is_unregistered(model):
        check_proven(model)
    compile_by = INDUCTOR if compile is True else compile or None
    return ModelAdapter(family(model), run or current_run(), cluster, compile_by)


def unwrapped(model: Any) -> Any:
    """The transformers model, its layers changed in place, of what peft wraps."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def family_class(model: Any) -> Any:
    """The class of dhp.models.families that knows this model. Raises InputError where there is none."""
    model_type = _type_of(model)
    if model_type in FAMILIES:
        return pkgutil.resolve_name(FAMILIES[model_type])
    if not allowed():
        raise InputError(f'model: model_type: found "{model_type}", supported: {", ".join(FAMILIES)}')
    from dhp.models.unregistered import Unregistered

    return Unregistered


def is_unregistered(model: Any) -> bool:
    return _type_of(model) not in FAMILIES


def _type_of(model: Any) -> str:
    return str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))


def freeze(model: torch.nn.Module, parts: Freeze) -> None:
    """Freezes parts of the model, in place; the aligner is all that maps vision to text, deepstack's mergers too.
    Raises InputError where nothing is left to train."""
    family = family_class(model)(model)
    if is_unregistered(model) and family.has_vision and (parts.vit or parts.aligner or parts.llm):
        raise InputError(
            f'freeze: model_type "{_type_of(model)}" is not registered, so its parts are not known; freeze none'
        )
    for name, parameter in model.named_parameters():
        aligner, vit = (bool(part.search(f".{name}")) for part in (family.aligner, family.vit))
        parameter.requires_grad_(not (parts.aligner if aligner else parts.vit if vit else parts.llm))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("freeze_llm: the model has no other part, so nothing would train; set it to false")


def detach(model: torch.nn.Module) -> None:
    """Undoes `attach`: the model has its own code again."""
    from dhp.models import compiled, deepstack, whole_rope
    from dhp.models.attention import attend_as_before

    family = family_class(unwrapped(model))(unwrapped(model))
    attend_as_before(family.text)
    family.restore()
    deepstack.remove(family.text.layers)
    compiled.remove(family.text.layers)
    whole_rope.unwrap(family.text)
