"""Peak memory of the loss of one rank, forward and backward: logits of all rows at once, and in chunks.

    python bench/loss_memory.py [--rows 1024 4096] [--vocabulary 151936] [--hidden 256]

What is above the hidden states, the head and their gradients, by the peak of this process (Linux; with --device cuda by
torch's own counter). "counted" is what `dhp cost` counts for it: logits, the sum of the head's gradient, and a copy of
16 bits where training is not in fp32.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from pathlib import Path

import torch

from dhp.models import loss

MIB = 1 << 20
STATUS = Path("/proc/self/status")
LOGIT_BYTES = 8  # src/cost/count/analytic.cpp
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def peak_bytes(work: Callable[[], None], device: torch.device) -> int:
    """The most memory that `work` has at a time beyond what there is before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device) - before)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def loss_peak(rows: int, hidden: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> int:
    """Of forward and backward, beyond the gradients of hidden states and head, which are there before."""
    head = torch.nn.Linear(hidden, vocabulary, bias=False, dtype=dtype, device=device)
    states = torch.randn(rows, hidden, dtype=dtype, device=device, requires_grad=True)
    labels = torch.randint(vocabulary, (rows,), device=device)
    head.weight.grad, states.grad = torch.zeros_like(head.weight), torch.zeros_like(states)

    def work() -> None:
        loss.token_loss_sum(head, states, labels).backward()

    return peak_bytes(work, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 1024, 4096])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    most = loss.MOST_LOGITS
    loss_peak(8, options.hidden, 1000, torch.float32, device)  # what torch keeps for itself
    weights = options.hidden * options.vocabulary
    print(f"{'rows':>6} {'precision':>9} {'all at once':>12} {'in chunks':>10} {'counted':>8}   MiB")
    for rows in options.rows:
        for name, dtype in PRECISIONS.items():
            peaks = []
            for loss.MOST_LOGITS in (1 << 60, most):
                peaks.append(loss_peak(rows, options.hidden, options.vocabulary, dtype, device) / MIB)
            counted = (most * LOGIT_BYTES + weights * (4 + (2 if name == "bf16" else 0))) / MIB
            print(f"{rows:>6} {name:>9} {peaks[0]:>12,.0f} {peaks[1]:>10,.0f} {counted:>8,.0f}", flush=True)


if __name__ == "__main__":
    main()
