"""Hugging Face's own processors, assembled so that they run without torchvision: the reference for ids and pixels."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from transformers.video_utils import VideoMetadata


@functools.cache
def video_module(family: str = "qwen3_vl") -> Any:
    """transformers' video_processing_* of a family, loaded past the check for torchvision.

    Where torchvision is missing, an empty module stands in while the file is read: sizes and frames need nothing of it.
    """
    return module_of(family, f"video_processing_{family}")


@functools.cache
def module_of(family: str, name: str) -> Any:
    """A file of transformers' family, loaded past the check for torchvision."""
    path = Path(transformers.__file__).parent / f"models/{family}/{name}.py"
    spec = importlib.util.spec_from_file_location(f"transformers.models.{family}._{name}_reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    names = [
        "torchvision",
        "torchvision.transforms",
        "torchvision.transforms.v2",
        "torchvision.transforms.v2.functional",
    ]
    missing = [] if transformers.utils.is_torchvision_available() else names
    sys.modules.update({name: types.ModuleType(name) for name in missing})
    try:
        spec.loader.exec_module(module)
    finally:
        for name in missing:
            del sys.modules[name]
    return module


def video_rows(frames: np.ndarray, config: dict[str, Any]) -> tuple[torch.Tensor, list[int]]:
    """uint8 [frames, height, width, 3] -> pixel rows and grid, by Qwen3VLVideoProcessor on sampled frames.

    torchvision's two calls are replaced: resizing by torch's antialiased bicubic on bytes, which torchvision uses too,
    and normalising by its formula.
    """
    module = video_module()

    class Reference(module.Qwen3VLVideoProcessor):  # type: ignore[name-defined, misc]
        def resize(self, videos: torch.Tensor, size: Any, **kwargs: Any) -> torch.Tensor:
            batch, count, channels, height, width = videos.shape
            new = module.smart_resize(
                num_frames=count,
                height=height,
                width=width,
                temporal_factor=kwargs["temporal_factor"],
                factor=kwargs["factor"],
                min_pixels=size.shortest_edge,
                max_pixels=size.longest_edge,
            )
            if new == (height, width):
                return videos
            flat = torch.nn.functional.interpolate(
                videos.reshape(-1, channels, height, width), size=new, mode="bicubic", antialias=True
            )
            return flat.reshape(batch, count, channels, *new)

        def normalize(self, images: torch.Tensor, mean: Any, std: Any, **kwargs: Any) -> torch.Tensor:
            return (images - mean[:, None, None]) / std[:, None, None]

    processor = Reference(**{k: v for k, v in config.items() if not k.endswith(("_type", "_class"))})
    out = processor._preprocess(
        [torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()],
        do_resize=True,
        size=processor.size,
        resample=processor.resample,
        do_rescale=True,
        rescale_factor=processor.rescale_factor,
        do_normalize=True,
        image_mean=tuple(processor.image_mean),
        image_std=tuple(processor.image_std),
        patch_size=processor.patch_size,
        temporal_patch_size=processor.temporal_patch_size,
        merge_size=processor.merge_size,
        cap_pixels_per_frame=False,
    )
    return out["pixel_values_videos"], out["video_grid_thw"][0].tolist()


def sampled(config: dict[str, Any], total: int, fps: float, options: dict[str, Any]) -> list[int]:
    """Frame numbers that Qwen3VLVideoProcessor.sample_frames picks."""
    me = SimpleNamespace(**{key: config[key] for key in ("fps", "min_frames", "max_frames")})
    metadata = VideoMetadata(total_num_frames=total, fps=fps)
    return [int(i) for i in video_module().Qwen3VLVideoProcessor.sample_frames(me, metadata, **options)]


def processor(tokenizer: Any, merge_size: int = 2, temporal_patch_size: int = 2) -> Any:
    """A Qwen3VLProcessor without its constructor, which insists on torchvision's classes."""
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    made = object.__new__(Qwen3VLProcessor)
    made.tokenizer = tokenizer
    for name in ("image", "video"):
        token = f"<|{name}_pad|>"
        setattr(made, f"{name}_token", token)
        setattr(made, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    made.vision_start_token, made.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    made.image_processor = SimpleNamespace(merge_size=merge_size)
    made.video_processor = SimpleNamespace(merge_size=merge_size, temporal_patch_size=temporal_patch_size)
    return made


def ids_and_types(made: Any, text: str, media: list[dict[str, Any]]) -> tuple[list[int], list[int]]:
    """What Qwen3VLProcessor.__call__ does to a rendered prompt: expand, tokenize, mark.

    media: kind, grid, and of videos fps and the sampled frame numbers.
    """
    images = torch.tensor([m["grid"] for m in media if m["kind"] == "image"]).reshape(-1, 3)
    videos = [m for m in media if m["kind"] == "video"]
    inputs = {
        "video_grid_thw": torch.tensor([m["grid"] for m in videos]).reshape(-1, 3),
        "video_metadata": [
            VideoMetadata(total_num_frames=10**6, fps=m["fps"], frames_indices=list(m["frames"])) for m in videos
        ],
    }
    expanded, _ = made.get_text_with_replacements(
        [text],
        [made.replace_image_token({"image_grid_thw": images}, i) for i in range(len(images))],
        [made.replace_video_token(inputs, i) for i in range(len(videos))],
    )
    ids = made.tokenizer(expanded)["input_ids"]
    return ids[0], made.create_mm_token_type_ids(ids)[0]
