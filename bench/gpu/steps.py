"""What is tried on a device, from the ground up. A step returns lines that say what it has found, or raises."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import threading
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from place import Place

from dhp import train as training
from dhp.run.ops import packed_call
from dhp.run.runtime import Run
from dhp.settings.config import TrainConfig
from dhp.watch.record import Recorder
from dhp.watch.trace import Tracer

HEADS, KV_HEADS = 8, 2
EXCHANGES = ("ring", "direct", "hierarchical")
WORST = 6e-2  # of 16-bit results, relative to the largest entry: as in tests/python/ops
RING_RANKS = 4
STEPS = 4


class Skipped(Exception):
    """A step that this place, or this build, does not have."""


def library(place: Place) -> list[str]:
    kernels = {}
    for dtype, size in itertools.product((torch.bfloat16, torch.float16, torch.float32), (64, 128, 256, 12)):
        q = torch.empty(1, HEADS, size, dtype=dtype, device=place.device)
        kernels[f"{str(dtype).removeprefix('torch.')}×{size}"] = torch.ops.dhp.kernel_of(q)
    flash = [name for name, kernel in kernels.items() if kernel == "cuda_flash"]
    if place.device == "cuda" and flash != [f"{t}×{s}" for t in ("bfloat16", "float16") for s in (64, 128, 256)]:
        raise AssertionError(f"the kernels are {kernels}")
    memory = f", {place.memory_bytes() / 2**30:.0f} GiB" if place.memory_bytes() else ""
    driver = f", driver {place.driver()}" if place.driver() else ""
    return [f"{place.name()}{memory}{driver}", f"flash attention for {', '.join(flash) or 'nothing'}"]


def by_algebra(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: list[int], causal: bool) -> torch.Tensor:
    """Attention inside each sequence, by algebra."""
    outs = []
    for one, key, value in zip(*(t.split(lengths) for t in (q, k, v)), strict=True):
        key, value = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (key, value))
        scores = torch.einsum("qhd,khd->hqk", one, key) / math.sqrt(q.shape[-1])
        if causal:
            mask = torch.ones(len(one), len(one), dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(mask, -torch.inf)
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value))
    return torch.cat(outs)


def inputs(place: Place, tokens: int, size: int, seed: int = 0) -> list[torch.Tensor]:
    """q, k, v and the gradient of the output, in bf16."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(tokens, heads, size, generator=generator).to(place.device, torch.bfloat16)
        for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)
    ]


def worst_of(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    errors = [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)]
    if not all(error < WORST for error in errors):
        raise AssertionError(f"output and gradients of q, k and v are off by {errors}")
    return max(errors)


def reference(given: list[torch.Tensor], lengths: list[int], causal: bool) -> list[torch.Tensor]:
    """Output and gradients, fp64."""
    leaves = [t.double().requires_grad_() for t in given[:3]]
    q, k, v = leaves
    out = by_algebra(q, k, v, lengths, causal)
    return [out.detach(), *torch.autograd.grad(out, leaves, given[3].double())]


def flash(place: Place) -> list[str]:
    """Forward and backward, dense and packed, by the run-time's own call."""
    lines = []
    for size in place.sizes.head_sizes:
        worst = {"dense": 0.0, "packed": 0.0}
        calls = [([length], "dense") for length in place.sizes.lengths] + [([*place.sizes.lengths], "packed")]
        for (lengths, kind), causal in itertools.product(calls, (True, False)):
            given = inputs(place, sum(lengths), size, seed=len(lengths))
            leaves = [t.clone().requires_grad_() for t in given[:3]]
            out = torch.ops.dhp.ring_attention(*leaves, lengths, [0], "", 1 / math.sqrt(size), causal)
            found = [out.detach(), *torch.autograd.grad(out, leaves, given[3])]
            if max(lengths) > 1:  # one token attends to itself: gradients of q and k are rounding
                worst[kind] = max(worst[kind], worst_of(found, reference(given, lengths, causal)))
        off = ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items())
        lines.append(f"heads of {size}: off from fp64 by at most {off}")
    return lines


def ring(place: Place) -> list[str]:
    """Ranks as threads on one device, each with a stream of its own, without autograd, which has one thread for all."""
    if not hasattr(torch.ops.dhp, "ring_attention_backward"):
        raise Skipped("this build has no ranks as threads on a device")
    tokens, size = place.sizes.ring_tokens, place.sizes.head_sizes[0]
    given = inputs(place, tokens, size)
    expected = reference(given, [tokens], True)
    torch.accelerator.synchronize()
    lines = []
    for exchange in EXCHANGES:
        name = f"ring-{exchange}"
        torch.ops.dhp.create_thread_groups(name, RING_RANKS, f"{place.device}:0")
        found: list[list[torch.Tensor] | Exception] = [[] for _ in range(RING_RANKS)]
        threads = [
            threading.Thread(target=ring_rank, args=(place, rank, name, exchange, given, found))
            for rank in range(RING_RANKS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors := [each for each in found if isinstance(each, Exception)]:
            raise errors[0]
        whole = [torch.empty_like(t) for t in (given[3], *given[:3])]
        for rank, parts in enumerate(found):
            for target, part in zip(whole, parts, strict=True):  # type: ignore[arg-type]
                target[shard(tokens, rank)] = part.to(target.device)
        lines.append(f"{exchange}: {RING_RANKS} ranks off from fp64 by at most {worst_of(whole, expected):.1e}")
    return lines


def shard(tokens: int, rank: int) -> torch.Tensor:
    chunks = torch.arange(tokens).chunk(2 * RING_RANKS)
    return torch.cat([chunks[rank], chunks[2 * RING_RANKS - 1 - rank]])


def ring_rank(place: Place, rank: int, name: str, exchange: str, given: list[torch.Tensor], found: list[Any]) -> None:
    try:
        torch.accelerator.set_device_index(0)
        own = shard(len(given[0]), rank)
        packed = packed_call([len(given[0])], range(RING_RANKS), exchange, [0, 0, 1, 1])
        call = (packed, f"{name}/{rank}", 1 / math.sqrt(given[0].shape[-1]), True)
        with torch.no_grad(), torch.Stream(place.device) as stream:
            q, k, v, dout = (t[own.to(t.device)].contiguous() for t in given)
            out, lse = torch.ops.dhp.ring_attention_with_lse(q, k, v, *call, True)
            gradients = torch.ops.dhp.ring_attention_backward(dout, q, k, v, out, lse, *call)
        stream.synchronize()
        found[rank] = [out, *gradients]
    except Exception as error:
        torch.ops.dhp.report_failure(f"{name}/{rank}", f"rank {rank}: {error}")
        found[rank] = error


def group(place: Place) -> list[str]:
    """Joining alone, with the device's backend; its collectives; the end."""
    run = place.join()
    values = torch.arange(4.0, device=run.device)
    assert run.sum(values.clone()).tolist() == run.max(values).tolist() == [0.0, 1.0, 2.0, 3.0]
    run.barrier()
    if hasattr(torch.ops.dhp, "connect"):
        torch.ops.dhp.connect([0], run.traffic)
    backend = dist.get_backend_config(run.group)
    groups = len(dist.distributed_c10d._world.pg_map)
    run.close()
    return [f"{groups} process groups of {backend}, made and left"]


def settings(place: Place, name: str, **more: Any) -> TrainConfig:
    return TrainConfig(
        model=str(place.model()),
        data=str(place.data()),
        output_dir=str(place.folder / name),
        global_batch_size=6,
        capacity_tokens=100_000,
        cost_device="h100",  # the plans of one rank do not depend on it
        steps=STEPS,
        save_steps=0,
        learning_rate=1e-4,
        **more,
    )


def trained(run: Run, config: TrainConfig, reporter: Any, result: str = "", trace: str = "") -> None:
    recorder, tracer = Recorder(result, run, config), Tracer(trace or None, run)
    training.train(config, run, reporter, tracer, recorder, None)
    tracer.write()
    recorder.write()


def train(place: Place) -> list[str]:
    """The loop of `dhp train`, bf16 with autocast, against fp32 on the CPU; with a new cost, a result and a trace."""
    records: dict[str, list[Any]] = {}
    for where, precision in ((place.device, "bf16"), ("cpu", "fp32")):
        torch.ops.dhp.use_kernel("auto" if where == "cpu" or place.device != "late" else "cuda_flash")
        run = place.join(where)
        config = settings(place, where, precision=precision, recalibrate_every=2)
        reporter = SimpleNamespace(step=records.setdefault(where, []).append, say=lambda text: None)
        trained(run, config, reporter, str(place.folder / f"{where}.json"), str(place.folder / f"{where}.trace.json"))
        run.close()
    pairs = list(zip(records[place.device], records["cpu"], strict=True))
    loss = max(abs(a.loss / b.loss - 1) for a, b in pairs)
    norm = max(abs(a.grad_norm / b.grad_norm - 1) for a, b in pairs)
    if not (loss < 0.02 and norm < 0.1):
        raise AssertionError(
            f"losses {[(a.loss, b.loss) for a, b in pairs]} are off by {loss:.1%}, norms by {norm:.1%}"
        )
    busy = records[place.device][-1].emulated_step_s
    if not busy > 0.0:
        raise AssertionError("tasks took no time")
    return [f"{STEPS} steps: losses off from fp32 on the CPU by {loss:.2%}, gradient norms by {norm:.2%}"]


def waits(place: Place) -> list[str]:
    """Of the host for the device, in a step, once it is warm."""
    take = place.count_waits()
    counts: list[dict[str, int]] = []
    tasks: list[int] = []

    def step(record: Any) -> None:
        counts.append(take())
        tasks.append(len(record.degrees))

    run = place.join()
    trained(run, settings(place, "waits", precision="bf16"), SimpleNamespace(step=step, say=lambda text: None))
    run.close()
    # The first step is not warm, and the last is saved.
    lines = []
    for count, number in list(zip(counts, tasks, strict=True))[1:-1]:
        each = ", ".join(f"{times} {name}" for name, times in sorted(count.items()))
        lines.append(f"{sum(count.values())} in a step of {number} tasks: {each}")
    return lines


def attention_s(place: Place, lengths: list[int], calls: int = 1) -> float:
    """Seconds of forward and backward, all in `calls` calls."""
    given = inputs(place, sum(lengths), place.sizes.head_sizes[-1] // 2)
    leaves = [t.requires_grad_() for t in given[:3]]
    scale = 1 / math.sqrt(leaves[0].shape[-1])
    each = len(lengths) // calls

    def run() -> None:
        if calls == 1:
            outs = [torch.ops.dhp.ring_attention(*leaves, lengths, [0], "", scale)]
        else:
            parts = zip(*(t.split(sum(lengths[:each])) for t in leaves), strict=True)
            outs = [torch.ops.dhp.ring_attention(*part, lengths[:each], [0], "", scale) for part in parts]
        torch.autograd.grad(torch.cat(outs), leaves, given[3])

    return place.seconds(run)


def packed(place: Place) -> list[str]:
    """Short sequences in one packed call, and in one call each."""
    count, tokens = place.sizes.short
    one, many = attention_s(place, [tokens] * count), attention_s(place, [tokens] * count, calls=count)
    rate = count * tokens / one
    return [
        f"{count} sequences of {tokens} tokens: one packed call {one * 1e3:.2f} ms ({rate / 1e6:.2f} M tokens/s), "
        f"one call each {many * 1e3:.2f} ms: {many / one:.1f} times as long"
    ]


def alone(place: Place) -> list[str]:
    """A member's share of a ring, times the members, over flash attention of torch alone on the whole sequence. The
    shards of the others are there already: what is left are kernels, copies and merges."""
    lines = []
    size = place.sizes.head_sizes[-1] // 2
    scale = 1 / math.sqrt(size)
    for tokens in place.sizes.alone_tokens:
        given = inputs(place, tokens, size)
        whole = place.seconds(lambda given=given: flash_alone(given, scale))
        ratios = []
        for degree in place.sizes.alone_degrees:
            name = f"alone-{degree}"
            torch.ops.dhp.create_mirror_group(name, degree, 0, f"{place.device}:0")
            own = [t[: tokens // degree].clone().requires_grad_() for t in given]
            ranks = list(range(degree))

            def share(own: list[torch.Tensor] = own, ranks: list[int] = ranks, name: str = name) -> None:
                out = torch.ops.dhp.ring_attention(*own[:3], [tokens], ranks, name, scale)  # noqa: B023 (run now)
                torch.autograd.grad(out, own[:3], own[3].detach())

            ratios.append(f"{degree} ranks {place.seconds(share) * degree / whole:.2f}")
        lines.append(f"{tokens:,} tokens, flash attention {whole * 1e3:.2f} ms: {', '.join(ratios)} times")
    return lines


def flash_alone(given: list[torch.Tensor], scale: float) -> None:
    q, k, v, dout = (t[None] for t in given)
    rows = q.shape[1]
    out, lse, *state = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, rows, rows, 0.0, True, False, scale=scale
    )
    torch.ops.aten._flash_attention_backward(
        dout, q, k, v, out, lse, None, None, rows, rows, 0.0, True, state[0], state[1], scale=scale
    )


def two_ranks(place: Place) -> list[str]:
    """Two processes with the device's own backend: on one GPU by NCCL 2.30, where it was brought along."""
    if place.device == "cuda" and not os.environ.get("NCCL_LIBRARY") and torch.cuda.device_count() < 2:
        raise Skipped("one GPU, and no NCCL of 2.30 or later was brought along (NCCL_LIBRARY=…/libnccl.so.2)")
    context = multiprocessing.get_context("spawn")  # this process has begun to use the device
    if library := os.environ.get("NCCL_LIBRARY"):
        os.environ.update(LD_PRELOAD=library, NCCL_MULTI_RANK_GPU_ENABLE="1")
    port = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    pipes, processes = [], []
    for rank in (0, 1):
        ours, theirs = context.Pipe(duplex=False)
        processes.append(context.Process(target=one_of_two, args=(place, rank, port.port, theirs), daemon=True))
        processes[-1].start()
        pipes.append(ours)
    errors = [pipe.recv() if pipe.poll(100) else "nothing came" for pipe in pipes]
    for process in processes:  # before the store ends
        process.join(20)
    if problems := [error for error in errors if isinstance(error, str)]:
        raise AssertionError(problems[0])
    return [f"ring attention of two processes off from fp64 by at most {max(errors):.1e}"]


def one_of_two(place: Place, rank: int, port: int, pipe: Any) -> None:
    shares = place.device == "cuda" and torch.cuda.device_count() < 2
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0" if shares else str(rank), LOCAL_WORLD_SIZE="2")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    try:
        place.begin()
        run = place.join()
        tokens, size = place.sizes.ring_tokens, place.sizes.head_sizes[0]
        given = [t.to(run.device) for t in inputs(place, tokens, size)]
        chunks = torch.arange(tokens).chunk(4)
        own = torch.cat([chunks[rank], chunks[3 - rank]]).to(run.device)
        leaves = [t[own].requires_grad_() for t in given[:3]]
        out = torch.ops.dhp.ring_attention(*leaves, [tokens], [0, 1], run.traffic, 1 / math.sqrt(size))
        found = [out.detach(), *torch.autograd.grad(out, leaves, given[3][own])]
        expected = [t[own] for t in reference(given, [tokens], True)]
        pipe.send(worst_of(found, expected))
        run.close()
    except Exception as error:
        pipe.send(f"rank {rank}: {type(error).__name__}: {error}")
