"""The rules of a checkpoint folder: which family it is, how media become units, how pixels become numbers.

Reads `preprocessor_config.json` and `video_preprocessor_config.json`, or the `image_processor` and `video_processor`
parts of `processor_config.json`, which newer Hugging Face releases write instead. The token rule itself is the core's
(`dhp._core.qwen_vl`, `dhp._core.internvl`); nothing here computes a grid.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dhp._core import internvl, qwen_vl
from dhp.base.json_file import first_line, pointer_problem
from dhp.base.unregistered import allowed
from dhp.data.access.media_cache import MediaCache
from dhp.data.decoding.borrowed import Borrowed
from dhp.data.decoding.sounds import SoundRules
from dhp.data.errors import DataError

RULES_VERSION = 3  # raise it when the same files would give other tokens or frames: old indexes are stale then
_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC
# What Hugging Face's classes take where a file is silent: OpenAI CLIP's for Qwen2VLImageProcessor, halves for
# Qwen3VLVideoProcessor.
_IMAGE_DEFAULTS = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
_VIDEO_DEFAULTS = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


@dataclass(frozen=True)
class _Family:
    """Whose rules these are: transformers takes the classes that the files name."""

    image_classes: tuple[str, ...] = ()  # none: a model of text alone
    video_classes: tuple[str, ...] = ()
    qwen: qwen_vl.Processor | None = None  # else InternVL's tiles
    borrowed: bool = False  # Hugging Face's processor is asked
    video_defaults: tuple[list[float], list[float]] = _IMAGE_DEFAULTS
    hears: bool = False


_QWEN_IMAGES = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil")
_QWEN2 = _Family(_QWEN_IMAGES, ("Qwen2VLVideoProcessor",), qwen_vl.Processor.qwen2_vl)
_OMNI = _Family(_QWEN_IMAGES, ("Qwen2VLVideoProcessor",), qwen_vl.Processor.qwen2_vl, hears=True)
# Of frames, whatever the video processor's file says: Qwen2_5OmniProcessor.
_OMNI_FRAMES = {"shortest_edge": 128 * 28 * 28, "longest_edge": 768 * 28 * 28}
_QWEN3 = _Family(_QWEN_IMAGES, ("Qwen3VLVideoProcessor",), qwen_vl.Processor.qwen3_vl, video_defaults=_VIDEO_DEFAULTS)
_GLM = _Family(
    ("Glm4vImageProcessor", "Glm4vImageProcessorFast", "Glm4vImageProcessorPil"),
    ("Glm4vVideoProcessor",),
    qwen_vl.Processor.glm4v,
)
_TILES = ("GotOcr2ImageProcessorFast", "GotOcr2ImageProcessor", "GotOcr2ImageProcessorPil")
_TEXT = _Family()
_BORROWED = _Family(borrowed=True)
_SMOLVLM = _Family((), ("SmolVLMVideoProcessor",), borrowed=True, video_defaults=_VIDEO_DEFAULTS)
FAMILIES = {
    "deepseek_v3": _TEXT,
    "glm4v": _GLM,
    "glm4v_moe": _GLM,
    "idefics3": _BORROWED,
    "internvl": _Family(_TILES, ("InternVLVideoProcessor",)),
    "llama": _TEXT,
    "llava": _BORROWED,
    "llava_onevision": _Family((), ("LlavaOnevisionVideoProcessor",), borrowed=True),
    "mistral3": _BORROWED,
    "qwen2": _TEXT,
    "qwen2_5_omni": _OMNI,
    "qwen2_5_omni_thinker": _OMNI,
    "qwen2_5_vl": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen3": _TEXT,
    "qwen3_moe": _TEXT,
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
    "smolvlm": _SMOLVLM,
}
# Files that decide ids, grids or frames. Weights and the rest of config.json do not.
_FINGERPRINTED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)


@dataclass(frozen=True)
class PixelScale:
    """level (0 … 255) -> (level * rescale - mean) / std, per channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float


@dataclass(frozen=True)
class Processor:
    """What a checkpoint folder says about media."""

    folder: str
    family: str  # model_type
    rules: qwen_vl.Rules | internvl.Rules | Borrowed | None  # None: the model takes no media
    image: PixelScale | None  # None: likewise
    video: PixelScale | None  # None: the folder has no rules for videos
    fingerprint: str  # of every file that decides token counts
    samples_frames: bool = True  # False: every frame of a clip is taken, unless the line says otherwise
    clip_frames: int | None = None  # taken of a clip by InternVL, unless the line says otherwise
    clip_fps: float | None = None  # frames a second; likewise
    clip_filter: str = "bicubic"  # that frames are resized with
    clip_side: int = 0  # longest side of frames before they become tiles; 0: they become tiles at once
    sound: SoundRules | None = None  # None: the model does not hear
    media_roots: tuple[str, ...] = ()  # media lie below these, links resolved; empty: anywhere on this machine
    media_cache: MediaCache | None = None  # of media that lie elsewhere


def patch_rules(processor: Processor) -> qwen_vl.Rules:
    """Of a family whose pictures are patches of any size."""
    assert isinstance(processor.rules, qwen_vl.Rules)
    return processor.rules


def tile_rules(processor: Processor) -> internvl.Rules:
    """Of a family whose pictures are tiles of one size."""
    assert isinstance(processor.rules, internvl.Rules)
    return processor.rules


def model_type(folder: str | os.PathLike[str]) -> str:
    """The family a checkpoint folder says it is of; DataError where it is none that is supported."""
    path = Path(folder) / "config.json"
    if not os.path.exists(path):
        raise DataError(f"{folder}: no config.json; give a local Hugging Face checkpoint folder")
    found = read_json(path).get("model_type")
    if found not in FAMILIES and not (isinstance(found, str) and allowed()):
        hint = "; dhp convert makes an internvl of it" if found == "internvl_chat" else ""
        known = ", ".join(FAMILIES)
        raise DataError(f"{path}: model_type {json.dumps(found)} is not supported; supported: {known}{hint}")
    return str(found)


def load_processor(folder: str | os.PathLike[str]) -> Processor:
    """Reads a checkpoint folder. Raises DataError for an unknown family or processor settings it cannot follow."""
    name = model_type(folder)
    root = Path(folder)
    family = FAMILIES.get(name) or (_BORROWED if "vision_config" in read_json(root / "config.json") else _TEXT)
    if family is _TEXT:
        return Processor(str(folder), name, None, None, None, _fingerprint(root))
    nested = read_json(root / "processor_config.json") if os.path.exists(root / "processor_config.json") else {}
    image, image_source = _part(root, nested, "image_processor", "preprocessor_config.json")
    video, video_source = _part(root, nested, "video_processor", "video_preprocessor_config.json")
    if family.borrowed:
        rule = Borrowed(str(folder), name, _patch_size(root, read_json(root / "config.json")))
        found = Processor(str(folder), name, rule, None, None, _fingerprint(root))
        return _with_clips(found, video or image or {}, video_source, family) if family.video_classes else found
    if image is None:
        raise DataError(f"{folder}: no preprocessor_config.json; it says how pictures become patches")
    _check_class(image, image_source, "image_processor_type", family.image_classes)
    _check_class(video or {}, video_source, "video_processor_type", family.video_classes)
    if family.hears:
        limits = ("size", "min_pixels", "max_pixels")
        video = {key: value for key, value in (video or image).items() if key not in limits} | {"size": _OMNI_FRAMES}
    found = Processor(
        folder=str(folder),
        family=name,
        rules=None,
        image=_scale(image, image_source, _IMAGE_DEFAULTS),
        video=None if video is None else _scale(video, video_source, family.video_defaults),
        fingerprint=_fingerprint(root),
        sound=_sound(root, nested, image, image_source) if family.hears else None,
    )
    if family.qwen is None:
        return _with_tiles(found, root, image, image_source, video or {}, video_source)
    rules = qwen_vl.parse_rules(
        json.dumps(image), image_source, None if video is None else json.dumps(video), video_source, family.qwen
    )
    if family.qwen != qwen_vl.Processor.qwen3_vl and video is None:  # transformers takes the picture's settings
        found = replace(found, video=found.image)
    if video and family is _GLM:  # which goes by time, whatever number of frames the file says
        video = {key: value for key, value in video.items() if key != "num_frames"}
    return replace(found, rules=rules, samples_frames=video is None or _samples_frames(video, video_source))


def _sound(root: Path, nested: dict[str, Any], image: dict[str, Any], source: str) -> SoundRules:
    """The feature extractor's settings stand in a part of their own, or beside those for pictures."""
    given = nested.get("feature_extractor", image)
    config = model_config(root).get("audio_config")
    config = config if isinstance(config, dict) else {}
    read = {
        "rate": given.get("sampling_rate", 16000),
        "hop": given.get("hop_length", 160),
        "window": given.get("n_fft", 400),
        "bins": given.get("feature_size", 128),
        "longest_s": given.get("chunk_length", 300),
        "chunk": 2 * config.get("n_window", 100) if isinstance(config.get("n_window", 100), int) else None,
    }
    for key, value in read.items():
        if not (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 20):
            raise DataError(
                f"{source}: {key} of sounds: found {json.dumps(value)[:80]}; must be a whole number above 0"
            )
    if given.get("dither"):
        raise DataError(
            f"{source}: dither {json.dumps(given['dither'])[:80]} is not supported: features would be random"
        )
    bins = config.get("num_mel_bins", 128)
    if bins != read["bins"]:
        raise DataError(
            f"{source}: feature_size is {read['bins']}, but num_mel_bins in config.json is {json.dumps(bins)[:80]}; "
            "take all files from one checkpoint"
        )
    if read["chunk"] % 4:
        raise DataError(f"{root / 'config.json'}: n_window: found {config['n_window']}; must be even")
    return SoundRules(**read)


def model_config(root: Path) -> dict[str, Any]:
    """config.json of the model that trains: of Qwen2.5-Omni that is the thinker."""
    config = read_json(root / "config.json")
    thinker = config.get("thinker_config")
    return thinker if isinstance(thinker, dict) else config


def _with_clips(found: Processor, video: dict[str, Any], source: str, family: _Family) -> Processor:
    """Of a family whose clips are frames of one size, taken at equal distances."""
    if "video_processor_type" in video:
        _check_class(video, source, "video_processor_type", family.video_classes)
    if family is _SMOLVLM:
        return _with_smolvlm_clips(found, video, source, family)
    frames, fps = _clip_rate(video, source)
    return replace(
        found,
        video=_scale(video, source, family.video_defaults),
        samples_frames=_flag(video, "do_sample_frames", False, source),
        clip_frames=frames,
        clip_fps=fps,
    )


def _with_smolvlm_clips(found: Processor, video: dict[str, Any], source: str, family: _Family) -> Processor:
    """`video_sampling` of the file, or the settings it stands for."""
    sampling = video.get("video_sampling")
    given = sampling if isinstance(sampling, dict) else {}
    read = {
        "max_frames": given.get("max_frames", video.get("num_frames") or 64),
        "fps": given.get("fps", video.get("fps") or 1),
    }
    for key, value in read.items():
        if not (_is_number(value) and value > 0):
            raise DataError(f"{source}: {key}: found {json.dumps(value)[:80]}; must be a number above 0")
    size = given.get("video_size", video.get("size"))
    side = size.get("longest_edge") if isinstance(size, dict) else None
    if not (isinstance(side, int) and not isinstance(side, bool) and 0 < side <= 1 << 14):
        raise DataError(f"{source}: size of frames: found {json.dumps(size)[:80]}; must have a longest_edge")
    return replace(
        found,
        video=_scale({key: value for key, value in video.items() if key != "resample"}, source, family.video_defaults),
        samples_frames=_flag(video, "do_sample_frames", bool(given), source),
        clip_frames=int(read["max_frames"]),
        clip_fps=float(read["fps"]),
        clip_side=side,
        clip_filter="bicubic" if video.get("resample") == _BICUBIC else "lanczos",
    )


def _clip_rate(video: dict[str, Any], source: str) -> tuple[int | None, float | None]:
    """Frames of a clip, or frames a second."""
    frames, fps = video.get("num_frames"), video.get("fps")
    for key, value in (("num_frames", frames), ("fps", fps)):
        if value is not None and not (_is_number(value) and value > 0):
            raise DataError(f"{source}: {key}: found {json.dumps(value)[:80]}; must be a number above 0")
    return (int(frames), None) if frames else (None, fps)


def _flag(values: dict[str, Any], key: str, default: bool, source: str) -> bool:
    found = values.get(key, default)
    if not isinstance(found, bool):
        raise DataError(f"{source}: {key}: found {json.dumps(found)[:80]}; must be true or false")
    return found


def _with_tiles(
    found: Processor, root: Path, image: dict[str, Any], image_source: str, video: dict[str, Any], video_source: str
) -> Processor:
    rules = internvl.parse_rules(json.dumps(image), image_source)
    # InternVLProcessor always asks for tiles, whatever `crop_to_patches` of the file says
    config = read_json(root / "config.json")
    rules.patch_size = _patch_size(root, config)
    ratio = config.get("downsample_ratio", 0.5)
    if not (_is_number(ratio) and 0 < ratio <= 1):
        raise DataError(
            f"{root / 'config.json'}: downsample_ratio: found {json.dumps(ratio)[:80]}; must be from 0 to 1"
        )
    rules.merge_size = round(1 / ratio)
    size = video.get("size", {"height": rules.tile_size, "width": rules.tile_size})
    if video and size != {"height": rules.tile_size, "width": rules.tile_size}:
        raise DataError(f"{video_source}: size: found {json.dumps(size)[:80]}, but tiles have {rules.tile_size} pixels")
    clip_frames, clip_fps = _clip_rate(video, video_source)
    samples = _flag(video, "do_sample_frames", True, video_source)  # absent: transformers' class takes every frame
    return replace(found, rules=rules, samples_frames=samples, clip_frames=clip_frames, clip_fps=clip_fps)


def _patch_size(root: Path, config: dict[str, Any]) -> int:
    vision = config.get("vision_config")
    patch = (vision if isinstance(vision, dict) else {}).get("patch_size", 14)
    side = patch[0] if isinstance(patch, list) and patch else patch
    if not (isinstance(side, int) and 1 <= side <= 1024):
        raise DataError(
            f"{root / 'config.json'}: vision_config.patch_size: found {json.dumps(patch)[:80]}; must be a whole number "
            "from 1 to 1,024"
        )
    return side


def _check_class(config: dict[str, Any], source: str, key: str, classes: tuple[str, ...]) -> None:
    found = config.get(key)
    if found is not None and found not in classes:
        raise DataError(
            f"{source}: {key}: found {json.dumps(found)[:80]}, which is of another model; expected {classes[0]}"
        )


def _samples_frames(video: dict[str, Any], source: str) -> bool:
    """`do_sample_frames`. Raises DataError for what else decides the frames of a clip and is not followed."""
    if video.get("num_frames") is not None:
        raise DataError(f"{source}: num_frames {json.dumps(video['num_frames'])} is not supported; set fps")
    if "fps" in video and video["fps"] is None:
        raise DataError(
            f"{source}: fps null is not supported; set it, or set do_sample_frames to false for every frame"
        )
    samples = video.get("do_sample_frames", True)
    if not isinstance(samples, bool):
        raise DataError(f"{source}: do_sample_frames: found {json.dumps(samples)}; must be true or false")
    return samples


def _part(root: Path, nested: dict[str, Any], key: str, file: str) -> tuple[dict[str, Any] | None, str]:
    if isinstance(nested.get(key), dict):
        return nested[key], f"{root / 'processor_config.json'} ({key})"
    path = root / file
    return (read_json(path) if os.path.exists(path) else None), str(path)


def _scale(config: dict[str, Any], source: str, defaults: tuple[list[float], list[float]]) -> PixelScale:
    expected = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True}
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise DataError(f"{source}: {key} {json.dumps(config[key])} is not supported; only {json.dumps(value)} is")
    if config.get("resample", _BICUBIC) != _BICUBIC:
        raise DataError(f"{source}: resample {config['resample']} is not supported; only {_BICUBIC} (bicubic) is")
    if config.get("cap_pixels_per_frame"):
        raise DataError(f"{source}: cap_pixels_per_frame is not supported; set max_pixels per video instead")
    factor = config.get("rescale_factor", 1 / 255)
    if not _is_number(factor) or factor <= 0:
        raise DataError(f"{source}: rescale_factor: found {json.dumps(factor)[:80]}; must be a number above 0")
    std = _triple(config, "image_std", source, defaults[1])
    if min(std) <= 0:
        raise DataError(f"{source}: image_std: found {list(std)}; must be three numbers above 0")
    return PixelScale(_triple(config, "image_mean", source, defaults[0]), std, float(factor))


def _triple(config: dict[str, Any], key: str, source: str, default: list[float]) -> tuple[float, float, float]:
    value = config.get(key, default)
    if not (isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))):
        raise DataError(f"{source}: {key}: found {json.dumps(value)[:80]}; must be three numbers")
    return (float(value[0]), float(value[1]), float(value[2]))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9  # nan is not


def read_json(path: Path) -> dict[str, Any]:
    content = _read(path)
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: cannot be read: it is cut off or no JSON ({first_line(error)}); download the checkpoint again"
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: must hold a JSON object")
    return value


def _read(path: Path) -> bytes:
    try:
        if problem := pointer_problem(path):
            raise DataError(problem)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _fingerprint(root: Path) -> str:
    digest = hashlib.sha256(f"rules {RULES_VERSION}\n".encode())
    for name in _FINGERPRINTED:
        path = root / name
        if os.path.exists(path):
            digest.update(f"{name} {hashlib.sha256(_read(path)).hexdigest()}\n".encode())
    return digest.hexdigest()
