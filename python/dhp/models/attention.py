"""The attention functions that transformers calls in attached models, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface

from dhp._core import InputError

ATTACHED = "this model is attached to DHP: call it through its adapter, or dhp.models.detach(model) first"
BEFORE = "_dhp_attention_before"
# What models hand to their attention beside q, k and v, and what of it plain causal attention means. Anything else
# changes the result, and would be lost in **kwargs without a word.
PLAIN: dict[str, tuple[Any, ...]] = {
    "is_causal": (None, True),
    "output_attentions": (None, False),
    "sliding_window": (None,),
    "softcap": (None,),
    "s_aux": (None,),
    "sinks": (None,),
    "indices": (None,),
    "block_indices": (None,),
    "position_bias": (None,),
}


@dataclass(frozen=True)
class Group:
    """What the text model needs to know of the task at hand; travels through it as the argument `dhp`, so that layers
    that are computed again in the backward pass find that of their own call."""

    ranks: list[int]  # of the default process group, in ring order
    traffic: str
    call: torch.Tensor  # of `dhp.run.ops.packed_call`: as data, since what torch.compile compiles is for all tasks
    visual_slots: torch.Tensor | None = None  # of this rank's tokens
    deepstack: tuple[torch.Tensor, ...] = ()  # by layer, rows to add there
    called: list[int] = field(default_factory=list)  # layers that have called their attention, in order; not of
    # compiled ones


def attend_by(name: str, part: Any, whole: Any = None, key: str = "") -> None:
    """Makes a part of a model attend by `name`, until `attend_as_before`. `whole`: the model whose config calls the
    part `key`."""
    part.__dict__.setdefault(BEFORE, part.config._attn_implementation)
    _switch(name, part, whole, key)


def attend_as_before(part: Any, whole: Any = None, key: str = "") -> None:
    """Undoes `attend_by`."""
    if name := part.__dict__.pop(BEFORE, None):
        _switch(name, part, whole, key)


def _switch(name: str, part: Any, whole: Any, key: str) -> None:
    if whole is None:
        part.set_attn_implementation(name)
    else:
        whole.set_attn_implementation({key: name})


def group_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [1, Hq, T_local, D]
    key: torch.Tensor,  # [1, Hkv, T_local, D]
    value: torch.Tensor,  # [1, Hkv, T_local, at most D]
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    dhp: Group | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Of the text model: causal, packed, over the group's ranks. [1, T_local, Hq, width of V]"""
    if dhp is None:
        raise RuntimeError(ATTACHED)
    refuse_variants(module, attention_mask, dropout, others)
    if not torch.compiler.is_dynamo_compiling():
        dhp.called.append(getattr(module, "layer_idx", -1))
    narrower = key.shape[-1] - value.shape[-1]  # MLA: the op takes V as wide as K
    if narrower:
        value = torch.nn.functional.pad(value, (0, narrower))
    q, k, v = _rows(query, key, value)
    scale = key.shape[-1] ** -0.5 if scaling is None else scaling
    out = torch.ops.dhp.ring_attention_packed(q, k, v, dhp.call, dhp.traffic, scale)
    return out[..., : out.shape[-1] - narrower].unsqueeze(0), None


def refuse_variants(
    module: torch.nn.Module, attention_mask: torch.Tensor | None, dropout: float, others: dict[str, Any]
) -> None:
    """Raises InputError for attention that is not plain causal attention."""
    what = ""
    if attention_mask is not None:
        what = "a mask of its own"
    elif dropout:
        what = f"attention_dropout {dropout}"
    elif not getattr(module, "is_causal", True):
        what = "attention that is not causal"
    for name, plain in PLAIN.items():
        if not any(others.get(name) is value for value in plain):
            what = f"{name} {others[name] if isinstance(others[name], (int, float)) else '(a tensor)'}"
    if what:
        raise InputError(
            f"{type(module).__name__}: found {what}; ring attention is plain causal attention, and would leave it out. "
            "Take a model without it, or set it to nothing in config.json where the model was trained without"
        )


def frame_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [1, H, patches, D]
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,  # on the host
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Of the vision model: inside each frame or window, all of them in one call, on this rank alone.
    [1, patches, H, D]"""
    if cu_seq_lens_q is None or cu_seq_lens_q.device.type != "cpu":
        raise RuntimeError(ATTACHED)
    q, k, v = _rows(query, key, value)
    out = torch.ops.dhp.ring_attention(q, k, v, cu_seq_lens_q.diff().tolist(), [0], "", scaling, False)
    return out.unsqueeze(0), None


def kernel_for(text: Any, dtype: torch.dtype, device: torch.device) -> str:
    """What attends for a text model of this config: a name of `torch.ops.dhp.kernel_of`."""
    size = head_size(text)
    return str(torch.ops.dhp.kernel_of(torch.empty(1, text.num_attention_heads, size, dtype=dtype, device=device)))


def head_size(text: Any) -> int:
    if getattr(text, "qk_rope_head_dim", None):  # MLA
        return int(text.qk_nope_head_dim + text.qk_rope_head_dim)
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _rows(*heads_first: torch.Tensor) -> list[torch.Tensor]:
    """[1, H, T, D] -> [T, H, D], in the dtype that autocast gives PyTorch's own attention."""
    device = heads_first[0].device.type
    if torch.is_autocast_enabled(device):
        heads_first = tuple(x.to(torch.get_autocast_dtype(device)) for x in heads_first)
    return [x[0].transpose(0, 1) for x in heads_first]


# No mask function is registered with them on purpose: transformers then passes no mask, which is what packing needs.
# Vision models hand over all frames at once only where the name has "flash" in it.
TEXT, FRAMES = "dhp", "dhp_flash_frames"
AttentionInterface.register(TEXT, group_attention)
AttentionInterface.register(FRAMES, frame_attention)
