"""A small model of the same kind: every kind of layer and every switch of a config, few layers and narrow widths."""

from __future__ import annotations

import copy
from typing import Any

HIDDEN, VISION_HIDDEN, HEAD_DIM, HEADS, PATCH, VOCABULARY = 64, 32, 16, 4, 4, 256
MOST_LAYERS = 4
# Of the language model. What a config does not have stays away.
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_attention_heads": HEADS,
    "head_dim": HEAD_DIM,
    "vocab_size": VOCABULARY,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": HEAD_DIM,
    "qk_nope_head_dim": HEAD_DIM,
    "qk_head_dim": 2 * HEAD_DIM,
    "v_head_dim": HEAD_DIM,
    "sliding_window": 16,
    "mlp_only_layers": [],
}
# Of the encoder of pictures.
VISION = {
    "hidden_size": VISION_HIDDEN,
    "embed_dim": VISION_HIDDEN,
    "out_hidden_size": HIDDEN,
    "intermediate_size": 48,
    "mlp_ratio": 2,
    "num_heads": 2,
    "num_attention_heads": 2,
    "head_dim": VISION_HIDDEN // 2,
    "num_position_embeddings": 64,
    "window_size": 4 * PATCH,
}
# Of the encoder of sounds.
AUDIO = {
    "d_model": VISION_HIDDEN,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 8,
    "n_window": 8,
    "output_dim": HIDDEN,
}


def shrunk(config: Any) -> Any:
    """A copy of a transformers config, of a model with some 100,000 parameters."""
    small = copy.deepcopy(config)
    text, vision = small.get_text_config(), getattr(small, "vision_config", None)
    _shrink_text(text, has_sections=getattr(vision, "spatial_merge_size", None) is not None)
    if vision is not None:
        _shrink_vision(small, vision, text)
    if getattr(small, "audio_config", None) is not None:
        _set(small.audio_config, AUDIO)
    parts = {id(part): part for part in (small, text, vision) if part is not None}  # of text alone, the whole is text
    _renumber_tokens(list(parts.values()))
    return small


def _set(config: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if getattr(config, key, None) is not None:
            setattr(config, key, value)


def _shrink_text(text: Any, has_sections: bool) -> None:
    """`has_sections`: positions have three dimensions, even where the config leaves sections to the model's code."""
    heads, kv_heads = text.num_attention_heads, getattr(text, "num_key_value_heads", None)
    if kv_heads is not None:
        text.num_key_value_heads = HEADS if kv_heads == heads else 1 if kv_heads == 1 else HEADS // 2
    kinds = list(dict.fromkeys(getattr(text, "layer_types", None) or []))
    text.num_hidden_layers = min(MOST_LAYERS, max(3, len(kinds)))
    if kinds:
        text.layer_types = [kinds[i % len(kinds)] for i in range(text.num_hidden_layers)]
    if getattr(text, "first_k_dense_replace", None):
        text.first_k_dense_replace = 1
    _set(text, TEXT)
    rope = getattr(text, "rope_parameters", None)
    if isinstance(rope, dict) and (has_sections or "mrope_section" in rope):
        half = int(HEAD_DIM * rope.get("partial_rotary_factor", 1.0)) // 2
        side = half // 4
        rope["mrope_section"] = [half - 2 * side, side, side]
    if isinstance(rope, dict) and rope.get("rope_type") in ("dynamic", "longrope"):
        text.max_position_embeddings = 16  # so that made-up samples are longer
        if "original_max_position_embeddings" in rope:
            rope["original_max_position_embeddings"] = 16


def _shrink_vision(whole: Any, vision: Any, text: Any) -> None:
    side = getattr(vision, "image_size", None)
    tiles = 2 * getattr(whole, "scale_factor", 2)  # patches along a tile's side
    for key, layers in (("depth", 3), ("num_hidden_layers", 2)):
        if getattr(vision, key, None):
            setattr(vision, key, layers)
    own = dict(VISION)
    if getattr(vision, "embed_dim", None) is not None and getattr(vision, "out_hidden_size", None) is None:
        own["hidden_size"] = HIDDEN  # Qwen2-VL: of the language model
    _set(vision, own)
    vision.patch_size = [PATCH, PATCH] if isinstance(vision.patch_size, (list, tuple)) else PATCH
    if side is not None:
        pixels = tiles * PATCH if vision.model_type != "pixtral" else 16 * PATCH
        vision.image_size = [pixels, pixels] if isinstance(side, (list, tuple)) else pixels
        if getattr(whole, "image_grid_pinpoints", None):  # sizes in tiles
            whole.image_grid_pinpoints = [[pixels * n // side for n in size] for size in whole.image_grid_pinpoints]
    if getattr(vision, "deepstack_visual_indexes", None):
        vision.deepstack_visual_indexes = [0, 1]
    if getattr(vision, "fullatt_block_indexes", None) is not None:
        vision.fullatt_block_indexes = [1]
    if hasattr(whole, "image_seq_length") and hasattr(whole, "downsample_ratio"):
        whole.image_seq_length = round((tiles * whole.downsample_ratio) ** 2)


def _renumber_tokens(configs: list[Any]) -> None:
    """Tokens with a meaning get the last ids of the small vocabulary, the same ones the same."""
    keys = [
        (config, key)
        for config in configs
        for key in vars(config)
        if key.endswith(("_token_id", "_token_index")) and type(getattr(config, key)) is int
    ]
    numbers = sorted({getattr(config, key) for config, key in keys})
    small = {number: VOCABULARY - 1 - place for place, number in enumerate(numbers)}
    for config, key in keys:
        setattr(config, key, small[getattr(config, key)])


def described(config: Any, small: Any) -> str:
    """What was made of what."""
    text, now = config.get_text_config(), small.get_text_config()
    layers = f"{now.num_hidden_layers} text layers of {text.num_hidden_layers}"
    return f"{config.model_type}, {layers}, {now.hidden_size} wide instead of {text.hidden_size:,}"


__all__ = ["described", "shrunk"]
