"""Samples as Hugging Face's models take them, for loops without DHP."""

from __future__ import annotations

from typing import Any

import torch

from dhp.data.dataset import Dataset
from dhp.models import family_class

Inputs = dict[str, torch.Tensor]


def inputs_of(data: Dataset, sample_id: int, model: Any) -> Inputs:
    """What the model's own forward takes of a sample, by DHP's reader: [1, T], and pixels."""
    sample = data.sample(sample_id)
    encoded = data.encode(sample)
    pixels = [data.read_pixels(medium, 0, medium.units) for medium in sample.media]
    given = family_class(model)(model).alone(encoded, sample.media, pixels)
    return {**given, "labels": torch.as_tensor(encoded.labels)[None]}
