"""The model that a run trains: its folder, its weights."""

from __future__ import annotations

from typing import Any

import torch

from dhp import checkpoint
from dhp.config import TrainConfig
from dhp.models import freeze
from dhp.runtime import Run

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


def load_model(settings: TrainConfig, run: Run) -> tuple[Any, int]:
    """The model to train and the steps already done: from the newest checkpoint if `resume` finds one."""
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()  # one bar a rank is noise
    folder, done = settings.model, 0
    if settings.resume:
        newest = checkpoint.latest_checkpoint(settings.output_dir)
        if newest:
            folder, done = str(newest), checkpoint.read_state(newest, settings)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=DTYPES[settings.precision])
    model.train()
    freeze(model, settings.frozen)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return model, done
