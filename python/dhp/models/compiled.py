"""Layers of the language model through torch.compile: one program for all layers that are alike, and for all tasks.

Lengths and ranks reach attention as data, and lengths of shards are symbols, so that another layout is no other
program. Attention itself is one call in it, as exchanges are no part of what can be compiled; nothing is sent while a
program is made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch

from dhp._core import InputError
from dhp.base.json_file import first_line
from dhp.models import forwards

INDUCTOR = "inductor"
Backend = str | Callable[..., Any]


def compile_layers(layers: Iterable[Any], backend: Backend = INDUCTOR) -> None:
    """Undone by `remove`. Hooks of the layers, and what recomputes them in releases of transformers before 5.23, stay
    outside."""
    remove(layers)
    _compile_in_this_thread()
    # It warns of operations in place under recompute = "keep_attention": there are none in transformers' layers
    logging.getLogger("torch._higher_order_ops.wrap").setLevel(logging.ERROR)
    for layer in layers:
        forwards.put(layer, torch.compile(layer.forward, dynamic=True, backend=backend))


def remove(layers: Iterable[Any]) -> None:
    for layer in layers:
        forwards.take_back(layer)


def _compile_in_this_thread() -> None:
    """Before the first program: with it torch starts a pool of processes, one a core, but ranks are forked, and as many
    as there are cores."""
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1


def check_compiler(device: torch.device) -> None:
    """Raises InputError where torch.compile cannot compile for a device: makes a program of one line."""

    _compile_in_this_thread()

    def more(x: torch.Tensor) -> torch.Tensor:
        return x.sin() + 1.0

    try:
        torch.compile(more, backend=INDUCTOR)(torch.ones(8, device=device))
    except Exception as error:  # whatever is missing: a C++ compiler, Triton, headers
        inner = getattr(error, "inner_exception", None) or error
        needs = "a C++ compiler (g++)" if device.type == "cpu" else "a C++ compiler (g++) and Triton"
        raise InputError(
            f"compile: torch.compile does not work here for {device.type} ({first_line(inner)}); it needs {needs}: "
            "install them, or set compile = false"
        ) from None
