"""AdamW over the trainable parameters, linear warm-up and cosine decay."""

from __future__ import annotations

import math
from typing import Any

import torch

from dhp.run.runtime import Run
from dhp.settings.config import TrainConfig
from dhp.step.sharded import ShardedAdamW


def make_optimizer(model: torch.nn.Module, config: TrainConfig, run: Run) -> ShardedAdamW:
    """Biases and norms do not decay. Each rank keeps the state of its share of the parameters."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (config.adam_beta1, config.adam_beta2)
    return ShardedAdamW(groups, run, lr=config.learning_rate, betas=betas, eps=config.adam_epsilon)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Of step `step`, counted from 0: linear over warmup_steps, then a cosine to min_learning_rate at the last."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - config.warmup_steps) / span)))
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * cosine


def update(adamw: ShardedAdamW, config: TrainConfig, step: int, norm: float) -> None:
    """Clips gradients of the norm `norm`, steps and clears them."""
    adamw.clip(config.max_grad_norm or math.inf, norm)
    adamw.step(learning_rate(config, step))
