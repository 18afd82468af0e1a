"""Ring attention of the run-time beside PyTorch's own ring loop, and beside one process.

    python bench/peers_attention.py [--degrees 2 4] [--tokens 1024 4096] [--dtypes float32 bfloat16] [--repeats 5]
    python bench/peers_attention.py --degrees 4 --tokens 16384 --heads 2 --repeats 3
    python bench/peers_attention.py short        # packed short sequences at degree 1

Groups: causal, forward + backward, one torch thread a process, one sequence or `--packed` equal ones of the same tokens
together. CPU seconds of all ranks' processes, Gloo's threads included, over those of one process with
`F.scaled_dot_product_attention`: every process runs that too, and their mean counts. "thread" is our op without the
threads that move bytes. PyTorch's is `_templated_ring_attention` and its backward
(torch.distributed.tensor.experimental), which `context_parallel` runs on GPUs, with PyTorch's CPU operator handed to
it, since `context_parallel` itself has no rule for that operator. It is called without autograd, which is in ours. It
knows no packed sequences: it is called for each, and, as long as all are equal, can be called for all as one batch;
SDPA is called for each. Outputs and gradients of both are compared with those of the one process.

short: degree 1 against the same kernel by SDPA: a call a sequence, one call for a batch of equal lengths, and a batch
padded to its longest, with the causal mask alone or with a mask that also names pads, as Hugging Face makes it.

Sides take turns. Median (least to most).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from distribution_cost import shard
from measure import in_turns, machine, on_ranks, over, process_seconds, span, thread_seconds
from torch.distributed.tensor.experimental import _attention as peer
from torch.distributed.tensor.experimental._context_parallel import _attention as peer_loop

from dhp.run import ops

HEAD_SIZE = 64
ONE, OURS, PEER, PEER_BATCH = "one process", "ring", "torch's loop", "torch's loop, one batch"

Tensors = list[torch.Tensor]  # q, k, v and the gradient of the output, or the output and the gradients of q, k, v


@dataclass(frozen=True)
class Case:
    degree: int
    dtype: str
    tokens: int  # of all sequences
    sequences: int
    heads: int


def as_batch(packed: torch.Tensor, sequences: int) -> torch.Tensor:
    """[T, H, D] of equal sequences -> [B, H, T / B, D], as SDPA has it; a view."""
    return packed.unflatten(0, (sequences, -1)).transpose(1, 2)


def as_packed(batch: torch.Tensor) -> torch.Tensor:
    return batch.transpose(1, 2).flatten(0, 1)


def by_autograd(call: Callable[..., torch.Tensor], inputs: Tensors) -> Tensors:
    leaves = [t.detach().requires_grad_() for t in inputs[:3]]
    out = call(*leaves)
    out.backward(inputs[3])
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def run_sdpa(lengths: list[int], inputs: Tensors) -> Tensors:
    """A call a sequence."""

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = zip(*(t.split(lengths) for t in (q, k, v)), strict=True)
        calls = (F.scaled_dot_product_attention(*(as_batch(t, 1) for t in part), is_causal=True) for part in parts)
        return torch.cat([as_packed(out) for out in calls])

    return by_autograd(call, inputs)


def run_ours(lengths: list[int], ranks: list[int], group: str, inputs: Tensors) -> Tensors:
    scale = HEAD_SIZE**-0.5
    return by_autograd(
        lambda q, k, v: torch.ops.dhp.ring_attention(q, k, v, lengths, ranks, group, scale, True, "ring", []), inputs
    )


def run_peer(group: dist.ProcessGroup, sequences: int, one_batch: bool, inputs: Tensors) -> Tensors:
    """PyTorch's loop on a shard, a call a sequence or one for all."""
    parts = [inputs] if one_batch else list(zip(*(t.chunk(sequences) for t in inputs), strict=True))
    done = [run_peer_batch(group, sequences if one_batch else 1, list(part)) for part in parts]
    return [torch.cat(tensors) for tensors in zip(*done, strict=True)]


@torch.no_grad()
def run_peer_batch(group: dist.ProcessGroup, sequences: int, inputs: Tensors) -> Tensors:
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    q, k, v, dout = (as_batch(t, sequences) for t in inputs)
    out, lse = peer._templated_ring_attention(group, 2, forward, q, k, v, is_causal=True, dropout_p=0.0)[:2]
    gradients = peer_loop._templated_ring_attention_backward(
        group, 2, backward, dout, "grad_out", q, k, v, out, lse, is_causal=True, dropout_p=0.0
    )[:3]
    return [as_packed(t) for t in (out, *gradients)]


def furthest(found: Tensors, expected: Tensors) -> float:
    """Relative L2."""
    pairs = zip(found, expected, strict=True)
    return max(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs)


def rank_work(rank: int, cases: list[Case], repeats: int) -> list[dict[str, Any]]:
    ops.load()
    return [measure_case(rank, case, repeats) for case in cases]


def measure_case(rank: int, case: Case, repeats: int) -> dict[str, Any]:
    """CPU seconds of this rank by side, and how far outputs and gradients are from one process'."""
    ranks = list(range(case.degree))
    traffic, theirs = dist.new_group(ranks), dist.new_group(ranks)
    generator = torch.Generator().manual_seed(0)
    shape = case.tokens, case.heads, HEAD_SIZE
    whole = [torch.randn(shape, generator=generator).to(getattr(torch, case.dtype)) for _ in range(4)]
    own = [shard(t, case.degree, rank, case.sequences) for t in whole]
    lengths = [case.tokens // case.sequences] * case.sequences
    sides: dict[str, Callable[[], Tensors]] = {
        ONE: partial(run_sdpa, lengths, whole),
        OURS: partial(run_ours, lengths, ranks, traffic.group_name, own),
        PEER: partial(run_peer, theirs, case.sequences, False, own),
    }
    if case.sequences > 1:
        sides[PEER_BATCH] = partial(run_peer, theirs, case.sequences, True, own)
    expected = [shard(t, case.degree, rank, case.sequences) for t in sides[ONE]()]
    off = {name: furthest(side(), expected) for name, side in sides.items() if name != ONE}

    def timed(side: Callable[[], Tensors]) -> tuple[float, float]:
        dist.barrier()
        thread_s = 0.0

        def call() -> None:
            nonlocal thread_s
            thread_s = thread_seconds(side)

        process_s = process_seconds(call)
        return process_s, thread_s

    seconds = in_turns({name: partial(timed, side) for name, side in sides.items()}, repeats)
    dist.barrier()
    torch.ops.dhp.release_all_groups()
    return {"seconds": seconds, "off": off}


def group_row(case: Case, ranks: list[dict[str, Any]]) -> list[str]:
    """`ranks`: what each has measured."""

    def of_all(side: str, clock: int) -> list[float]:
        """By repeat."""
        return [sum(one) for one in zip(*([s[clock] for s in r["seconds"][side]] for r in ranks), strict=True)]

    one = [[s / case.degree for s in of_all(ONE, clock)] for clock in (0, 1)]
    ours, theirs = of_all(OURS, 0), of_all(PEER, 0)
    batched = of_all(PEER_BATCH, 0) if case.sequences > 1 else []
    off = {side: max(r["off"][side] for r in ranks) for side in ranks[0]["off"]}
    worst_peer = max(value for side, value in off.items() if side != OURS)
    return [
        f"d={case.degree} {case.dtype} {case.tokens:,}, {case.sequences}",
        f"{1000 * statistics.median(one[0]):.1f}",
        span(over(ours, one[0])),
        f"{statistics.median(over(of_all(OURS, 1), one[1])):.2f}",
        span(over(theirs, one[0])),
        span(over(theirs, ours)),
        span(over(batched, ours)) if batched else "",
        f"{off[OURS]:.0e}, {worst_peer:.0e}",
    ]


def run_batched(mask: torch.Tensor | None, inputs: Tensors) -> Tensors:
    """[B, H, T, D], one call; a mask takes the place of the causal one."""
    return by_autograd(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None), inputs
    )


def padded(packed: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """[T, H, D] -> [B, H, longest, D], zeros behind each sequence."""
    return torch.nn.utils.rnn.pad_sequence(packed.split(lengths), batch_first=True).transpose(1, 2)


def mask_of(lengths: list[int]) -> torch.Tensor:
    """bool [B, 1, T, T]: causal, and no key that is a pad."""
    longest = max(lengths)
    keys = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return torch.ones(longest, longest, dtype=torch.bool).tril() & keys[:, None, None, :]


def short_rows(lengths: list[int], dtype: str, heads: int, repeats: int) -> list[list[str]]:
    """Rows: side, ms, and its cost over ours."""
    generator = torch.Generator().manual_seed(0)
    shape = sum(lengths), heads, HEAD_SIZE
    packed = [torch.randn(shape, generator=generator).to(getattr(torch, dtype)) for _ in range(4)]
    sides = {"op, degree 1": partial(run_ours, lengths, [0], ""), "SDPA in a loop": partial(run_sdpa, lengths)}
    calls = {name: partial(thread_seconds, partial(side, packed)) for name, side in sides.items()}
    if len(set(lengths)) == 1:
        batch = [as_batch(t, len(lengths)).contiguous() for t in packed]
        calls["one batched call"] = partial(thread_seconds, partial(run_batched, None, batch))
    else:
        batch = [padded(t, lengths) for t in packed]
        calls["padded batch, causal"] = partial(thread_seconds, partial(run_batched, None, batch))
        calls["padded batch, mask"] = partial(thread_seconds, partial(run_batched, mask_of(lengths), batch))
    seconds = in_turns(calls, repeats, warm_up=2)
    ours = seconds["op, degree 1"]
    return [[name, f"{1000 * statistics.median(s):.1f}", span(over(s, ours))] for name, s in seconds.items()]


def print_table(columns: list[str]) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def groups(options: argparse.Namespace) -> None:
    print_table(["case: tokens, sequences", "one process, ms", "ring / one", "thread", "torch's loop / one",
                 "torch's loop / ring", "as one batch / ring", "off: ring, torch"])  # fmt: skip
    for degree in options.degrees:
        kinds = itertools.product(options.dtypes, options.tokens, (1, options.packed))
        cases = [Case(degree, dtype, tokens, sequences, options.heads) for dtype, tokens, sequences in kinds]
        measured = on_ranks(degree, rank_work, cases, options.repeats)
        for case, *ranks in zip(cases, *measured, strict=True):
            print(f"| {' | '.join(group_row(case, ranks))} |", flush=True)


def short(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    ops.load()
    print_table(["case", "side", "ms", "over the op"])
    draw = Random(0)
    cases = {"100 × 64": [64] * 100, "100 of 16 to 112": [draw.randint(16, 112) for _ in range(100)]}
    for name, dtype in itertools.product(cases, options.dtypes):
        for row in short_rows(cases[name], dtype, options.heads, 3 * options.repeats):
            print(f"| {' | '.join([f'{name}, {dtype}', *row])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["groups", "short"], help="left out: both")
    parser.add_argument("--degrees", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--packed", type=int, default=8, help="equal sequences of the packed cases")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{machine()}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, ", end="")
    print(f"{options.heads} heads of {HEAD_SIZE}; {options.repeats} repeats: median (least to most)\n")
    for what in [options.what] if options.what else ["groups", "short"]:
        {"groups": groups, "short": short}[what](options)
        print()


if __name__ == "__main__":
    main()
