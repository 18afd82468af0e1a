"""Qwen3-VL (Hugging Face transformers, models/qwen3_vl): as Qwen2.5-VL, with rows that enter after several text layers,
and encoded without a wait of the host for the device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import vision_utils

from dhp.models.attention import FRAMES
from dhp.models.families import Media, QwenVL, Upload
from dhp.task.layout import Unit


class Qwen3VL(QwenVL):
    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._vision = self.base.visual
        self.deepstack = len(self._vision.deepstack_visual_indexes)

    def prepare(self) -> None:
        """Vision attention is one call for all frames, and patches are embedded by a matrix product."""
        self.model.set_attn_implementation({"vision_config": FRAMES})
        multiply_patches(self._vision.patch_embed.proj)

    def restore(self) -> None:
        self.model.set_attn_implementation({"vision_config": "sdpa"})
        self._vision.patch_embed.proj.__dict__.pop("forward", None)

    def encode(self, units: Sequence[Unit], media: Media, pixels: torch.Tensor, upload: Upload) -> torch.Tensor:
        """What the vision model would make of sizes on the device, waiting for it, is made on the host."""
        vision, grid = self._vision, self.grids(units, media)
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=vision.num_grid_per_side,
            mode=vision.interpolation_mode,
            align_corners=vision.interpolation_align_corners,
            spatial_merge_size=vision.config.spatial_merge_size,
        )
        positions = vision_utils.get_vision_position_ids(grid, vision.spatial_merge_size)
        pixels, indices, weights, positions = upload(pixels, indices, weights, positions)
        frames = [unit.patches for unit in units]
        encoded = vision(
            pixels.to(vision.dtype),
            grid_thw=grid,
            return_dict=True,
            interp_indices=indices,
            interp_weights=weights,
            position_ids=positions,
            cu_seqlens=vision_utils.get_vision_cu_seqlens(grid),  # on the host: attention takes frame_patches
            max_seqlen=max(frames),
            frame_patches=frames,
        )
        return torch.cat([encoded.pooler_output, *encoded.deepstack_features], dim=-1)


def multiply_patches(projection: torch.nn.Conv3d) -> None:
    """Makes the patch embedding one matrix product. A patch is as large as the kernel, so the convolution is one; on
    CPUs its own code takes four to five times as long, and a fifth of a small model's step."""
    if projection.kernel_size == projection.stride and not any(projection.padding) and projection.groups == 1:
        projection.forward = functools.partial(_product, projection)  # type: ignore[method-assign]


def _product(projection: torch.nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """[n, C, T, P, P] -> [n, E, 1, 1, 1], as the convolution gives it."""
    rows = torch.nn.functional.linear(patches.flatten(1), projection.weight.flatten(1), projection.bias)
    return rows[:, :, None, None, None]
