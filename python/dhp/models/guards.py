"""What of a model's config would make a shard compute something else than the whole, and is refused by name."""

from __future__ import annotations

from typing import Any

from dhp._core import InputError

# Of the logits, after the head: dhp calls the head itself.
AFTER_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def check_config(text: Any) -> None:
    """Of the language model. Raises InputError."""
    kind = getattr(text, "model_type", type(text).__name__)
    odd = sorted(set(getattr(text, "layer_types", None) or ()) - {"full_attention"})
    if odd:
        raise InputError(
            f"{kind}: layer_types: found {', '.join(odd)}; ring attention is full causal attention, and other layers "
            "would see no more of a sequence than this rank's tokens; take a model of full_attention alone"
        )
    for key in AFTER_HEAD:
        value = getattr(text, key, None)
        if value not in (None, 1, 1.0):
            raise InputError(f"{kind}: {key}: found {value}; logits are taken as the head gives them, set it to null")
    if getattr(text, "attention_dropout", 0.0):
        raise InputError(f"{kind}: attention_dropout: found {text.attention_dropout}; ring attention has none, set 0")
