"""Rows of pictures that also enter after the first text layers (Qwen3-VL's deepstack), added by index. The models' own
code adds them by a mask, whose size the host waits for."""

from __future__ import annotations

import functools
from typing import Any

import torch


def add_by_index(layers: torch.nn.ModuleList) -> None:
    """Adds the rows of `Group.deepstack` behind each layer."""
    remove(layers)
    for number, layer in enumerate(layers):
        hook = functools.partial(_add_rows, number)
        layer.__dict__["_dhp_deepstack"] = layer.register_forward_hook(hook, with_kwargs=True)


def remove(layers: torch.nn.ModuleList) -> None:
    for layer in layers:
        if handle := layer.__dict__.pop("_dhp_deepstack", None):
            handle.remove()


def _add_rows(number: int, layer: Any, arguments: Any, named: dict[str, Any], hidden: torch.Tensor) -> torch.Tensor:
    group = named.get("dhp")
    if group is None or number >= len(group.deepstack):
        return hidden
    return hidden.index_add(1, group.visual_slots, group.deepstack[number].to(hidden.dtype)[None])
