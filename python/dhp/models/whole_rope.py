"""Rotary embeddings whose frequencies depend on how long a sequence is ("dynamic", "longrope"): computed for whole
sequences, as the model alone would. On a shard, or beside other sequences, they would be others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dhp._core import InputError
from dhp.models import forwards
from dhp.task.layout import TaskLayout

BY_LENGTH = ("dynamic", "longrope")


class WholeRope:
    """Stands in for `rotary_emb.forward` of a text model whose positions are 0, 1, 2, …"""

    def __init__(self, rotary: Any) -> None:
        self._rotary = rotary
        self._own = rotary.forward
        self._lengths: tuple[int, ...] = ()
        self._local: list[torch.Tensor] = []

    def begin(self, layout: TaskLayout, upload: Callable[..., list[torch.Tensor]]) -> None:
        """Of the task whose forward pass comes next."""
        self._lengths = layout.tokens
        self._local = upload(
            *(
                torch.from_numpy(local).clamp(max=n - 1)
                for local, n in zip(layout.local_tokens, layout.tokens, strict=True)
            )
        )

    def __call__(self, hidden: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin, [1, T_local, D]."""
        if position_ids.dim() != 2:
            raise InputError(f"rope_type {self._rotary.rope_type}: found positions in three dimensions, expected one")
        parts = []
        for tokens, local in zip(self._lengths, self._local, strict=True):
            _forget(self._rotary)
            cos, sin = self._own(hidden, torch.arange(tokens, device=hidden.device)[None])
            parts.append((cos[:, local], sin[:, local]))
        cos, sin = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
        return cos, sin


def wrap(text: Any) -> WholeRope | None:
    """Of a text model; nothing where frequencies do not depend on the length."""
    unwrap(text)
    rotary = getattr(text, "rotary_emb", None)
    if rotary is None or kind_of(text) not in BY_LENGTH:
        return None
    whole = WholeRope(rotary)
    forwards.put(rotary, whole)
    return whole


def forget(text: Any) -> None:
    """transformers keeps the frequencies of the longest sequence so far: makes the next result that of its sequence
    alone."""
    if kind_of(text) in BY_LENGTH:
        _forget(text.rotary_emb)


def _forget(rotary: Any) -> None:
    for name in [name for name in vars(rotary) if name.endswith("max_seq_len_cached")]:
        setattr(rotary, name, 0)


def kind_of(text: Any) -> str:
    return str((getattr(text.config, "rope_parameters", None) or {}).get("rope_type", "default"))


def unwrap(text: Any) -> None:
    """Undoes `wrap`."""
    if rotary := getattr(text, "rotary_emb", None):
        forwards.take_back(rotary)
