"""Whether the files of a checkpoint folder are whole, and of one checkpoint: tokenizer, processor and config.json.

transformers loads a folder without its tokenizer's vocabulary, or with another model's processor, without a word.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dhp._core import internvl, qwen_vl
from dhp.base.json_file import pointer_problem
from dhp.data import processor
from dhp.data.decoding import borrowed
from dhp.data.decoding.borrowed import Borrowed
from dhp.data.errors import DataError

# Token of the tokenizer, key of config.json, its default in transformers' configs.
_QWEN_TOKENS = (
    ("<|image_pad|>", "image_token_id", 151655),
    ("<|video_pad|>", "video_token_id", 151656),
    ("<|vision_start|>", "vision_start_token_id", 151652),
    ("<|vision_end|>", "vision_end_token_id", 151653),
)
_GLM_TOKENS = (
    ("<|image|>", "image_token_id", 151343),
    ("<|video|>", "video_token_id", 151344),
    ("<|begin_of_image|>", "image_start_token_id", 151339),
    ("<|end_of_image|>", "image_end_token_id", 151340),
    ("<|begin_of_video|>", "video_start_token_id", 151341),
    ("<|end_of_video|>", "video_end_token_id", 151342),
)
_OMNI_TOKENS = (
    ("<|IMAGE|>", "image_token_id", 151655),
    ("<|VIDEO|>", "video_token_id", 151656),
    ("<|AUDIO|>", "audio_token_id", 151646),
    ("<|vision_bos|>", "vision_start_token_id", 151652),
    ("<|vision_eos|>", "vision_end_token_id", 151653),
    ("<|audio_bos|>", "audio_start_token_id", 151647),
    ("<|audio_eos|>", "audio_end_token_id", 151648),
)
_INTERNVL_TOKENS = (("<IMG_CONTEXT>", "image_token_id", 151667),)
_DEFAULT_VOCABULARY = 151936
_REMEDY = "take all files from one checkpoint"


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raises DataError, which names file, value and remedy."""
    found = processor.load_processor(folder)
    root = Path(folder)
    config = processor.model_config(root)
    tokens: tuple[tuple[str, str, int], ...] = ()
    if isinstance(found.rules, Borrowed):
        tokens = ((borrowed.image_token(found.rules), "image_token_id", -1),)
        if found.rules.family in borrowed.WHOLE:
            clip = borrowed.video_token(found.rules)
            tokens += ((clip, "video_token_id", -1),)
    elif isinstance(found.rules, internvl.Rules):
        _check_tiles(root, config, found.rules)
        tokens = _INTERNVL_TOKENS
    elif found.rules is not None:
        _check_sizes(root, config, found.rules)
        tokens = _GLM_TOKENS if found.rules.processor == qwen_vl.Processor.glm4v else _QWEN_TOKENS
        tokens = _OMNI_TOKENS if found.sound else tokens
    vocabulary = tokens_of(root)
    text = config.get("text_config") if found.rules is not None else config
    rows = (text if isinstance(text, dict) else {}).get("vocab_size", _DEFAULT_VOCABULARY)
    largest = max(vocabulary.values())
    if not _is_id(rows) or largest >= rows:
        raise DataError(
            f"{root / 'config.json'}: vocab_size: found {rows}, but the tokenizer's ids go up to {largest}; {_REMEDY}"
        )
    for token, key, default in tokens:
        wanted = config.get(key, config.get(key.replace("_id", "_index"), default))  # the older name
        there = vocabulary.get(token)
        if there is None:
            raise DataError(f"{folder}: the tokenizer has no {token}; {_REMEDY}")
        if there != wanted:
            raise DataError(
                f"{root / 'config.json'}: {key}: found {wanted}, but {token} is {there} in the tokenizer; {_REMEDY}"
            )


def tokens_of(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Ids by token, as the tokenizer's files have them. Raises DataError."""
    try:
        return _vocabulary(Path(folder))
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{folder}: the tokenizer's files are damaged ({type(error).__name__}: {error}); download them again"
        ) from None


def _check_sizes(root: Path, config: dict[str, Any], rules: qwen_vl.Rules) -> None:
    vision = config.get("vision_config")
    patch = 16 if rules.processor == qwen_vl.Processor.qwen3_vl else 14
    # Rule of the processor, key of vision_config, its default in transformers' configs
    for rule, key, default in (
        ("patch_size", "patch_size", patch),
        ("temporal_patch_size", "temporal_patch_size", 2),
        ("merge_size", "spatial_merge_size", 2),
    ):
        model = (vision if isinstance(vision, dict) else {}).get(key, default)
        if getattr(rules, rule) != model:
            raise DataError(
                f"{root}: {rule} of the processor is {getattr(rules, rule)}, but {key} in config.json is {model}; "
                f"{_REMEDY}"
            )


def _check_tiles(root: Path, config: dict[str, Any], rules: internvl.Rules) -> None:
    vision = config.get("vision_config")
    size = (vision if isinstance(vision, dict) else {}).get("image_size", 448)
    side = size[0] if isinstance(size, list) and size else size
    if side != rules.tile_size:
        raise DataError(
            f"{root}: size of the processor is {rules.tile_size}, but image_size in config.json is {side}; {_REMEDY}"
        )
    rows = config.get("image_seq_length", 256)
    if rows != rules.tokens_per_tile:
        raise DataError(
            f"{root / 'config.json'}: image_seq_length: found {rows}, but a tile of {side} pixels becomes "
            f"{rules.tokens_per_tile} tokens; {_REMEDY}"
        )


def _vocabulary(root: Path) -> dict[str, int]:
    """Ids by token, as the files have them."""
    ids: dict[str, int] = {}
    if os.path.exists(root / "tokenizer.json"):
        tokenizer = processor.read_json(root / "tokenizer.json")
        model = tokenizer.get("model")
        ids |= _ids((model if isinstance(model, dict) else {}).get("vocab"), root / "tokenizer.json")
        added = tokenizer.get("added_tokens") or []
        ids |= {entry["content"]: entry["id"] for entry in added if isinstance(entry, dict) and "content" in entry}
    elif os.path.exists(root / "vocab.json") and os.path.exists(root / "merges.txt"):
        ids |= _ids(processor.read_json(root / "vocab.json"), root / "vocab.json")
        _check_text(root / "merges.txt")
        if os.path.exists(root / "added_tokens.json"):
            ids |= processor.read_json(root / "added_tokens.json")
    else:
        raise DataError(
            f"{root}: no tokenizer.json (nor vocab.json with merges.txt), so text would become nothing; "
            "download the tokenizer's files"
        )
    if os.path.exists(root / "tokenizer_config.json"):
        decoder = processor.read_json(root / "tokenizer_config.json").get("added_tokens_decoder") or {}
        ids |= {entry["content"]: int(number) for number, entry in decoder.items() if isinstance(entry, dict)}
    if os.path.exists(root / "chat_template.jinja"):
        _check_text(root / "chat_template.jinja")
    if not all(map(_is_id, ids.values())):
        raise ValueError("an id is no whole number")
    return ids


def _ids(vocabulary: Any, path: Path) -> dict[str, int]:
    if not isinstance(vocabulary, dict) or len(vocabulary) < 256:
        raise DataError(f"{path}: holds no byte-pair vocabulary; download the tokenizer's files again")
    return vocabulary


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 31


def _check_text(path: Path) -> None:
    try:
        if problem := pointer_problem(path):
            raise DataError(problem)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
