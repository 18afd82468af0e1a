"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL, encoded without a wait of the host for the device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import vision_utils

from dhp.data.placeholders import MediumShape
from dhp.models import forwards
from dhp.models.attention import FRAMES, attend_as_before, attend_by
from dhp.models.families import Media, QwenVL, Upload
from dhp.task.layout import Unit


class Qwen2VL(QwenVL):
    """All frames of a clip stand together."""

    units_apart = False

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.vision = self.base.visual

    def prepare(self) -> None:
        """Vision attention is one call for all frames, and patches are embedded by a matrix product."""
        attend_by(FRAMES, self.vision, self.model, "vision_config")
        multiply_patches(self.vision.patch_embed.proj)

    def restore(self) -> None:
        attend_as_before(self.vision, self.model, "vision_config")
        forwards.take_back(self.vision.patch_embed.proj)

    def encode(self, units: Sequence[Unit], media: Media, pixels: torch.Tensor, upload: Upload) -> torch.Tensor:
        """What the vision model would make of sizes on the device, waiting for it, is made on the host."""
        grid = self.grids(units, media)
        on_device, on_host = self.sizes(grid)
        pixels, *uploaded = upload(pixels, *on_device.values())
        encoded = self.vision(
            pixels.to(self.vision.dtype),
            grid_thw=grid,
            return_dict=True,
            cu_seqlens=vision_utils.get_vision_cu_seqlens(grid),
            max_seqlen=max(unit.patches for unit in units),
            **dict(zip(on_device, uploaded, strict=True)),
            **on_host,
        )
        return torch.cat([encoded.pooler_output, *getattr(encoded, "deepstack_features", [])], dim=-1)

    def sizes(self, grid: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What follows from the sizes: tensors for the device, and what stays on the host."""
        return {"position_ids": vision_utils.get_vision_position_ids(grid, self.vision.spatial_merge_size)}, {}


class Qwen25VL(Qwen2VL):
    """Windows, and positions of clips that count seconds."""

    def sizes(self, grid: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        on_device, on_host = super().sizes(grid)
        order, ends = vision_utils.get_vision_window_index(
            grid,
            spatial_merge_size=self.vision.spatial_merge_size,
            window_size=self.vision.window_size,
            patch_size=self.vision.patch_size,
        )
        windows = {"cu_window_seqlens": ends, "max_window_seqlen": int(ends.diff().max())}
        return on_device | {"window_index": order}, on_host | windows

    def times(self, media: Sequence[MediumShape]) -> dict[str, Any]:
        seconds = [medium.unit_seconds for medium in media if medium.kind == "video"]
        return {"second_per_grid_ts": torch.tensor(seconds)} if seconds else {}


class Qwen3VL(Qwen2VL):
    """Text stands between frames, and rows also enter after several text layers."""

    units_apart = True

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.deepstack = len(self.vision.deepstack_visual_indexes)

    def sizes(self, grid: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        on_device, on_host = super().sizes(grid)
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=self.vision.num_grid_per_side,
            mode=self.vision.interpolation_mode,
            align_corners=self.vision.interpolation_align_corners,
            spatial_merge_size=self.vision.config.spatial_merge_size,
        )
        return on_device | {"interp_indices": indices, "interp_weights": weights}, on_host


def multiply_patches(projection: torch.nn.Conv3d) -> None:
    """Makes the patch embedding one matrix product. A patch is as large as the kernel, so the convolution is one; on
    CPUs its own code takes four to five times as long, and a fifth of a small model's step."""
    if projection.kernel_size == projection.stride and not any(projection.padding) and projection.groups == 1:
        forwards.put(projection, functools.partial(_product, projection))


def _product(projection: torch.nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """[n, C, T, P, P] -> [n, E, 1, 1, 1], as the convolution gives it."""
    rows = torch.nn.functional.linear(patches.flatten(1), projection.weight.flatten(1), projection.bias)
    return rows[:, :, None, None, None]
