"""What it costs to distribute attention: CPU time of `degree` ranks together against one process for the same sequence.

    python bench/distribution_cost.py                     # 4,096 tokens, 8 heads of 64, degree 4, 8 and 2 KV heads
    python bench/distribution_cost.py --exchange ring direct hierarchical --nodes 2

Both sides run in turns in the same processes, so that both meet the same load: for the one-process side every process
computes the whole sequence by itself. The clock is CPU time, because ranks outnumber cores: waiting costs nothing and a
busy neighbour little. "compute" is the thread that calls the op, forward and backward, with its copies, merges and
sends; "process" adds the threads that move the bytes. One torch thread a process.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time

import torch
import torch.distributed as dist
from measure import machine, on_ranks, over, span

from dhp.run import ops


def shard(whole: torch.Tensor, degree: int, position: int, sequences: int = 1) -> torch.Tensor:
    """[T, ...] -> [T / degree, ...]: of each of so many equal sequences the chunk `position`, and the same from its
    end."""
    parts = []
    for one in whole.chunk(sequences):
        chunks = one.chunk(2 * degree)
        parts += [chunks[position], chunks[2 * degree - 1 - position]]
    return torch.cat(parts)


def forward_backward(
    inputs: list[torch.Tensor], tokens: int, ranks: list[int], group: str, exchange: str, nodes: list[int]
) -> tuple[float, float]:
    """CPU seconds of this thread and of this process."""
    q, k, v, dout = inputs
    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    start = time.thread_time(), time.process_time()
    out = torch.ops.dhp.ring_attention(*leaves, [tokens], ranks, group, q.shape[-1] ** -0.5, True, exchange, nodes)
    out.backward(dout)
    return time.thread_time() - start[0], time.process_time() - start[1]


def rank_work(rank: int, options: argparse.Namespace) -> dict[int, list[dict[str, tuple[float, float]]]]:
    ops.load()
    degree, tokens = options.degree, options.tokens
    traffic = dist.new_group(list(range(degree)))
    dtype = getattr(torch, options.dtype)
    ranks = list(range(degree))
    nodes = [r * options.nodes // degree for r in ranks]
    results: dict[int, list[dict[str, tuple[float, float]]]] = {}
    for kv_heads in options.kv_heads:
        generator = torch.Generator().manual_seed(0)
        heads = [options.heads, kv_heads, kv_heads, options.heads]
        whole = [torch.randn(tokens, h, options.head_size, generator=generator).to(dtype) for h in heads]
        part = [shard(t, degree, rank) for t in whole]
        results[kv_heads] = []
        for _ in range(options.repeats + 1):
            dist.barrier()
            runs = {"one": forward_backward(whole, tokens, [rank], "", "ring", [])}
            for exchange in options.exchange:
                dist.barrier()
                runs[exchange] = forward_backward(part, tokens, ranks, traffic.group_name, exchange, nodes)
            results[kv_heads].append(runs)
        del results[kv_heads][0]  # warms up
    dist.barrier()
    torch.ops.dhp.release_all_groups()
    return results


def report(options: argparse.Namespace, results: list[dict[int, list[dict[str, tuple[float, float]]]]]) -> None:
    print(f"{machine()}, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, ", end="")
    print(f"{options.dtype}, Gloo over loopback")
    print(f"{options.tokens} tokens, {options.heads} heads of {options.head_size}, degree {options.degree}, ", end="")
    print(f"forward + backward, {options.repeats} repeats: median (least to most)")
    for kv_heads, exchange in itertools.product(options.kv_heads, options.exchange):
        for clock, name in enumerate(("compute", "process")):
            repeats = list(zip(*(result[kv_heads] for result in results), strict=True))
            one = [statistics.mean(run["one"][clock] for run in runs) for runs in repeats]
            group = [sum(run[exchange][clock] for run in runs) for runs in repeats]
            print(
                f"{exchange}, {kv_heads} KV heads, {name} CPU: one process {statistics.median(one):.3f} s, all ranks "
                f"{statistics.median(group):.3f} s, ratio {span(over(group, one), '.3f')}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--kv-heads", type=int, nargs="+", default=[8, 2])
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--degree", type=int, default=4)
    parser.add_argument("--exchange", nargs="+", default=["ring"], choices=["ring", "direct", "hierarchical"])
    parser.add_argument("--nodes", type=int, default=1, help="that hierarchical takes the ranks to be on")
    parser.add_argument("--dtype", default="float32", choices=["float64", "float32", "bfloat16", "float16"])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.tokens % (2 * options.degree):
        parser.error(f"--tokens must be a multiple of {2 * options.degree}")
    report(options, on_ranks(options.degree, rank_work, options))


if __name__ == "__main__":
    main()
