"""What errors of the estimates cost every planner, as Markdown tables: the shared cases, and a sweep of clusters.

    python bench/noise.py [shared|sweep] [--dhp build/release/dhp] [--noise 0.06] [--trials 200]

A plan is made with estimates and replayed with times that differ from them by log-normal factors of mean 1. Who gains
depends on what shares an error:

    measured   a mixture as measured on real tasks, whatever --noise is: 2 % a sequence, 2 % a task, 1 % a rank
    sequence   every sequence has one of its own; a task errs by their mean, weighted by their time alone
    task       every task has one of its own: eight sequences in a task err like one
    alike      one for all tasks of the same degree and of the same power of two of tokens in their longest sequence:
               what a fitted estimate gets wrong of one kind of task
    rank       every rank of a task has one of its own, and the slowest sets the pace: jitter, not a wrong estimate

shared: the 36 cases of `plan_quality cases`. sweep: A100 clusters of one to eight nodes and 64 Ascend 910B, models,
data sets and batches as `dhp cost --ranks 64` and `dhp dataset --seed 3` make them. Times are means over the trials.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dhp import _core as core

sys.path.insert(0, str(Path(__file__).parent / "paper"))
from dhp_command import Dhp

CASES = Path(__file__).parents[1] / "bench" / "cases"
DATA = ["openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"]
SWEEP = [("a100", 1, 64), ("a100", 1, 512), ("a100", 2, 128), ("a100", 2, 512), ("a100", 3, 200), ("a100", 8, 512),
         ("ascend-910b", 8, 512)]  # fmt: skip
ERRORS = ["none", "measured", "sequence", "task", "alike", "rank"]
SEED = 7
KINDS = 32 * 65  # of tasks: degrees to 64, and powers of two of tokens
BEHIND = 1.005  # times as long: what the summary counts


@dataclass
class Case:
    name: list[str]
    batch: core.Batch
    cluster: core.Cluster
    cost: core.CostModel
    seconds: dict[str, dict[str, float]] = field(default_factory=dict)  # by error, then planner

    def best_other(self, error: str) -> str:
        others = {name: s for name, s in self.seconds[error].items() if name != "free"}
        return min(others, key=lambda name: others[name])

    def behind(self, error: str) -> float:
        """Free over the best other planner."""
        return self.seconds[error]["free"] / self.seconds[error][self.best_other(error)]


def shared_cases() -> Iterator[Case]:
    for network, tokens, data in itertools.product(("", "_slow_network"), (4096, 8192, 16384), DATA):
        files = f"batch_{data}_512", f"cluster_910b_8x8{network}", f"cost_qwen3-vl-8b_{tokens}"
        readers = core.read_batch, core.read_cluster, core.read_cost_model
        read = [reader(str(CASES / f"{file}.json")) for reader, file in zip(readers, files, strict=True)]
        yield Case(["slow" if network else "910B", f"{tokens}", data], *read)


def cluster_of(device: str, nodes: int) -> core.Cluster:
    cluster = core.read_cluster(f"{device}-8x8")
    cluster.nodes = nodes
    return cluster


def sweep_cases(dhp: Dhp) -> Iterator[Case]:
    for model, (device, nodes, count) in itertools.product(("internvl3-8b", "qwen3-vl-8b"), SWEEP):
        for data in ("openvid", "internvid", "msrvtt"):
            batch, cost = dhp.folder / "batch.json", dhp.folder / "cost.json"
            family = "internvl" if model.startswith("internvl") else "qwen3-vl"
            dhp.json("dataset", "--data", data, "--model", family, "--count", str(count), "--seed", "3", "-o", batch)
            dhp.json("cost", "--model", model, "--device", device, "--ranks", "64", "-o", cost)
            read = core.read_batch(str(batch)), cluster_of(device, nodes), core.read_cost_model(str(cost))
            yield Case([f"{device} {nodes}×8", model, data, f"{count}"], *read)


class Errors:
    """Factors of the tasks of a plan in every trial, the same for a sequence, a kind or a position in every plan."""

    def __init__(self, case: Case, noise: float, trials: int) -> None:
        self.case, self.noise, self.trials = case, noise, trials
        self.sequences = {s.id: s for s in case.batch.sequences}
        self.sizes = {
            "none": core.ErrorSizes(0.0, 0.0, 0.0),
            "measured": core.ErrorSizes(),
            "sequence": core.ErrorSizes(noise, 0.0, 0.0),
            "task": core.ErrorSizes(0.0, noise, 0.0),
            "rank": core.ErrorSizes(0.0, 0.0, noise),
        }

    def of(self, error: str, plan: core.Plan) -> np.ndarray:
        """By trial and task."""
        if error == "alike":
            kinds = [self.kind(task) for task in plan.tasks]
            drawn = np.random.default_rng(SEED).standard_normal((self.trials, KINDS))
            return np.exp(self.noise * drawn[:, kinds] - self.noise**2 / 2)
        trials = 1 if error == "none" else self.trials
        given = plan, self.case.batch, self.case.cluster, self.case.cost, self.sizes[error], SEED
        return np.array([core.noise_factors(*given, trial) for trial in range(trials)])

    def kind(self, task: core.Task) -> int:
        longest = max(self.sequences[one].tokens for one in task.sequences)
        return int(32 * task.degree + math.log2(longest))


def measure(case: Case, noise: float, trials: int) -> None:
    errors = Errors(case, noise, trials)
    for info in core.planners():
        if ":" in info.name:
            continue
        plan = core.try_plan(case.batch, case.cluster, case.cost, planner=info.name)
        if isinstance(plan, core.Infeasible):
            continue
        task_s = np.array(core.predict_task_seconds(plan, case.batch, case.cluster, case.cost))
        for error in ERRORS:
            steps = [core.replay(plan, list(task_s * factors)).makespan_s for factors in errors.of(error, plan)]
            case.seconds.setdefault(error, {})[info.name] = statistics.fmean(steps)


def mean_ratio(ratios: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, ratios)))


def table(columns: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *rows])


def case_table(cases: list[Case], names: list[str]) -> str:
    columns = [*names, "free, s", "best other, s", "free over it", "free with errors, s", "best other with them, s"]
    rows = []
    for case in cases:
        row = list(case.name)
        for error in ("none", "measured"):
            best = case.best_other(error)
            row += [f"{case.seconds[error]['free']:.2f}", f"{case.seconds[error][best]:.2f} {best}"]
            row.append(f"{case.behind(error):.3f}")
        rows.append(row)
    return table([*columns, "free over it"], rows)


def planner_table(cases: list[Case]) -> str:
    """Every planner over free, geometric mean over the cases that it can plan."""
    names = [info.name for info in core.planners() if ":" not in info.name and info.name != "free"]
    rows = []
    for error in ERRORS:
        row = [error, f"{mean_ratio([c.seconds[error]['free'] / c.seconds['none']['free'] for c in cases]):.3f}"]
        for name in names:
            over = [c.seconds[error][name] / c.seconds[error]["free"] for c in cases if name in c.seconds[error]]
            row.append(f"{mean_ratio(over):.3f}" if over else "-")
        behind = [case.behind(error) for case in cases]
        row.append(f"{sum(ratio > BEHIND for ratio in behind)} of {len(cases)}")
        rows.append([*row, f"{max(behind):.3f}"])
    columns = ["an error for each", "free over its prediction", *(f"{name} over free" for name in names)]
    return table([*columns, f"cases with free behind by more than {100 * (BEHIND - 1):.1f} %", "most"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["shared", "sweep"], help="shared, sweep (default: both)")
    parser.add_argument("--dhp", type=Path, default=Path("build/release/dhp"))
    parser.add_argument("--noise", type=float, default=0.06, help="sigma of the log-normal factors")
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dhp = Dhp(options.dhp.resolve(), Path(folder))
        sets = {
            "shared": (["cluster", "tokens a rank", "data"], shared_cases()),
            "sweep": (["cluster", "model", "data", "sequences"], sweep_cases(dhp)),
        }
        for what in options.what:
            names, made = sets[what]
            cases = []
            for case in made:
                measure(case, options.noise, options.trials)
                cases.append(case)
            print(f"{what}, sigma {options.noise}, {options.trials} trials, seed {SEED}\n")
            print(f"{planner_table(cases)}\n\n{case_table(cases, names)}\n", flush=True)


if __name__ == "__main__":
    main()
