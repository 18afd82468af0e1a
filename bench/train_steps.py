"""Steps of real training runs: simulated against emulated.

    python bench/train_steps.py --cost cost.json [--config examples/demo.toml] [--planners static paper free]

Trains with every planner in turn, from the same start, with a cost file of `dhp calibrate` that the run fits anew to
its own tasks every `--recalibrate-every` steps (0: never), since tasks take more CPU time while other work shares the
caches.
Simulated is what the simulator (`dhp simulate`) makes of each step's plan, with the cost that the step was planned by,
until its last task ends; the largest difference to the plan's own prediction is printed below. Emulated is the plan
replayed with the CPU seconds of its tasks (docs/training.md). The first steps warm up.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from dhp import train
from dhp._core import Batch, Cluster, CostModel, Plan, simulate
from dhp.models import import_family
from dhp.run import planning
from dhp.run.launch import run_local

WARM_UP = 6


def train_and_simulate(words: list[str], simulated: Path) -> int:
    """One rank of `dhp train`; rank 0 also simulates every plan that it makes, one line a step."""
    make_plan = planning.plan

    def plan(batch: Batch, cluster: Cluster, cost: CostModel, **how: Any) -> Plan:
        made = make_plan(batch, cluster, cost, **how)
        if os.environ["RANK"] == "0":
            with simulated.open("a") as file:
                print(simulate(made, batch, cluster, cost).steps[0].tasks_end_s, file=file)
        return made

    planning.plan = plan
    return train.main(words)


def steps_of(planner: str, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run's steps after those that warm up, with `simulated_step_s`."""
    metrics, simulated = folder / f"{planner}.jsonl", folder / f"{planner}.simulated"
    words = [options.config, "--planner", planner, "--steps", str(WARM_UP + options.steps)]
    words += ["--metrics", str(metrics), "--set", f"cost={options.cost}", "log_every=0"]
    words += [f"recalibrate_every={options.recalibrate_every}", "save_steps=0", f"output_dir={folder / planner}"]
    ranks = train.settings_of(train.parser().parse_args(words)).ranks
    if code := run_local(ranks, lambda: train_and_simulate(words, simulated)):
        sys.exit(code)
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    seconds = [float(line) for line in simulated.read_text().splitlines()]
    return [s | {"simulated_step_s": x} for s, x in zip(steps, seconds, strict=True)][WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cost", required=True, help="a dhp.cost/1 file of dhp calibrate")
    parser.add_argument("--config", default=str(Path(__file__).parents[1] / "examples/demo.toml"))
    parser.add_argument("--planners", nargs="+", default=["static", "paper", "free"])
    parser.add_argument("--steps", type=int, default=20, help="that count")
    parser.add_argument("--recalibrate-every", type=int, default=3)
    options = parser.parse_args()
    import_family(train.settings_of(train.parser().parse_args([options.config])).model)
    means: dict[str, tuple[float, float]] = {}
    apart = 0.0
    print(f"{'planner':<18}{'emulated':>10}{'simulated':>11}{'off':>8}{'off a step, mean':>18}{'most':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for planner in options.planners:
            steps = steps_of(planner, options, Path(folder))
            emulated = fmean(step["emulated_step_s"] for step in steps)
            simulated = fmean(step["simulated_step_s"] for step in steps)
            off = [abs(step["simulated_step_s"] / step["emulated_step_s"] - 1.0) for step in steps]
            apart = max(apart, *(abs(step["simulated_step_s"] / step["predicted_step_s"] - 1.0) for step in steps))
            means[planner] = emulated, simulated
            print(
                f"{planner:<18}{emulated:>8.3f} s{simulated:>9.3f} s{simulated / emulated - 1.0:>+8.1%}"
                f"{fmean(off):>18.1%}{max(off):>8.1%}",
                flush=True,
            )
    print(f"simulations and the plans' own predictions: at most {apart:.0e} apart")
    for number, name in enumerate(("emulated", "simulated")):
        print(f"by {name} time, quickest first: {', '.join(sorted(means, key=lambda s: means[s][number]))}")


if __name__ == "__main__":
    main()
