"""The loss of the labelled tokens of a rank, without ever holding the logits of all of them."""

from __future__ import annotations

from typing import Any

import torch

MOST_LOGITS = 1 << 25  # at a time: 128 MiB of fp32


def token_loss_sum(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the token losses: a scalar in fp32, as in transformers, also for fp64 models.

    hidden [n, C] of the labelled tokens, labels [n]. Rows are taken in chunks of at most MOST_LOGITS logits, which are
    computed again in the backward pass: one more pass of the head for a fixed amount of memory, 8 bytes a logit
    (src/cost/count/analytic.cpp counts it). Half as many or fewer are taken at once, which holds up to 16 bytes.
    """
    rows, columns = len(labels), int(getattr(head, "out_features", 0))
    if type(head) is not torch.nn.Linear or rows * columns <= MOST_LOGITS // 2:
        return _sum(head(hidden), labels)
    return _ChunkedLoss.apply(hidden, head.weight, head.bias, labels, max(1, MOST_LOGITS // columns))


def _sum(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")


class _ChunkedLoss(torch.autograd.Function):
    """Keeps hidden, labels and the logarithm of each row's sum of exponentials."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        chunk_rows: int,
    ) -> torch.Tensor:
        device = hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        ctx.dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
        ctx.chunk_rows = chunk_rows
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        sums = []
        with torch.autocast(device, enabled=False):
            weight_now, bias_now = _as(ctx.dtype, weight, bias)
            for begin in range(0, len(labels), chunk_rows):
                own = slice(begin, begin + chunk_rows)
                logits = _logits(hidden[own].to(ctx.dtype), weight_now, bias_now)
                sums.append(logits.logsumexp(-1))
                total += (sums[-1] - logits.gather(-1, labels[own, None])[:, 0]).sum()
                del logits  # before the next ones
        ctx.save_for_backward(hidden, weight, bias, labels, torch.cat(sums))
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, labels, sums = ctx.saved_tensors
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        # 16 bits would lose what each chunk adds
        sums_in = torch.float32 if weight.element_size() == 2 else weight.dtype
        d_weight = torch.zeros_like(weight, dtype=sums_in) if wants_weight else None
        d_bias = torch.zeros_like(bias, dtype=sums_in) if wants_bias else None
        with torch.autocast(hidden.device.type, enabled=False):
            weight_now, bias_now = _as(ctx.dtype, weight, bias)
            for begin in range(0, len(labels), ctx.chunk_rows):
                own = slice(begin, begin + ctx.chunk_rows)
                rows = hidden[own].to(ctx.dtype)
                share = _logits(rows, weight_now, bias_now).sub_(sums[own, None]).exp_()
                share.scatter_add_(-1, labels[own, None], torch.full_like(sums[own, None], -1.0))
                d_logits = share.mul_(outer[0]).to(ctx.dtype)
                if d_hidden is not None:
                    d_hidden[own] = (d_logits @ weight_now).to(hidden.dtype)
                if d_weight is not None:
                    if d_weight.dtype == rows.dtype:
                        d_weight.addmm_(d_logits.t(), rows)
                    else:
                        d_weight += d_logits.t() @ rows
                if d_bias is not None:
                    d_bias += d_logits.sum(0, dtype=sums_in)
                del share, d_logits
        d_weight, d_bias = (None if sums is None else sums.to(weight.dtype) for sums in (d_weight, d_bias))
        return d_hidden, d_weight, d_bias, None, None


def _as(dtype: torch.dtype, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, Any]:
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def _logits(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.nn.functional.linear(rows, weight, bias).float()
