"""Tiny random models of every family, with no weight at an accidental zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as tf

TEXT = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
IDS = {"image_token_id": 110, "video_token_id": 111, "vision_start_token_id": 112, "vision_end_token_id": 113}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
VIT = {"depth": 3, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4}
VISION_3 = VIT | {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
TEXT_3 = TEXT | {"head_dim": 16, "rope_parameters": ROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True}}
ROUTED = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}


def internvl(text: dict[str, Any], hidden: int = 16, intermediate: int = 24, layers: int = 2) -> Any:
    vision = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": intermediate,
        "image_size": [16, 16],
        "patch_size": [4, 4],
        "norm_type": "layer_norm",
    }
    sizes = {"image_token_id": 110, "image_seq_length": 4, "downsample_ratio": 0.5}
    return tf.InternVLForConditionalGeneration(tf.InternVLConfig(vision_config=vision, text_config=text, **sizes))


def qwen2_vl() -> Any:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    text = TEXT | {"rope_parameters": ROPE}
    return tf.Qwen2VLForConditionalGeneration(tf.Qwen2VLConfig(text_config=text, vision_config=vision, **IDS))


def qwen2_5_vl() -> Any:
    vision = VIT | {"window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    text = TEXT | {"rope_parameters": ROPE}
    return tf.Qwen2_5_VLForConditionalGeneration(tf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **IDS))


def qwen2_5_omni() -> Any:
    audio = {
        "num_mel_bins": 8,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "d_model": 16,
        "n_window": 8,
        "output_dim": 32,
        "max_source_positions": 64,
    }
    marks = {"audio_start_token_id": 114, "audio_end_token_id": 115, "user_token_id": 3}
    marks |= {"vision_start_token_id": 112, "vision_end_token_id": 113}
    ids = {"image_token_index": 110, "video_token_index": 111, "audio_token_index": 116} | marks
    vision = VIT | {"window_size": 16, "fullatt_block_indexes": [1]}
    config = tf.Qwen2_5OmniThinkerConfig(
        text_config=TEXT | {"rope_parameters": ROPE}, vision_config=vision, audio_config=audio, **ids
    )
    return tf.Qwen2_5OmniThinkerForConditionalGeneration(config)


def qwen3_vl() -> Any:
    return tf.Qwen3VLForConditionalGeneration(tf.Qwen3VLConfig(text_config=TEXT_3, vision_config=VISION_3, **IDS))


def qwen3_vl_moe() -> Any:
    text = TEXT_3 | EXPERTS | {"decoder_sparse_step": 1, "router_aux_loss_coef": 0.1, "output_router_logits": True}
    config = tf.Qwen3VLMoeConfig(text_config=text, vision_config=VISION_3, **IDS)
    config.text_config.output_router_logits = True
    return tf.Qwen3VLMoeForConditionalGeneration(config)


def llama(**rope: Any) -> Any:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT | rope))


def qwen3_moe() -> Any:
    asks = {"router_aux_loss_coef": 0.1, "output_router_logits": True}
    return tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**TEXT | EXPERTS | asks, head_dim=8))


def glm4v(experts: bool = False) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0}
    vision = VIT | {"depth": 2, "image_size": 32, "in_channels": 3}
    marks = {
        "image_start_token_id": 112,
        "image_end_token_id": 113,
        "video_start_token_id": 114,
        "video_end_token_id": 115,
    }
    ids = {"image_token_id": 110, "video_token_id": 111} | marks
    if not experts:
        config = tf.Glm4vConfig(text_config=TEXT | {"rope_parameters": rope}, vision_config=vision, **ids)
        return tf.Glm4vForConditionalGeneration(config)
    text = TEXT | {"rope_parameters": rope} | ROUTED
    return tf.Glm4vMoeForConditionalGeneration(tf.Glm4vMoeConfig(text_config=text, vision_config=vision, **ids))


def deepseek_v3() -> Any:
    mla = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}
    config = tf.DeepseekV3Config(**TEXT | ROUTED | mla | {"num_key_value_heads": 4})
    return tf.DeepseekV3ForCausalLM(config)


SIGLIP = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 4,
}


def llava() -> Any:
    vision = SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False}
    taken = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full", "image_token_index": 110}
    config = tf.LlavaConfig(
        text_config=TEXT | {"model_type": "llama"}, vision_config=vision, image_token_id=110, **taken
    )
    return tf.LlavaForConditionalGeneration(config)


def llava_onevision() -> Any:
    vision = SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False}
    tiles = [[16 * down, 16 * across] for down in (1, 2, 3) for across in (1, 2, 3)]
    config = tf.LlavaOnevisionConfig(
        text_config=TEXT | {"model_type": "qwen2"},
        vision_config=vision,
        image_token_index=110,
        video_token_index=111,
        image_grid_pinpoints=tiles,
        vision_aspect_ratio="anyres_max_2",  # so that large pictures are made smaller
    )
    return tf.LlavaOnevisionForConditionalGeneration(config)


def idefics3(name: str = "Idefics3") -> Any:
    config = getattr(tf, f"{name}Config")(
        text_config=TEXT | {"model_type": "llama"}, vision_config=dict(SIGLIP), image_token_id=110, scale_factor=2
    )
    return getattr(tf, f"{name}ForConditionalGeneration")(config)


def mistral3() -> Any:
    text = TEXT | {"model_type": "mistral", "sliding_window": None, "head_dim": 8}
    vision = SIGLIP | {"model_type": "pixtral", "image_size": 32, "head_dim": 8}
    ids = {"image_token_index": 110, "image_token_id": 110}
    config = tf.Mistral3Config(
        text_config=text, vision_config=vision, spatial_merge_size=2, vision_feature_layer=-1, **ids
    )
    return tf.Mistral3ForConditionalGeneration(config)


DYNAMIC = {"max_position_embeddings": 16, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}

MODELS: dict[str, Callable[[], Any]] = {
    "internvl with qwen2": lambda: internvl(TEXT | {"model_type": "qwen2"}),
    "internvl with qwen3": lambda: internvl(TEXT | {"model_type": "qwen3", "head_dim": 8}),
    "glm4v": glm4v,
    "glm4v_moe": lambda: glm4v(experts=True),
    "llava": llava,
    "llava_onevision": llava_onevision,
    "idefics3": idefics3,
    "smolvlm": lambda: idefics3("SmolVLM"),
    "mistral3": mistral3,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl_moe,
    "llama": llama,
    "llama with dynamic rope": lambda: llama(**DYNAMIC),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**TEXT)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**TEXT, head_dim=8)),
    "qwen3_moe": qwen3_moe,
    "deepseek_v3": deepseek_v3,
}
OMNI = "qwen2_5_omni_thinker"
if hasattr(tf, "Qwen2_5OmniThinkerModel"):  # since transformers 5.23
    MODELS[OMNI] = qwen2_5_omni


def make(name: str, dtype: torch.dtype) -> Any:
    """The model in training mode, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = MODELS[name]().to(dtype).train()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1 or parameter.std() < 1e-3:
                    parameter.add_(0.05 * torch.randn_like(parameter))
    if "moe" in name or name.startswith("deepseek"):
        model.set_experts_implementation("eager")  # the other ones have no fp64
    return model
