"""LoRA through peft: small matrices beside frozen ones, which alone train (arXiv 2106.09685)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from dhp._core import InputError
from dhp.base.json_file import first_line
from dhp.models import family_class
from dhp.models.model_folder import quiet, refuse_weights
from dhp.settings.config import TrainConfig

ALL_LINEAR = "all-linear"
ADAPTERS = "adapter_model.safetensors"


def with_adapters(model: Any, settings: TrainConfig, saved: Path | None = None) -> Any:
    """The model as peft wraps it: with new adapters, the same on every rank, or with those of a checkpoint folder.
    Raises InputError where peft is missing, where `lora_target` names no layer, and for damaged adapters."""
    try:
        import peft
    except ImportError:
        raise InputError('lora_rank: needs peft: pip install "dhp[lora]", or set lora_rank = 0') from None
    names = targets(model, settings.lora_target)
    if saved:
        return _loaded(peft, model, saved)
    alpha: Any = settings.lora_alpha  # peft says whole numbers, and takes any
    config = peft.LoraConfig(r=settings.lora_rank, lora_alpha=alpha, target_modules=names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        with quiet():
            return peft.get_peft_model(model, config)


def _loaded(peft: Any, model: Any, saved: Path) -> Any:
    try:
        with quiet():
            adapted = peft.PeftModel.from_pretrained(model, str(saved), is_trainable=True, local_files_only=True)
        with safe_open(saved / ADAPTERS, framework="pt") as content:
            found = set(content.keys())
    except Exception as error:  # whatever peft makes of an odd folder
        raise InputError(f"{saved}: its adapters cannot be loaded ({first_line(error)})") from None
    wanted = set(peft.get_peft_model_state_dict(adapted))
    refuse_weights(saved, sorted(wanted - found), sorted(found - wanted), ())
    return adapted


def targets(model: Any, target: str) -> list[str]:
    """Names of the linear layers that `lora_target` means: all of the language model's blocks, or those whose whole
    name a regular expression matches. Raises InputError where there are none."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    if target == ALL_LINEAR:
        inside = set(family_class(model)(model).text.layers.modules())
        return [name for name, module in linear.items() if module in inside]
    try:
        found = [name for name in linear if re.fullmatch(target, name)]
    except re.error as error:
        raise InputError(f"lora_target: found {target!r}, which is no regular expression ({error})") from None
    if not found:
        raise InputError(
            f"lora_target: found {target!r}, which matches no linear layer; the names are like {list(linear)[-1]}; "
            f'"{ALL_LINEAR}" means all of the language model'
        )
    return found


def merged(model: Any) -> Any:
    """The transformers model with the adapters added to its weights, in place: nothing trains afterwards."""
    return model.merge_and_unload()
