"""Real training tasks on local ranks: what each planner's step takes, and what its plan predicted.

    python bench/real_ranks.py                            # 4 ranks, the demo's data; static, paper, free
    python bench/real_ranks.py --ranks 8 --media long     # 8 ranks, clips of up to 79 s; more planners

Every rank is a process of one thread over Gloo. Each batch is planned by every planner, and its tasks are run, forward
and backward, by all of them in turn, `--repeats` times, so that all meet the same load. The step time is *emulated*:
the plan is replayed with the CPU seconds that each task took on its slowest member (median of the repeats), because
more ranks than cores cannot show balance in wall time. Transfers, which cost no CPU time of the computing thread, are
added as the plan models them, for links as `dhp train` assumes them where no cluster file is given. Costs come from
`dhp calibrate`, in this run or before it (--cost).
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
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from real_ranks_media import prepare_long

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    Plan,
    read_cost_model,
    replay,
    to_json,
)
from dhp.cost.fit import error_of, estimate_s, terms_of
from dhp.cost.local import local_cluster
from dhp.data.dataset import Dataset, Share
from dhp.demo.prepare import prepare
from dhp.models import Adapter, attach
from dhp.run import entry, planning, runtime
from dhp.run.launch import run_local
from dhp.run.runtime import Run

DEMO, LONG = Path("build/demo"), Path("build/long")
CAPACITY = {"demo": 512, "long": 1024}
PLANNERS = {"demo": ["static", "paper", "free"], "long": ["static", "balanced-static", "paper", "lockstep", "free"]}


def run_plan(plan: Plan, share: Share, adapter: Adapter, valid_tokens: int, run: Run) -> np.ndarray:
    """CPU seconds of every task on its slowest member."""
    seconds = torch.zeros(len(plan.tasks), dtype=torch.float64)
    run.barrier()
    for task in runtime.tasks(plan, run):
        started = time.thread_time()
        loss = adapter.loss(share.inputs[task.id], task, valid_tokens)
        if loss.requires_grad:
            loss.backward()
        seconds[task.id] = time.thread_time() - started
    return run.max(seconds).numpy()


def work(options: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    run = entry.init(timeout_s=1800.0, device="cpu")
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: Any = AutoModelForImageTextToText.from_pretrained(options.model, dtype=torch.float32)
    cluster = local_cluster(options.ranks, capacity_tokens=options.capacity_tokens)
    cost = read_cost_model(options.cost)
    adapter = attach(model.train(), run, cluster=cluster)
    data = Dataset(options.data, options.model)
    rows: list[dict[str, Any]] = []
    # The first batch warms up.
    for step in range(-1, options.batches):
        batch = data.batch(max(step, 0), options.batch_size, seed=options.seed)
        plans = {s: planning.plan(batch, cluster, cost, planner=s, run=run) for s in options.planners}
        shares = {s: data.read_share(plan, run.rank) for s, plan in plans.items()}
        valid = data.label_tokens(batch)
        taken: dict[str, list[np.ndarray]] = {planner: [] for planner in options.planners}
        for repeat in range(options.repeats if step >= 0 else 1):
            turn = (repeat + step + 1) % len(options.planners)
            for planner in [*options.planners[turn:], *options.planners[:turn]]:
                taken[planner].append(run_plan(plans[planner], shares[planner], adapter, valid, run))
        if step < 0:
            continue
        if run.rank == 0:
            for planner, plan in plans.items():
                row = judge(step, planner, plan, batch, cost, np.median(taken[planner], axis=0))
                rows.append({**row, "simulated_s": simulate(plan, batch, cluster, cost)})
            done = " | ".join(f"{r['planner']} {r['emulated_s']:.2f} s" for r in rows[-len(plans) :])
            print(f"batch {step + 1}/{options.batches}: {done}", file=sys.stderr, flush=True)
            if options.output:
                Path(options.output).write_text(json.dumps(rows, indent=1))
    if run.rank == 0:
        report(options, rows, cluster)
    run.close()
    return 0


def simulate(plan: Plan, batch: Batch, cluster: Cluster, cost: CostModel) -> float:
    """Seconds until the last task ends, as `dhp simulate` has it."""
    with tempfile.TemporaryDirectory() as scratch:
        flags = []
        for name, value in (("plan", plan), ("batch", batch), ("cluster", cluster), ("cost", cost)):
            file = Path(scratch) / f"{name}.json"
            file.write_text(to_json(value))
            flags += [f"--{name}", str(file)]
        program = Path(sys.executable).parent / "dhp"
        command = [str(program), "simulate", *flags, "--output-format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout)["steps"][0]["tasks_end_s"])


def judge(step: int, planner: str, plan: Plan, batch: Batch, cost: CostModel, cpu_s: np.ndarray) -> dict[str, Any]:
    by_id = {sequence.id: sequence for sequence in batch.sequences}
    terms = terms_of(cost)
    predicted = [(task.end_s or 0.0) - (task.start_s or 0.0) for task in plan.tasks]
    computed = [estimate_s(terms, [by_id[i] for i in task.sequences], len(task.ranks)) for task in plan.tasks]
    exposed = [max(0.0, p - c) for p, c in zip(predicted, computed, strict=True)]
    measured = [float(s) + e for s, e in zip(cpu_s, exposed, strict=True)]
    emulated = replay(plan, measured)
    assert plan.predicted is not None
    return {
        "step": step + 1,
        "planner": planner,
        "emulated_s": emulated.makespan_s,
        "predicted_s": plan.predicted.makespan_s,
        "idle_share": emulated.idle_share,
        "exposed_s": sum(exposed),
        "degrees": [len(task.ranks) for task in plan.tasks],
        "tasks": [
            {"degree": len(task.ranks), "sequences": len(task.sequences), "predicted_s": p, "measured_s": m}
            for task, p, m in zip(plan.tasks, predicted, measured, strict=True)
        ],
    }


def report(options: argparse.Namespace, rows: list[dict[str, Any]], cluster: Cluster) -> None:
    def of(planner: str, key: str) -> list[float]:
        return [row[key] for row in rows if row["planner"] == planner]

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {options.ranks} ranks of "
        f"{cluster.memory_bytes:,.0f} tokens, {options.media} media, {options.batches} batches of "
        f"{options.batch_size} samples, {options.repeats} repeats; seconds a step, all batches together"
    )
    print(
        f"{'planner':<17}{'emulated':>9}{'simulated':>11}{'off':>7}{'off a step, mean':>18}{'most':>7}"
        f"{'tasks off':>11}{'idle':>7}{'x free':>8}{'(least, most)':>16}"
    )
    best = of("free", "emulated_s") if "free" in options.planners else of(options.planners[-1], "emulated_s")
    for planner in options.planners:
        emulated, simulated = of(planner, "emulated_s"), of(planner, "simulated_s")
        steps = error_of(simulated, emulated)
        tasks = [task for row in rows if row["planner"] == planner for task in row["tasks"]]
        each = error_of([t["predicted_s"] for t in tasks], [t["measured_s"] for t in tasks])
        ratios = [a / b for a, b in zip(emulated, best, strict=True)]
        print(
            f"{planner:<17}{statistics.mean(emulated):>9.3f}{statistics.mean(simulated):>11.3f}"
            f"{sum(simulated) / sum(emulated) - 1:>+7.1%}{steps.mean:>18.1%}{steps.worst:>7.1%}{each.mean:>11.1%}"
            f"{statistics.mean(of(planner, 'idle_share')):>7.1%}{sum(emulated) / sum(best):>8.3f}"
            f"{f'({min(ratios):.2f}, {max(ratios):.2f})':>16}"
        )
    apart = max(abs(row["simulated_s"] / row["predicted_s"] - 1.0) for row in rows)
    exposed = sum(row["exposed_s"] for row in rows) / sum(t["measured_s"] for row in rows for t in row["tasks"])
    print(f"dhp simulate and the plans' own predictions: at most {apart:.0e} apart")
    print(f"waiting for transfers, modelled, in both: {exposed:.1%} of the time of tasks")
    for key in ("emulated_s", "simulated_s"):
        ranking = sorted(options.planners, key=lambda s: sum(of(s, key)))
        print(f"by {key[:-2]} time, quickest first: {', '.join(ranking)}")


def prepare_media(options: argparse.Namespace) -> int:
    """In a process of its own: one that has read media has threads, and must not fork."""
    prepare(DEMO)
    if options.media == "long":
        prepare_long(DEMO, LONG)
    Dataset(options.data, options.model)  # makes the index
    return 0


def calibrate(options: argparse.Namespace) -> int:
    """Makes the cost file, unless it is there."""
    if Path(options.cost).exists() and not options.calibrate:
        return 0
    Path(options.cost).parent.mkdir(parents=True, exist_ok=True)
    flags = ["--model", options.model, "--data", options.data, "-o", options.cost]
    flags += ["--ranks", str(options.ranks), "--capacity-tokens", str(options.capacity_tokens)]
    calibrated = subprocess.run([sys.executable, "-m", "dhp.cost.calibrate", *flags], check=False, stdout=sys.stderr)
    return calibrated.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--media", choices=sorted(CAPACITY), default="demo")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--planners", nargs="+")
    parser.add_argument("--cost", default="", help="a dhp.cost/1 file; left out: dhp calibrate is run once")
    parser.add_argument("--calibrate", action="store_true", help="run it again")
    parser.add_argument("--output", default="", metavar="FILE.json", help="every step and task")
    options = parser.parse_args()
    options.planners = options.planners or PLANNERS[options.media]
    options.capacity_tokens = CAPACITY[options.media]
    folder = LONG if options.media == "long" else DEMO
    options.model, options.data = str(folder / "model"), str(folder / "train.jsonl")
    options.cost = options.cost or f"build/real_ranks/cost_{options.media}_{options.ranks}.json"
    return (
        run_local(1, lambda: prepare_media(options))
        or calibrate(options)
        or run_local(options.ranks, lambda: work(options))
    )


if __name__ == "__main__":
    sys.exit(main())
