"""AdamW with sharded state (ZeRO-1), linear warm-up and cosine decay."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch.distributed.optim import ZeroRedundancyOptimizer

from dhp.run.runtime import Run
from dhp.settings.config import TrainConfig


def make_optimizer(model: torch.nn.Module, config: TrainConfig, run: Run) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters; biases and norms do not decay. With several ranks each keeps the state of
    its share of the parameters and sends the others the result."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
    }
    if run.world_size == 1:
        return torch.optim.AdamW(groups, **settings)
    return _Sharded(groups, run, **settings)


class _Sharded(ZeroRedundancyOptimizer):
    """AdamW with sharded state, whose waits for other ranks end as those of the run do."""

    def __init__(self, groups: list[dict[str, Any]], run: Run, **settings: Any) -> None:
        self._run = run
        super().__init__(groups, torch.optim.AdamW, process_group=run.group, **settings)

    def _sync_params(self) -> None:
        shares = (self._broadcast_params_from_rank(r) for r in range(self.world_size))  # type: ignore[attr-defined]
        on_device = self._run.device.type != "cpu"
        self._run.wait_for("optimizer", lambda: list(itertools.chain(*shares)), on_device=on_device)

    def consolidate_state_dict(self, to: int = 0) -> None:
        with self._run.collective("state of the optimizer"):
            super().consolidate_state_dict(to)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Of step `step`, counted from 0: linear over warmup_steps, then a cosine to min_learning_rate at the last."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    span = max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - config.warmup_steps) / span)))
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * cosine


def gradient_norm(model: torch.nn.Module) -> torch.Tensor:
    """The norm of all gradients together."""
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


def update(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, norm: torch.Tensor
) -> None:
    """Clips gradients of the norm `norm`, steps and clears them."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, step)
    limit = config.max_grad_norm or math.inf
    torch.nn.utils.clip_grads_with_norm_([p for p in model.parameters() if p.grad is not None], limit, norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
