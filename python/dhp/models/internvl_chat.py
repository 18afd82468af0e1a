"""Names and settings of OpenGVLab's InternVL (`model_type` internvl_chat), as transformers' InternVL has them."""

from __future__ import annotations

import json
import re
from typing import Any

import torch

from dhp._core import InputError

TEXT_MODELS = ("qwen2", "qwen3")
# Settings of the language model that its config class knows; the rest of a config.json is of other releases.
TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "attention_bias",
    "attention_dropout",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
VISION_KEYS = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "num_channels": "num_channels",
    "hidden_act": "hidden_act",
    "norm_type": "norm_type",
    "layer_norm_eps": "layer_norm_eps",
    "attention_dropout": "attention_dropout",
    "dropout": "hidden_dropout_prob",
    "initializer_range": "initializer_range",
    "initializer_factor": "layer_scale_init_value",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
}
# What the released configs leave out, as the class that comes with them has it.
VISION_DEFAULTS = {"qkv_bias": False, "qk_normalization": True, "norm_type": "rms_norm"}
TOWER, PROJECTOR, TEXT = "model.vision_tower.", "model.multi_modal_projector.", "model.language_model."
EMBEDDINGS = {
    "class_embedding": "cls_token",
    "position_embedding": "position_embeddings",
    "patch_embedding.weight": "patch_embeddings.projection.weight",
    "patch_embedding.bias": "patch_embeddings.projection.bias",
}
LAYER = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "attn.proj": "attention.projection_layer",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
PROJECTIONS = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}


def converted_config(config: dict[str, Any], source: str, image_token: int | None) -> Any:
    """InternVLConfig of an internvl_chat config.json. `image_token`: id of <IMG_CONTEXT>, where the tokenizer has it.
    Raises InputError for what transformers' InternVL does not compute."""
    import transformers

    text, vision = (config.get(key) for key in ("llm_config", "vision_config"))
    if not isinstance(text, dict) or not isinstance(vision, dict):
        raise InputError(f"{source}: no llm_config, or no vision_config; download config.json again")
    kind = text.get("model_type")
    if kind not in TEXT_MODELS:
        raise InputError(
            f"{source}: llm_config.model_type: found {json.dumps(kind)[:80]}, expected {' or '.join(TEXT_MODELS)}; "
            "take a release whose language model is Qwen2 or Qwen3 (InternVL2.5 and 3 of 1B, 4B, 38B and 78B, or "
            "InternVL3 of 2B, 8B and 14B), or one in transformers' format"
        )
    for key, expected, default in (
        ("select_layer", -1, -1),
        ("ps_version", "v2", "v1"),
        ("use_backbone_lora", 0, 0),
        ("use_llm_lora", 0, 0),
        ("use_thumbnail", True, False),
    ):
        if config.get(key, default) != expected:
            raise InputError(
                f"{source}: {key}: found {json.dumps(config.get(key, default))[:80]}, which transformers' InternVL "
                f"does not have; only {json.dumps(expected)} can be converted"
            )
    if image_token is None:
        raise InputError(f"{source}: the tokenizer beside it has no <IMG_CONTEXT>; take all files from one checkpoint")
    ratio = config.get("downsample_ratio", 0.5)
    tied = bool(text.get("tie_word_embeddings", False))
    seen = VISION_DEFAULTS | vision
    try:
        made = transformers.InternVLConfig(
            text_config=_text(text, tied),
            vision_config={new: seen[old] for old, new in VISION_KEYS.items() if seen.get(old) is not None},
            image_token_id=image_token,
            downsample_ratio=ratio,
            tie_word_embeddings=tied,
        )
        sides = [int(s) // int(p) for s, p in zip(_pair(made, "image_size"), _pair(made, "patch_size"), strict=True)]
        made.image_seq_length = round(sides[0] * ratio) * round(sides[1] * ratio)
    except Exception as error:  # whatever transformers makes of odd values
        raise InputError(f"{source}: describes no model ({error})") from None
    made.architectures = ["InternVLForConditionalGeneration"]
    made.dtype = text.get("torch_dtype") or config.get("torch_dtype")
    return made


def _text(text: dict[str, Any], tied: bool) -> dict[str, Any]:
    rope = {"rope_type": "default"} | {k: v for k, v in (text.get("rope_scaling") or {}).items() if k != "type"}
    if "type" in (text.get("rope_scaling") or {}):  # the older name
        rope["rope_type"] = text["rope_scaling"].get("rope_type", text["rope_scaling"]["type"])
    rope["rope_theta"] = text.get("rope_theta", 1e4)
    kept = {key: text[key] for key in TEXT_KEYS if text.get(key) is not None}
    return kept | {"model_type": text["model_type"], "rope_parameters": rope, "tie_word_embeddings": tied}


def _pair(made: Any, key: str) -> Any:
    return getattr(made.vision_config, key)


def new_weights(name: str, tensor: torch.Tensor, source: str, tied: bool) -> dict[str, torch.Tensor]:
    """A weight of OpenGVLab's by the name that transformers has for it; three of one that holds queries, keys and
    values; none of a head that is the embeddings. Raises InputError for a name that is none of theirs."""
    if match := re.fullmatch(r"vision_model\.embeddings\.(.+)", name):
        if inner := EMBEDDINGS.get(match[1]):
            return {f"{TOWER}embeddings.{inner}": tensor}
    elif match := re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.attn\.qkv\.(weight|bias)", name):
        parts = zip("qkv", tensor.chunk(3), strict=True)
        layer = f"{TOWER}encoder.layer.{match[1]}.attention"
        return {f"{layer}.{which}_proj.{match[2]}": part.contiguous() for which, part in parts}
    elif match := re.fullmatch(r"vision_model\.encoder\.layers\.(\d+)\.(.+?)(\.weight|\.bias|)", name):
        if inner := LAYER.get(match[2]):
            return {f"{TOWER}encoder.layer.{match[1]}.{inner}{match[3]}": tensor}
    elif match := re.fullmatch(r"mlp1\.(\d)\.(weight|bias)", name):
        if inner := PROJECTIONS.get(match[1]):
            return {f"{PROJECTOR}{inner}.{match[2]}": tensor}
    elif name == "language_model.lm_head.weight":
        return {} if tied else {"lm_head.weight": tensor}
    elif match := re.fullmatch(r"language_model\.model\.(.+)", name):
        return {TEXT + match[1]: tensor}
    raise InputError(f"{source}: holds {name}, which is no weight of OpenGVLab's InternVL; download it again")
