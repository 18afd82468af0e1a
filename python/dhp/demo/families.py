"""What tiny checkpoints of the families differ in: config, processor files, chat template."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dhp.data.made_folder import INTERNVL_NAMED, PROCESSING, internvl_processor

if TYPE_CHECKING:
    from dhp.demo.checkpoint import TinyShape

Values = dict[str, Any]
# What a template writes for a picture and for a clip.
QWEN_MARKS = ("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")
GLM_MARKS = (
    "<|begin_of_image|><|image|><|end_of_image|>",
    "<|begin_of_video|><|video|><|end_of_video|>",
)
GLM_TOKENS = (
    "<|image|>",
    "<|video|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)
OMNI_MARKS = ("<|vision_bos|><|IMAGE|><|vision_eos|>", "<|vision_bos|><|VIDEO|><|vision_eos|>")
OMNI_SOUND = "<|audio_bos|><|AUDIO|><|audio_eos|>"
OMNI_NAMED = {
    "image_token": "<|IMAGE|>",
    "video_token": "<|VIDEO|>",
    "audio_token": "<|AUDIO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
INTERNVL_MARKS = ("<IMG_CONTEXT>\\n", "<video>\\n")


@dataclass(frozen=True)
class TinyFamily:
    """`config` and `model` are names of classes of transformers. `settings`: of the config, from the shape, the ids of
    the tokens and the settings of the language model. `image`, `video`: the processor files; none: text alone. `both`:
    what the processor of pictures, clips and text is told beside them."""

    config: str
    model: str
    settings: Callable[[TinyShape, dict[str, int], Values], Values]
    image: Callable[[TinyShape], Values] | None = None
    video: Callable[[TinyShape], Values] | None = None
    both: Callable[[TinyShape], Values] | None = None
    marks: tuple[str, str] = QWEN_MARKS
    tokens: tuple[str, ...] = ()  # beside Qwen's
    named: dict[str, str] = field(default_factory=dict)  # those of them that its processor asks for by a name
    sound: str = ""  # what a template writes for a sound, of a model that hears
    demo: bool = True  # whether the demo's samples suit it
    words: tuple[str, ...] = ()  # that the tokenizer should know, as released ones do


def text_settings(shape: TinyShape, ids: dict[str, int]) -> Values:
    return {
        "vocab_size": -(-len(ids) // 64) * 64,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": 32768,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": shape.rope_theta,
            "mrope_section": shape.mrope_sections(),
            "mrope_interleaved": True,
        },
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }


def _qwen_ids(ids: dict[str, int]) -> Values:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _qwen_config(shape: TinyShape, ids: dict[str, int], text: Values, vision: Values) -> Values:
    return {"text_config": text, "vision_config": vision, **_qwen_ids(ids), "tie_word_embeddings": shape.tied}


def _qwen3_vl(shape: TinyShape, ids: dict[str, int], text: Values) -> Values:
    vision = {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_intermediate,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        "num_position_embeddings": shape.vision_positions,
        "deepstack_visual_indexes": list(shape.deepstack),
    }
    return _qwen_config(shape, ids, text, vision)


def _plain_rope(shape: TinyShape, text: Values) -> Values:
    """Sections one behind the other, as before Qwen3-VL, and heads that share the hidden width."""
    half = shape.hidden // shape.heads // 2
    sections = [half - 2 * (half // 4), half // 4, half // 4]
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta, "mrope_section": sections}
    return {key: value for key, value in text.items() if key != "head_dim"} | {"rope_parameters": rope}


def _qwen2_5_vl(shape: TinyShape, ids: dict[str, int], text: Values) -> Values:
    vision = {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_intermediate,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        "window_size": 112,
        "fullatt_block_indexes": [shape.vision_layers - 1],
    }
    return _qwen_config(shape, ids, _plain_rope(shape, text), vision)


def _qwen2_5_omni(shape: TinyShape, ids: dict[str, int], text: Values) -> Values:
    audio = {
        "num_mel_bins": 16,
        "encoder_layers": shape.vision_layers,
        "encoder_attention_heads": shape.vision_heads,
        "encoder_ffn_dim": shape.vision_intermediate,
        "d_model": shape.vision_hidden,
        "n_window": 20,
        "output_dim": shape.hidden,
        "max_source_positions": 100,
    }
    names = ("image", "video", "audio", "vision_start", "vision_end", "audio_start", "audio_end")
    marks = {f"{name}_token_id": ids[token] for name, token in zip(names, OMNI_NAMED.values(), strict=True)}
    marks |= {f"{name}_token_index": marks.pop(f"{name}_token_id") for name in ("image", "video", "audio")}
    like = {key: value for key, value in _qwen2_5_vl(shape, ids, text).items() if not key.endswith("_token_id")}
    return like | {"audio_config": audio, "user_token_id": ids["<|im_start|>"]} | marks


def _qwen2_vl(shape: TinyShape, ids: dict[str, int], text: Values) -> Values:
    vision = {
        "depth": shape.vision_layers,
        "embed_dim": shape.vision_hidden,
        "mlp_ratio": shape.vision_intermediate // shape.vision_hidden,
        "num_heads": shape.vision_heads,
        "hidden_size": shape.hidden,
    }
    return _qwen_config(shape, ids, _plain_rope(shape, text), vision)


def _glm4v(shape: TinyShape, ids: dict[str, int], text: Values) -> Values:
    vision = {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_intermediate,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
    }
    text = _plain_rope(shape, text)
    text["rope_parameters"]["partial_rotary_factor"] = 1.0
    names = ("image", "video", "image_start", "image_end", "video_start", "video_end")
    marks = {f"{name}_token_id": ids[token] for name, token in zip(names, GLM_TOKENS, strict=True)}
    return {"text_config": text, "vision_config": vision, **marks, "tie_word_embeddings": shape.tied}


def _internvl(shape: TinyShape, ids: dict[str, int], text: Values) -> Values:
    vision = {
        "hidden_size": shape.vision_hidden,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.vision_heads,
        "intermediate_size": shape.vision_intermediate,
        "image_size": [shape.tile, shape.tile],
        "patch_size": [14, 14],
    }
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    text = {key: value for key, value in text.items() if key != "head_dim"}
    return {
        "text_config": text | {"model_type": "qwen2", "rope_parameters": rope},
        "vision_config": vision,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": _tile_tokens(shape),
        "downsample_ratio": 0.5,
        "tie_word_embeddings": shape.tied,
    }


def _qwen3(shape: TinyShape, ids: dict[str, int], text: Values) -> Values:
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    return text | {"rope_parameters": rope, "tie_word_embeddings": shape.tied}


def _qwen_images(shape: TinyShape) -> Values:
    return {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": shape.image_min_pixels, "longest_edge": shape.image_max_pixels},
        **_common(16),
    }


def _qwen3_videos(shape: TinyShape) -> Values:
    return {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": shape.video_min_pixels, "longest_edge": shape.video_max_pixels},
        "fps": shape.fps,
        "min_frames": shape.min_frames,
        "max_frames": shape.max_frames,
        "do_sample_frames": True,
        "cap_pixels_per_frame": False,
        **_common(16),
    }


def _qwen2_images(shape: TinyShape) -> Values:
    """As many tokens a picture as Qwen3-VL's."""
    size = {"shortest_edge": _of_28(shape.image_min_pixels), "longest_edge": _of_28(shape.image_max_pixels)}
    return _qwen_images(shape) | {"processor_class": "Qwen2_5_VLProcessor", "size": size, "patch_size": 14}


def _qwen2_videos(shape: TinyShape) -> Values:
    """Limits are those of a frame: 4 to 32 tokens a pair."""
    return _qwen3_videos(shape) | {
        "video_processor_type": "Qwen2VLVideoProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 32 * 28 * 28},
        "patch_size": 14,
    }


def _glm_images(shape: TinyShape) -> Values:
    """Limits are those of a temporal patch: two pictures."""
    size = {key: 2 * pixels for key, pixels in _qwen2_images(shape)["size"].items()}
    kinds = {"image_processor_type": "Glm4vImageProcessor", "processor_class": "Glm4vProcessor"}
    return _qwen2_images(shape) | kinds | {"size": size}


def _glm_videos(shape: TinyShape) -> Values:
    size = {"shortest_edge": _of_28(shape.video_min_pixels), "longest_edge": _of_28(shape.video_max_pixels)}
    kinds = {"video_processor_type": "Glm4vVideoProcessor", "processor_class": "Glm4vProcessor"}
    return _qwen2_videos(shape) | kinds | {"size": size}


def _omni_pictures_and_sounds(shape: TinyShape) -> Values:
    """One file for both, as released."""
    sounds = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16, "chunk_length": 30}
    rates = {"sampling_rate": 16000, "hop_length": 160, "n_fft": 400, "padding_value": 0.0}
    return _qwen2_images(shape) | sounds | rates | {"processor_class": "Qwen2_5OmniProcessor"}


def _of_28(pixels: int) -> int:
    """As many tokens where a token's side is 28 pixels instead of 32."""
    return pixels // 32**2 * 28**2


def _tiles(shape: TinyShape) -> Values:
    return {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "processor_class": "InternVLProcessor",
        "crop_to_patches": True,
        "min_patches": 1,
        "max_patches": shape.max_tiles,
        **_tile_common(shape),
    }


def _tile_videos(shape: TinyShape) -> Values:
    return {
        "video_processor_type": "InternVLVideoProcessor",
        "processor_class": "InternVLProcessor",
        "do_sample_frames": True,
        "fps": shape.fps,
        **_tile_common(shape),
    }


def _tile_tokens(shape: TinyShape) -> int:
    return (shape.tile // 14 // 2) ** 2


def _tile_common(shape: TinyShape) -> Values:
    common = {key: value for key, value in _common(14).items() if not key.endswith("_size")}
    return common | {"size": {"height": shape.tile, "width": shape.tile}}


def _common(patch: int) -> Values:
    return {
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        **PROCESSING,
    }


TINY_FAMILIES = {
    "qwen3_vl": TinyFamily("Qwen3VLConfig", "Qwen3VLForConditionalGeneration", _qwen3_vl, _qwen_images, _qwen3_videos),
    "qwen2_5_vl": TinyFamily(
        "Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration", _qwen2_5_vl, _qwen2_images, _qwen2_videos
    ),
    "qwen2_vl": TinyFamily("Qwen2VLConfig", "Qwen2VLForConditionalGeneration", _qwen2_vl, _qwen2_images, _qwen2_videos),
    "qwen2_5_omni_thinker": TinyFamily(
        "Qwen2_5OmniThinkerConfig",
        "Qwen2_5OmniThinkerForConditionalGeneration",
        _qwen2_5_omni,
        _omni_pictures_and_sounds,
        _qwen2_videos,
        marks=OMNI_MARKS,
        tokens=tuple(OMNI_NAMED.values()),
        named=OMNI_NAMED,
        sound=OMNI_SOUND,
        demo=False,  # too many tokens a frame
    ),
    "internvl": TinyFamily(
        "InternVLConfig",
        "InternVLForConditionalGeneration",
        _internvl,
        _tiles,
        _tile_videos,
        lambda shape: internvl_processor(_tile_tokens(shape)),
        marks=INTERNVL_MARKS,
        tokens=tuple(INTERNVL_NAMED.values()),
        named=INTERNVL_NAMED,
        words=tuple(f"Frame{number}: " for number in range(100)),
    ),
    "glm4v": TinyFamily(
        "Glm4vConfig",
        "Glm4vForConditionalGeneration",
        _glm4v,
        _glm_images,
        _glm_videos,
        marks=GLM_MARKS,
        tokens=GLM_TOKENS,
        demo=False,  # its samples ask for numbers of frames, and GLM-4V goes by time
    ),
    "qwen3": TinyFamily("Qwen3Config", "Qwen3ForCausalLM", _qwen3),
}
