"""The loss that levels the experts of a mixture (Switch Transformer, arXiv 2101.03961), of each sequence as
transformers computes it for that sequence alone: coefficient x experts x sum over experts of f x P. f is the share of
tokens that the router sends to an expert, P its mean probability, both over all layers.

f carries no gradient, so counts are added over the group, and the sum over a rank's tokens of P is linear: the terms of
all ranks add up to the sequence's loss.
"""

from __future__ import annotations

from typing import Any

import torch

from dhp.models.attention import Group
from dhp.task.layout import TaskLayout


class RouterLoss:
    def __init__(self, coefficient: float, experts: int, chosen: int) -> None:
        self.coefficient, self.experts, self.chosen = coefficient, experts, chosen
        self.asks = {"output_router_logits": True}

    def loss(self, router_logits: Any, layout: TaskLayout, group: Group) -> torch.Tensor:
        """This rank's part, summed over the sequences of the task. `router_logits`: [T_local, experts] a layer."""
        gates = torch.stack([gate.reshape(-1, self.experts) for gate in router_logits])  # [layers, T_local, experts]
        weights = gates.softmax(-1)
        sent = torch.zeros_like(weights).scatter_(-1, weights.topk(self.chosen, -1).indices, 1.0)
        of_sequence = torch.zeros(gates.shape[1], len(layout.tokens), dtype=weights.dtype)
        begin = 0
        for i, (tokens, local) in enumerate(zip(layout.tokens, layout.local_tokens, strict=True)):
            of_sequence[begin : begin + len(local), i] = torch.from_numpy(local < tokens).to(weights.dtype)  # no pads
            begin += len(local)
        of_sequence = of_sequence.to(gates.device)
        sent, probable = (torch.einsum("lte,ts->se", part, of_sequence) for part in (sent, weights))
        members, sequences = layout.degree, len(layout.tokens)
        counts = [sequences] * members
        everyone = torch.ops.dhp.exchange_rows(
            sent.detach().repeat(members, 1), counts, counts, group.ranks, group.traffic
        )
        rows = torch.tensor(layout.tokens, dtype=weights.dtype, device=gates.device)[:, None] * len(gates)
        shares = everyone.reshape(members, sequences, self.experts).sum(0) / rows
        return self.coefficient * self.experts * (shares * probable / rows).sum()


def of(model: Any, text: Any) -> RouterLoss | None:
    """Of a model whose config asks for it: `output_router_logits` and a coefficient."""
    config = text.config
    asked = getattr(config, "output_router_logits", False) or getattr(model.config, "output_router_logits", False)
    coefficient = getattr(config, "router_aux_loss_coef", 0.0) or getattr(model.config, "router_aux_loss_coef", 0.0)
    if not asked or not coefficient:
        return None
    experts = getattr(config, "num_experts", None) or config.num_local_experts
    return RouterLoss(coefficient, experts, config.num_experts_per_tok)
