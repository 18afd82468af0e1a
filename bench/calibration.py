"""How far off calibrated estimates are on tasks that the fit has not seen.

    python bench/calibration.py                                      # the demo's tiny Qwen3-VL and data, on the CPU
    python bench/calibration.py --model FOLDER --data FILE.jsonl     # yours; on the GPU where there is one

`dhp calibrate` measures and fits, several times with other tasks each, on three sets of them:

    spread    lengths, degrees, packings and shares of vision spread evenly; left out: other lengths, degrees between
              those of the fit, packings of 3 and 5 sequences beside single ones
    data      tasks that planners made of batches of --data; left out: tasks of samples that the fit has not seen
    ranks     as data, on --ranks real local ranks that exchange shards over Gloo (CPU only)

The clock is CPU time of the thread that computes, or CUDA events. One process measures any degree: it runs the share of
the busiest rank of a group, whose other shards are buffers of zeros. Without --model, a GPU gets a checkpoint of random
weights that is large enough to keep it busy. Tasks there are as long as its memory allows, 32,768 tokens at most, and a
run that would not attend by flash attention is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import span

from dhp._core import CostModel
from dhp.cost.local import local_cost
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.demo.prepare import prepare
from dhp.run.launch import run_local

DEMO, LARGER = Path("build/demo"), Path("build/calibration/model")
MOST_TOKENS, LEAST_TOKENS = 32768, 2048  # of the longest task, on a GPU
LIMITS = {"cpu": (0.06, 0.15), "cuda": (0.04, 0.15)}  # mean, 95th percentile
# For a GPU: some 0.4 G parameters, the shape of Qwen3-VL's smaller vision tower and of a thin language model.
LARGER_SHAPE = {
    "layers": 16,
    "hidden": 1024,
    "heads": 16,
    "kv_heads": 8,
    "head_dim": 64,
    "intermediate": 3072,
    "vision_layers": 12,
    "vision_hidden": 768,
    "vision_heads": 12,
    "vision_intermediate": 3072,
    "deepstack": (2, 5, 8),
    "vision_positions": 2304,
    "image_max_pixels": 4096 * 32 * 32,
    "video_max_pixels": 2 * 16384 * 32 * 32,
}


def prepare_inputs(options: argparse.Namespace) -> int:
    """In a process of its own: one that has read media has threads, and must not fork."""
    prepare(DEMO)
    if options.torch_device == "cuda" and options.model == str(LARGER) and not (LARGER / "config.json").exists():
        make_tiny_checkpoint(LARGER, **LARGER_SHAPE)
    return 0


def tokens_that_fit(cost: CostModel, memory_bytes: float) -> int:
    """The longest task of one rank, a power of two, as the cost model counts memory: nine tenths of its tokens may be
    vision, of four patches each. The counts are not measured, so a third of the memory is left alone. 0: none fits."""
    room = memory_bytes * 2 / 3 - cost.state_bytes
    per_token = cost.token_bytes + 0.9 * 4 * cost.patch_bytes
    tokens = MOST_TOKENS
    while tokens >= LEAST_TOKENS and tokens * per_token > room:
        tokens //= 2
    return tokens if tokens >= LEAST_TOKENS else 0


def longest_task(options: argparse.Namespace) -> int:
    """Tokens of the longest task of the set spread. Ends the program where the GPU holds none."""
    if options.torch_device != "cuda":
        return 2048
    memory = float(torch.cuda.get_device_properties(0).total_memory)
    tokens = tokens_that_fit(local_cost(options.model, 1, device=options.device, recompute=False), memory)
    if not tokens:
        sys.exit(
            f"--model: {options.model}: tasks of {LEAST_TOKENS:,} tokens do not fit into the {memory / 2**30:.0f} GiB "
            "of this GPU, and shorter ones tell no coefficients apart; take a smaller model or a larger GPU"
        )
    return tokens


def calibrate(options: argparse.Namespace, tasks: str, seed: int) -> dict[str, Any]:
    """The object `fit` of the cost file."""
    flags = ["--model", options.model, "--torch-device", options.torch_device, "--seed", str(seed)]
    flags += ["--samples", str(options.samples), "--left-out", str(options.left_out)]
    flags += ["--repeats", str(options.repeats), "--max-tokens", str(options.max_tokens)]
    if tasks != "spread":
        flags += ["--data", options.data, "--capacity-tokens", str(options.capacity_tokens)]
    if tasks == "ranks":
        flags += ["--ranks", str(options.ranks)]
    if options.torch_device == "cuda":
        flags += ["--precision", "bf16", "--device", options.device]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "cost.json"
        command = [sys.executable, "-m", "dhp.cost.calibrate", *flags, "-o", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        content: dict[str, Any] = json.loads(file.read_text())
        return dict(content["fit"])


def row(tasks: str, fits: list[dict[str, Any]], limits: tuple[float, float]) -> str:
    found = [fit["left_out"] for fit in fits]
    mean, p95 = ([error[key] for error in found] for key in ("mean", "p95"))
    kept = statistics.median(mean) <= limits[0] and statistics.median(p95) <= limits[1]
    degrees = sorted({int(degree) for fit in fits for degree in fit["left_out_by_degree"]})
    return (
        f"{tasks:<8}{sum(e['samples'] for e in found):>6}  {'-'.join(str(n) for n in fits[0]['tokens']):<10}"
        f"{','.join(str(d) for d in degrees):<17}{span(mean, '.1%'):<24}{span(p95, '.1%'):<26}"
        f"{max(error['worst'] for error in found):>7.1%}  {'yes' if kept else 'NO'}"
    )


def main() -> int:
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="Hugging Face checkpoint folder")
    parser.add_argument("--data", default="", metavar="FILE.jsonl")
    parser.add_argument("--torch-device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument("--device", default="h100", help="preset whose memory plans count with, on a GPU")
    parser.add_argument("--sets", nargs="+", choices=("spread", "data", "ranks"))
    parser.add_argument("--trials", type=int, default=3, help="calibrations a set, other tasks each")
    parser.add_argument("--samples", type=int, default=72)
    parser.add_argument("--left-out", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--max-tokens", type=int, default=0, help="of the longest task of the set spread")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--capacity-tokens", type=int, default=512, help="tokens a rank holds, in plans of --data")
    parser.add_argument("--output", default="", metavar="FILE.json", help="every fit")
    options = parser.parse_args()
    on_gpu = options.torch_device == "cuda"
    options.sets = options.sets or (["spread", "data"] if on_gpu else ["spread", "data", "ranks"])
    options.model = options.model or str(LARGER if on_gpu else DEMO / "model")
    options.data = options.data or str(DEMO / "train.jsonl")
    if code := run_local(1, lambda: prepare_inputs(options)):
        return code
    options.max_tokens = options.max_tokens or longest_task(options)
    name = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()} CPU, {os.cpu_count()} cores"
    limits = LIMITS[options.torch_device]
    print(
        f"{options.model} on {name}, torch {torch.__version__}, {options.trials} trials a set, {options.samples} tasks "
        f"of the fit each, {options.repeats} repeats\n"
        f"error of estimates on whole tasks left out of the fit: median of the trials (least to most)\n"
        f"{'set':<8}{'tasks':>6}  {'tokens':<10}{'degrees':<17}{'mean':<24}{'95th percentile':<26}{'worst':>7}  "
        f"within {limits[0]:.0%}, {limits[1]:.0%}",
        flush=True,
    )
    fits = {}
    for tasks in options.sets:
        fits[tasks] = [calibrate(options, tasks, seed) for seed in range(options.trials)]
        print(row(tasks, fits[tasks], limits), flush=True)
    if on_gpu:
        print(f"attention: {', '.join(sorted({fit['attention'] for some in fits.values() for fit in some}))}")
    if options.output:
        Path(options.output).write_text(json.dumps(fits, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
