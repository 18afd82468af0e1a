"""A tiny Qwen3-VL checkpoint folder that loads like any real one, made without a network.

    make_tiny_checkpoint("checkpoint")                          # about 1 M parameters, for the demo
    make_tiny_checkpoint(folder, layers=2, hidden=32, heads=2)  # smaller still, for tests

Random weights, but a whole checkpoint: config, safetensors, a byte-pair tokenizer with Qwen2's normalisation, split
pattern and control tokens, a ChatML template that takes pictures and videos, and both processor files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dhp.demo.table import captions

# Qwen2's control tokens, in Qwen's order; ids follow the byte-pair vocabulary, as there.
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Turns are <|im_start|>role\n…<|im_end|>\n; content is text, or a list of parts of type text, image and video.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part['type'] == 'video' -%}
{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- else -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the checkpoint. The defaults are the demo's."""

    layers: int = 4
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32  # a multiple of 8, for the M-RoPE sections
    intermediate: int = 256
    vision_layers: int = 4
    vision_hidden: int = 64
    vision_heads: int = 4
    vision_intermediate: int = 128
    deepstack: tuple[int, ...] = (0, 1, 2)  # vision layers whose output also enters the first text layers
    vision_positions: int = 256  # learned positions, a square number; interpolated to the grid
    vocabulary: int = 1024  # byte pairs and control tokens together
    tied: bool = True
    rope_theta: float = 1e4
    image_min_pixels: int = 4 * 32 * 32  # 4 tokens
    image_max_pixels: int = 320 * 32 * 32  # 320 tokens
    video_min_pixels: int = 4 * 4 * 32 * 32  # frames x height x width
    video_max_pixels: int = 2 * 1600 * 32 * 32  # 1,600 tokens
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 64

    def mrope_sections(self) -> list[int]:
        """Time, height, width. Half the head dimension in all, in the proportion of Qwen3-VL's 24:20:20 as nearly as
        interleaving allows; a height or width section must stay below a third of it."""
        half = self.head_dim // 2
        side = half // 4
        return [half - 2 * side, side, side]


def make_tiny_checkpoint(
    folder: str | os.PathLike[str], *, seed: int = 0, dtype: str = "float32", **overrides: Any
) -> Path:
    """Writes the checkpoint folder and returns it. `overrides` are fields of TinyShape; dtype is the weights'."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    shape = replace(TinyShape(), **overrides)
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(root, shape.vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(_config(shape, ids))
        _save(model.to(getattr(torch, dtype)), root)
    _write_json(root / "preprocessor_config.json", _image_processor(shape))
    _write_json(root / "video_preprocessor_config.json", _video_processor(shape))
    return root


def _save(model: Any, root: Path) -> None:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(root)
    finally:
        if shown:
            logging.enable_progress_bar()
    (root / "model.safetensors").chmod(0o644)


def _config(shape: TinyShape, ids: dict[str, int]) -> Any:
    from transformers import Qwen3VLConfig

    text = {
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
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    vision = {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_intermediate,
        "num_heads": shape.vision_heads,
        "out_hidden_size": shape.hidden,
        "num_position_embeddings": shape.vision_positions,
        "deepstack_visual_indexes": list(shape.deepstack),
    }
    return Qwen3VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=shape.tied,
    )


def _write_tokenizer(root: Path, vocabulary: int) -> dict[str, int]:
    """Trains a byte-pair tokenizer on the demo's captions; returns all ids by token.

    Normaliser and split pattern are taken from transformers' Qwen2Tokenizer, because that is what loads the file and
    applies them whatever the file says.
    """
    from tokenizers import AddedToken, Tokenizer, models, trainers
    from transformers import Qwen2Tokenizer

    like: Any = Qwen2Tokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = like.normalizer
    tokenizer.pre_tokenizer = like.pre_tokenizer
    tokenizer.decoder = like.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(CONTROL_TOKENS),
        min_frequency=2,
        show_progress=False,
        initial_alphabet=_byte_alphabet(),
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    tokenizer.save(str(root / "tokenizer.json"))
    ids = dict(tokenizer.get_vocab(with_added_tokens=True))
    _write_json(
        root / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "bos_token": None,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "model_max_length": 32768,
            "extra_special_tokens": list(CONTROL_TOKENS),
            "added_tokens_decoder": {
                str(ids[token]): {
                    "content": token,
                    "special": True,
                    "normalized": False,
                    "lstrip": False,
                    "rstrip": False,
                    "single_word": False,
                }
                for token in CONTROL_TOKENS
            },
            "chat_template": CHAT_TEMPLATE,
        },
    )
    return ids


def _byte_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _corpus() -> Iterable[str]:
    """Captions and questions of the demo, and the words the templates add."""
    yield from captions()
    yield from ["system\n", "user\n", "assistant\n"] * 8
    yield from (f"<{tenth / 10:.1f} seconds>" for tenth in range(100))


def _image_processor(shape: TinyShape) -> dict[str, Any]:
    return {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": shape.image_min_pixels, "longest_edge": shape.image_max_pixels},
        **_common(),
    }


def _video_processor(shape: TinyShape) -> dict[str, Any]:
    return {
        "video_processor_type": "Qwen3VLVideoProcessor",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": shape.video_min_pixels, "longest_edge": shape.video_max_pixels},
        "fps": shape.fps,
        "min_frames": shape.min_frames,
        "max_frames": shape.max_frames,
        "do_sample_frames": True,
        "cap_pixels_per_frame": False,
        **_common(),
    }


def _common() -> dict[str, Any]:
    return {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
