"""A tiny checkpoint folder that loads like any real one, made without a network.

    make_tiny_checkpoint("checkpoint")                          # Qwen3-VL, about 1 M parameters, for the demo
    make_tiny_checkpoint("checkpoint", family="internvl")       # a key of families.TINY_FAMILIES
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

from dhp.data.made_folder import chatml
from dhp.demo.families import TINY_FAMILIES, TinyFamily, text_settings
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


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the checkpoint. The defaults are the demo's."""

    family: str = "qwen3_vl"
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
    tile: int = 112  # pixels, of InternVL's: 16 tokens
    max_tiles: int = 6

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
    import transformers

    shape = replace(TinyShape(), **overrides)
    family = TINY_FAMILIES[shape.family]
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    ids = _write_tokenizer(root, shape.vocabulary, family)
    settings = family.settings(shape, ids, text_settings(shape, ids))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, family.model)(getattr(transformers, family.config)(**settings))
        _save(model.to(getattr(torch, dtype)), root)
    if family.image and family.video:
        _write_json(root / "preprocessor_config.json", family.image(shape))
        _write_json(root / "video_preprocessor_config.json", family.video(shape))
    if family.both:
        _write_json(root / "processor_config.json", family.both(shape))
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


def _write_tokenizer(root: Path, vocabulary: int, family: TinyFamily) -> dict[str, int]:
    """Trains a byte-pair tokenizer on the demo's captions; returns all ids by token.

    Normaliser and split pattern are taken from transformers' Qwen2Tokenizer, because that is what loads the file and
    applies them whatever the file says.
    """
    from tokenizers import AddedToken, Tokenizer, models, trainers
    from transformers import Qwen2Tokenizer

    control = CONTROL_TOKENS + family.tokens
    like: Any = Qwen2Tokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = like.normalizer
    tokenizer.pre_tokenizer = like.pre_tokenizer
    tokenizer.decoder = like.decoder
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(control),
        min_frequency=2,
        show_progress=False,
        initial_alphabet=_byte_alphabet(),
    )
    tokenizer.train_from_iterator([*_corpus(), *family.words], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
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
            "extra_special_tokens": family.named or list(control),
            "added_tokens_decoder": {
                str(ids[token]): {
                    "content": token,
                    "special": True,
                    "normalized": False,
                    "lstrip": False,
                    "rstrip": False,
                    "single_word": False,
                }
                for token in control
            },
        },
    )
    (root / "chat_template.jinja").write_text(_template(family), encoding="utf-8")
    return ids


def _template(family: TinyFamily) -> str:
    picture, clip = family.marks
    template = chatml(picture, clip)
    if family.sound:
        other = "{%- else -%}\n{{- part['text'] -}}"
        template = template.replace(
            other, f"{{%- elif part['type'] == 'audio' -%}}\n{{{{- '{family.sound}' -}}}}\n{other}"
        )
    return template


def _byte_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _corpus() -> Iterable[str]:
    """Captions and questions of the demo, and the words the templates add."""
    yield from captions()
    yield from ["system\n", "user\n", "assistant\n"] * 8
    yield from (f"<{tenth / 10:.1f} seconds>" for tenth in range(100))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
