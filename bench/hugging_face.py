"""Samples as Hugging Face's models take them, for loops without DHP."""

from __future__ import annotations

import torch

from dhp.data.dataset import Dataset

Inputs = dict[str, torch.Tensor]


def inputs_of(data: Dataset, sample_id: int) -> Inputs:
    """What Hugging Face's processor makes of a sample, by DHP's reader: [1, T], and pixel rows with their grids."""
    sample = data.sample(sample_id)
    encoded = data.encode(sample)
    given = {
        "input_ids": torch.as_tensor(encoded.input_ids)[None],
        "labels": torch.as_tensor(encoded.labels)[None],
        "mm_token_type_ids": torch.as_tensor(encoded.media_type)[None].int(),
    }
    for kind, pixels, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        media = [m for m in sample.media if m.kind == kind]
        if media:
            given[pixels] = torch.cat([data.read_pixels(m, 0, m.grid[0]) for m in media])
            given[grid] = torch.tensor([m.grid for m in media])
    return given
