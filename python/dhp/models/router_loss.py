"""The loss that levels the experts of a mixture (Switch Transformer, arXiv 2101.03961). Of one sequence it is that of
transformers: coefficient x experts x sum over experts of f x P. f is the share of tokens that the router sends to an
expert, P its mean probability, both over all layers. Of a batch it is the mean over its sequences, weighed by their
labels, so that the coefficient means the same whatever the size of the batch.

f carries no gradient, so counts are added over the group, and the sum over a rank's tokens of P is linear: the terms of
all ranks add up to the sequence's loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dhp._core import InputError
from dhp.data.text import IGNORED
from dhp.models.attention import Group
from dhp.task.input import TaskInput

Upload = Callable[..., list[torch.Tensor]]


class RouterLoss:
    def __init__(self, coefficient: float, experts: int, chosen: int) -> None:
        self.coefficient, self.experts, self.chosen = coefficient, experts, chosen
        self.asks = {"output_router_logits": True}

    def loss(self, out: Any, task_input: TaskInput, valid_tokens: int, group: Group, upload: Upload) -> torch.Tensor:
        """This rank's part, summed over the sequences of the task. `out` has the logits, [T_local, experts] a layer."""
        logits = getattr(out, "router_logits", None)
        if not logits:
            raise InputError(
                "output_router_logits: true in config.json, but the model gives no logits of routers; set it to false"
            )
        layout = task_input.layout
        of_sequence, weights = upload(*_sequences(task_input, valid_tokens, logits[0].dtype))
        sent = probable = torch.zeros((), dtype=of_sequence.dtype, device=of_sequence.device)
        # In fp32 at least: 8 bits do not hold counts
        with torch.autocast(of_sequence.device.type, enabled=False):
            for gate in logits:
                probability = gate.reshape(-1, self.experts).to(of_sequence.dtype).softmax(-1)
                chosen = torch.zeros_like(probability).scatter_(-1, probability.topk(self.chosen, -1).indices, 1.0)
                sent = sent + of_sequence.t() @ chosen
                probable = probable + of_sequence.t() @ probability
            members, sequences = layout.degree, len(layout.tokens)
            counts = [sequences] * members
            everyone = torch.ops.dhp.exchange_rows(
                sent.detach().repeat(members, 1), counts, counts, group.ranks, group.traffic
            )
            shares = everyone.reshape(members, sequences, self.experts).sum(0)
            # weights: of a sequence, by the square of its rows
            return self.coefficient * self.experts * (weights[:, None] * shares * probable).sum() / len(logits) ** 2


def _sequences(task_input: TaskInput, valid_tokens: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of this rank's tokens are of which sequence [T_local, sequences], pads of none; and each sequence's share
    of the batch's labels by the square of its tokens [sequences]."""
    layout = task_input.layout
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    of_sequence = torch.zeros(sum(map(len, layout.local_tokens)), len(layout.tokens), dtype=precise)
    begin = 0
    for i, (tokens, local) in enumerate(zip(layout.tokens, layout.local_tokens, strict=True)):
        of_sequence[begin : begin + len(local), i] = torch.from_numpy(local < tokens).to(precise)
        begin += len(local)
    shares = [int((encoded.labels[1:] != IGNORED).sum()) / valid_tokens for encoded in task_input.encoded]
    weights = [share / tokens**2 for share, tokens in zip(shares, layout.tokens, strict=True)]
    return of_sequence, torch.tensor(weights, dtype=precise)


def of(model: Any, text: Any) -> RouterLoss | None:
    """Of a model whose config asks for it: `output_router_logits` and a coefficient."""
    config = text.config
    asked = getattr(config, "output_router_logits", False) or getattr(model.config, "output_router_logits", False)
    coefficient = getattr(config, "router_aux_loss_coef", 0.0) or getattr(model.config, "router_aux_loss_coef", 0.0)
    if not asked or not coefficient:
        return None
    experts = getattr(config, "num_experts", None) or config.num_local_experts
    return RouterLoss(coefficient, experts, config.num_experts_per_tok)
