"""Token rules of the core against transformers' own processors, on random sizes."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.video_utils import VideoMetadata

import huggingface_reference as reference
from dhp import _core as core

PICTURES = CLIPS = 1000
FAMILIES = {
    "qwen2-vl": {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    "qwen2.5-vl": {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    "qwen3-vl": {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}},
}


def rules_of(family: str) -> core.TokenRules:
    return core.token_rules(family)


def sizes(seed: int) -> Iterator[tuple[int, int]]:
    """(height, width): most as pictures are, some beyond every limit."""
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(PICTURES):
        height = int(2 ** rng.uniform(0, 13.5))
        spread = rng.choice([0.8, 0.8, 3, 7.9])
        yield height, min(2**20, max(1, int(height * 2 ** rng.uniform(-spread, spread))))


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_of_qwen(family: str) -> None:
    rules = rules_of(family)
    processor = Qwen2VLImageProcessorPil(**FAMILIES[family])
    refused = 0
    for height, width in sizes(seed=len(family)):
        try:
            patches = processor.get_number_of_image_patches(height, width)
        except ValueError:
            refused += 1
            with pytest.raises(core.InputError, match="at most 200"):
                core.image_tokens(rules, height, width)
            continue
        found = core.image_tokens(rules, height, width)
        assert (found.patches, found.tokens) == (patches, patches // 4), (height, width)
    assert 0 < refused < PICTURES / 10


@pytest.mark.parametrize("most", [1, 6, 12, 24])
def test_pictures_of_internvl(most: int) -> None:
    """Tiles through the image processor, tokens with markers through the processor."""
    rules = rules_of("internvl")
    image_processor = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, max_patches=most)
    processor: Any = object.__new__(InternVLProcessor)
    processor.image_processor, processor.image_seq_length = image_processor, 256
    asked = {"crop_to_patches": True, "max_patches": most}
    processor._merge_kwargs = lambda **_: {"images_kwargs": asked}
    pictures = list(sizes(seed=most))
    expected = processor._get_num_multimodal_tokens(pictures)
    for (height, width), tiles, tokens in zip(
        pictures, expected["num_image_patches"], expected["num_image_tokens"], strict=True
    ):
        found = core.image_tokens(rules, height, width, core.MediumOptions(max_tiles=most))
        assert (found.tiles, found.all()) == (tiles, tokens), (height, width)


def clips(seed: int) -> Iterator[tuple[tuple[int, int], int, float, dict[str, Any]]]:
    """((height, width), frames of the file, their rate, what is asked for)."""
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(CLIPS):
        height = int(2 ** rng.uniform(3, 11.5))
        size = height, max(1, int(height * 2 ** rng.uniform(-2.5, 2.5)))
        rate = rng.choice([10.0, 12.5, 23.976, 24.0, 25.0, 29.97, 30.0, 30000 / 1001, 60.0])
        options = rng.choice([{"fps": rng.choice([0.5, 1.0, 2.0, 3.3, 7.0])}, {"num_frames": rng.randrange(2, 200)}])
        yield size, int(2 ** rng.uniform(0, 13)), rate, options


def asked_of(options: dict[str, Any]) -> core.MediumOptions:
    return core.MediumOptions(fps=options.get("fps"), frames=options.get("num_frames"))


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl"])
def test_clips_of_qwen2(family: str) -> None:
    rules = rules_of(family)
    module = reference.video_module("qwen2_vl")
    me = SimpleNamespace(num_frames=None, fps=None, temporal_patch_size=2, min_frames=4, max_frames=768)
    refused = uneven = 0
    for (height, width), total, rate, options in clips(seed=len(family)):
        video = core.Video(height, width, total, rate)
        metadata = VideoMetadata(total_num_frames=total, fps=rate)
        try:
            frames = len(module.Qwen2VLVideoProcessor.sample_frames(me, metadata, **options))
            resized = module.smart_resize(height, width, 28, 3136, 12845056)
        except (ValueError, ZeroDivisionError):
            refused += 1
            with pytest.raises(core.InputError):
                core.video_tokens(rules, video, asked_of(options))
            continue
        uneven += frames % 2
        found = core.video_tokens(rules, video, asked_of(options))
        patches = (frames + 1) // 2 * (resized[0] // 14) * (resized[1] // 14)
        assert (found.frames, found.patches, found.tokens) == (frames, patches, patches // 4), (video, options)
    assert 0 < refused < CLIPS / 2
    assert uneven > 0, "torch.arange makes one frame more than asked for, now and then"


def test_clips_of_qwen3() -> None:
    rules = rules_of("qwen3-vl")
    module = reference.video_module()
    config = {"fps": 2, "min_frames": 4, "max_frames": 768}
    processor = reference.processor(_Tokenizer())
    refused = 0
    for size, total, rate, options in clips(seed=3):
        indices = reference.sampled(config, total, rate, dict(options))
        video = core.Video(size[0], size[1], total, rate)
        try:
            height, width = module.smart_resize(len(indices), *size, 2, 32, 4096, 25165824)
        except ValueError:
            refused += 1
            with pytest.raises(core.InputError):
                core.video_tokens(rules, video, asked_of(options))
            continue
        found = core.video_tokens(rules, video, asked_of(options))
        grid = (len(indices) + 1) // 2, height // 16, width // 16
        assert (found.grid.frames, found.grid.height, found.grid.width) == grid, (size, total, rate, options)
        assert found.tokens == grid[0] * grid[1] * grid[2] // 4
        text = _video_text(processor, grid, indices, rate)
        assert text.count("<|video_pad|>") == found.tokens
        assert text.count("<|vision_start|>") + text.count("<|vision_end|>") == found.marker_tokens
        assert _timestamp_tokens(text) == found.timestamp_tokens, (total, rate, options)
    assert 0 < refused < CLIPS / 2


class _Tokenizer:
    """What Qwen3VLProcessor asks of one to write a clip's text."""

    def convert_tokens_to_ids(self, token: str) -> int:
        return hash(token)


def _video_text(processor: Any, grid: tuple[int, int, int], indices: list[int], rate: float) -> str:
    import torch

    metadata = VideoMetadata(total_num_frames=10**6, fps=rate, frames_indices=list(indices))
    text = processor.replace_video_token({"video_grid_thw": torch.tensor([grid]), "video_metadata": [metadata]}, 0)
    return str(text)


@functools.cache
def _tokens_by_length() -> dict[int, int]:
    """Length of a timestamp's text to its tokens in Qwen's vocabulary: digits and "." are one each."""
    golden = json.loads((Path(__file__).parents[2] / "golden" / "qwen_text_tokens.json").read_text())
    return {len(f"<{seconds:.1f} seconds>"): tokens for seconds, tokens in golden["timestamps"]}


def _timestamp_tokens(text: str) -> int:
    stamps = text.replace("<|video_pad|>", "").split("<|vision_start|><|vision_end|>")
    return sum(_tokens_by_length()[len(stamp)] for stamp in stamps if stamp)


def test_clips_of_internvl() -> None:
    rules = rules_of("internvl")
    module = reference.video_module("internvl")
    me = SimpleNamespace(num_frames=None, initial_shift=True)
    refused = 0
    for (height, width), total, rate, options in clips(seed=4):
        video = core.Video(height, width, total, rate)
        metadata = VideoMetadata(total_num_frames=total, fps=rate)
        try:
            frames = len(module.InternVLVideoProcessor.sample_frames(me, metadata, **options))
        except (ValueError, ZeroDivisionError):
            refused += 1
            with pytest.raises(core.InputError):
                core.video_tokens(rules, video, asked_of(options))
            continue
        found = core.video_tokens(rules, video, asked_of(options))
        assert (found.frames, found.tokens) == (frames, 256 * frames), (video, options)
    assert 0 < refused < CLIPS / 2


def glm_rules(**video: Any) -> core.qwen_vl.Rules:
    size = {"shortest_edge": 12544, "longest_edge": 9633792}
    clip = {"size": {"shortest_edge": 12544, "longest_edge": 47040000}, "patch_size": 14, **video}
    return core.qwen_vl.parse_rules(
        json.dumps({"patch_size": 14, "size": size}), "image", json.dumps(clip), "video", core.qwen_vl.Processor.glm4v
    )


def test_pictures_of_glm4v() -> None:
    rules = glm_rules()
    processor = Glm4vImageProcessorPil(size={"shortest_edge": 12544, "longest_edge": 9633792})
    refused = 0
    for height, width in sizes(seed=5):
        try:
            patches = processor.get_number_of_image_patches(height, width, {})
        except ValueError:
            refused += 1
            with pytest.raises(core.InputError, match="at most 200"):
                core.qwen_vl.image_grid(rules, height, width)
            continue
        assert core.qwen_vl.image_grid(rules, height, width).patches == patches, (height, width)
    assert 0 < refused < PICTURES / 10


def test_clips_of_glm4v() -> None:
    """Frames, sizes and times, of clips shorter and longer than the rule has them at full rate."""
    module = reference.video_module("glm4v")
    refused = long = 0
    for number, ((height, width), total, rate, options) in enumerate(clips(seed=6)):
        most = (5, 60, 300)[number % 3]
        rules = glm_rules(max_duration=most)
        me = SimpleNamespace(fps=2, max_duration=most)
        fps = options.get("fps")
        metadata = VideoMetadata(total_num_frames=total, fps=rate, duration=total / rate)
        long += total / rate > most
        indices = [int(i) for i in module.Glm4vVideoProcessor.sample_frames(me, metadata, fps=fps)]
        sampling = core.qwen_vl.Sampling(fps=fps)
        try:
            resized = module.smart_resize(len(indices), height, width, 2, 28, 12544, 47040000)
        except ValueError:
            refused += 1
            with pytest.raises(core.InputError):
                core.qwen_vl.sample_clip(rules, height, width, total, rate, sampling)
            continue
        found = core.qwen_vl.sample_clip(rules, height, width, total, rate, sampling)
        assert found.frame_indices == indices, (total, rate, fps, most)
        assert (found.grid.height, found.grid.width) == (resized[0] // 14, resized[1] // 14), (height, width)
        assert found.timestamps_s == [index / rate for index in indices[::2]]
    assert long > CLIPS / 10
    assert refused < CLIPS / 2
