"""The paper's evaluation (arXiv 2602.21788), simulated: every number that is known of it beside ours, as Markdown.

    python bench/paper/reproduce.py [--dhp build/release/dhp] [--batches 10] [--output-format text|json]

Six models x three data sets x {Megatron static context parallelism, DeepSpeed-Ulysses, the paper's DHP, balanced
static, ours}, 8 to 1,024 ranks, degrees of the case study, unbalanced batches, planning time. Half a minute, one core.

Assumed, since the paper's notes do not say: nothing frozen, ZeRO-1, bf16; rates and links of
data/devices/ascend-910b.json and data/clusters/ascend-910b-8x8.json; batches drawn from documented distributions
(`dhp dataset`), two frames a second. Whether activations were recomputed decides how many ranks a sequence needs, so
both are shown. Errors of the estimates are left out, but for one table (2 % a sequence, 2 % a task, 1 % a rank of a
task; the paper's estimator is off by 4 to 8 %). docs/paper.md discusses the output.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import known
from dhp_command import Dhp

MODELS = ["internvl3-2b", "internvl2.5-4b", "internvl3-8b", "qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b"]
DATA = ["internvid", "openvid", "msrvtt"]
PLANNERS = {
    "static": "Megatron static CP",
    "ulysses": "DeepSpeed-Ulysses",
    "paper": "paper's DHP",
    "balanced-static": "balanced static",
    "free": "ours",
}
BASELINES = ["static", "ulysses"]
DEVICE = "ascend-910b"
BATCH = 512
NOISE = "0.02,0.02,0.01"  # errors of each sequence, task, rank of a task
RECOMPUTE = ["full", "none"]

Cell = dict[str, float]  # by planner


def cluster_of(ranks: int) -> str:
    return f"{DEVICE}-{max(1, ranks // 8)}x{min(ranks, 8)}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(columns), " | ".join("---" for _ in columns), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def mean_ratio(ratios: Iterable[float]) -> float:
    return math.exp(statistics.fmean(math.log(ratio) for ratio in ratios))


def seconds_of(step: Cell) -> list[str]:
    return [f"{step[planner]:.2f}" if planner in step else "-" for planner in PLANNERS]


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def groups(degrees: dict[int, int]) -> str:
    return " ".join(f"{degree}×{count}" for degree, count in sorted(degrees.items(), reverse=True))


class Evaluation:
    """Runs and what they show; every method answers the text of one section and stores its numbers."""

    def __init__(self, dhp: Dhp, batches: int) -> None:
        self.dhp = dhp
        self.seeds = range(1, batches + 1)
        self.numbers: dict[str, Any] = {}

    def steps(self, model: str, batches: list[Path], ranks: int, recompute: str, noise: str = "0") -> dict[str, float]:
        """Seconds of a step by planner, mean over batches; a planner that cannot run one of them is left out."""
        cost = self.dhp.cost(model, DEVICE, ranks, recompute)
        runs = self.dhp.sweep(list(PLANNERS), batches, [cluster_of(ranks)], [cost], noise)
        seconds: dict[str, list[float]] = {}
        for run in runs:
            if "mean_s" in run:
                seconds.setdefault(run["planner"].split(":")[0], []).append(run["mean_s"])
        return {name: statistics.fmean(values) for name, values in seconds.items() if len(values) == len(batches)}

    def over_best_baseline(self, model: str, name: str, recompute: str, noise: str = "0") -> tuple[Cell, Cell]:
        """Seconds by planner, and speed over the better baseline."""
        batches = [self.dhp.batch(name, model, BATCH, seed) for seed in self.seeds]
        step = self.steps(model, batches, 64, recompute, noise)
        best = min(step[baseline] for baseline in BASELINES if baseline in step)
        return step, {planner: best / seconds for planner, seconds in step.items()}

    def lengths(self) -> str:
        """Figure 1."""
        rows = []
        for name in DATA:
            for model in ["qwen3-vl-8b", "internvl3-8b"]:
                files = [self.dhp.batch(name, model, BATCH, seed) for seed in self.seeds]
                tokens = sorted(s["tokens"] for file in files for s in json.loads(file.read_text())["sequences"])
                marks = [tokens[min(len(tokens) - 1, int(len(tokens) * p))] for p in (0.05, 0.5, 0.95, 0.99, 1.0)]
                rows.append([name, model, *(f"{mark:,}" for mark in marks)])
        return table(["data", "model's tokens", "5 %", "median", "95 %", "99 %", "longest"], rows)

    def figure_4(self) -> str:
        texts = []
        cells: dict[str, dict[tuple[str, str], Cell]] = {}
        for recompute in RECOMPUTE:
            rows = []
            cells[recompute] = {}
            for model in MODELS:
                for name in DATA:
                    step, over = self.over_best_baseline(model, name, recompute)
                    cells[recompute][model, name] = over
                    rows.append([model, name, *seconds_of(step)])
                    rows[-1] += [times(over.get(planner)) for planner in ("paper", "balanced-static", "free")]
            columns = ["model", "data", *(f"{label}, s" for label in PLANNERS.values())]
            columns += ["DHP over best baseline", "balanced static over it", "ours over it"]
            texts += [f"Recomputation: {recompute}.", table(columns, rows), self.summary(cells[recompute])]
        rows = [
            [model, name, f"{figure}", *(times(cells[r][model, name].get("paper")) for r in RECOMPUTE)]
            + [times(cells[r][model, name]["free"]) for r in RECOMPUTE]
            for (model, name), figure in known.FIGURE_4.items()
        ]
        labels = [f"{label}, recomputation {r}" for label in ("DHP simulated", "ours simulated") for r in RECOMPUTE]
        texts += ["Over the better baseline, the cells known of the paper:"]
        texts += [table(["model", "data", "DHP in the paper", *labels], rows)]
        self.numbers["figure_4"] = {r: {f"{m}/{d}": cell for (m, d), cell in cells[r].items()} for r in RECOMPUTE}
        return "\n\n".join(texts)

    def summary(self, cells: dict[tuple[str, str], Cell]) -> str:
        paper = [cell["paper"] for cell in cells.values() if "paper" in cell]
        ours = [cell["free"] for cell in cells.values()]
        over = [cell["free"] / cell["paper"] for cell in cells.values() if "paper" in cell]
        balanced = [cell for cell in cells.values() if "balanced-static" in cell]
        balanced_mean = mean_ratio(cell["balanced-static"] for cell in balanced)
        ahead = [100 * (cell["free"] / cell["balanced-static"] - 1) for cell in balanced]
        above, of = known.FIGURE_4_ABOVE_1_2
        return (
            f"DHP over the better baseline: most {max(paper):.2f} (paper {known.FIGURE_4_MOST}), mean "
            f"{mean_ratio(paper):.2f}, {sum(p > 1.2 for p in paper)} of {len(paper)} cells above 1.2 "
            f"(paper {above} of {of}). Ours: most {max(ours):.2f}, mean {mean_ratio(ours):.2f}; over DHP "
            f"{mean_ratio(over):.2f}. Balanced static: mean {balanced_mean:.2f}, ours {min(ahead):.1f} to "
            f"{max(ahead):.1f} % ahead."
        )

    def noise(self) -> str:
        rows = []
        for recompute in RECOMPUTE:
            cells = [self.over_best_baseline(m, d, recompute, NOISE)[1] for m in MODELS for d in DATA]
            means = [mean_ratio(c[s] for c in cells if s in c) for s in ("paper", "balanced-static", "free")]
            rows.append([recompute, *map(times, means), times(min(cell["free"] for cell in cells))])
        columns = ["recomputation", "DHP over best baseline", "balanced static over it", "ours over it"]
        return table([*columns, "ours over it, least of the 18 cells"], rows)

    def figure_5(self, model: str = "qwen3-vl-8b", name: str = "openvid") -> str:
        rows = []
        rates: dict[int, dict[str, float]] = {}
        for ranks in [8, 16, 32, 64, 128, 256, 512, 1024]:
            count = max(BATCH, 8 * ranks)
            seeds = self.seeds if ranks <= 64 else self.seeds[:1]
            files = [self.dhp.batch(name, model, count, seed) for seed in seeds]
            tokens = statistics.fmean(
                sum(sequence["tokens"] for sequence in json.loads(file.read_text())["sequences"]) for file in files
            )
            step = self.steps(model, files, ranks, "full")
            rates[ranks] = {planner: tokens / seconds / ranks / 1e3 for planner, seconds in step.items()}
            cells = [f"{rates[ranks][s]:.2f}" if s in rates[ranks] else "-" for s in PLANNERS]
            first, last = 0 if ranks == 8 else 1, ranks in (8, 64)
            figures = [f"{known.FIGURE_5[s][first]:g}" if last else "" for s in ("static", "ulysses", "paper")]
            rows.append([f"{ranks:,}", f"{count:,}", *cells, *figures])
        self.numbers["figure_5"] = rates
        columns = ["ranks", "batch", *PLANNERS.values(), "Megatron in the paper", "Ulysses in it", "DHP in it"]
        return f"Thousand tokens per second and rank, {model} on {name}, full recomputation:\n\n" + table(columns, rows)

    def case_study(self) -> str:
        rows = []
        for name, (figure, speed_up) in known.CASE_STUDY.items():
            batch = self.dhp.batch(name, "internvl3-8b", BATCH, 1)
            for recompute in RECOMPUTE:
                cost = self.dhp.cost("internvl3-8b", DEVICE, 32, recompute)
                inputs = ["--batch", batch, "--cluster", cluster_of(32), "--cost", cost]
                for planner in ["paper", "free"]:
                    plan = self.dhp.json("plan", "--planner", planner, *inputs)
                    tasks = [task for task in plan["tasks"] if task.get("micro_batch", 0) == 0]
                    which = "first micro-batch" if planner == "paper" else "whole batch"
                    degrees = groups(Counter(len(task["ranks"]) for task in tasks))
                    rows.append([name, f"{PLANNERS[planner]}, {which}", recompute, degrees])
            rows.append([name, f"in the paper, {speed_up} times the baseline", "", groups(figure)])
        return "InternVL3-8B on 32 ranks:\n\n" + table(["data", "plan", "recomputation", "degree×groups"], rows)

    def unbalanced(self) -> str:
        rows = []
        for model in ["qwen3-vl-2b", "qwen3-vl-8b"]:
            for recompute in RECOMPUTE:
                step, over = self.over_best_baseline(model, "burst", recompute)
                rows.append([model, recompute, *seconds_of(step), times(over.get("paper")), times(over["free"])])
        columns = ["model", "recomputation", *(f"{label}, s" for label in PLANNERS.values())]
        columns += ["DHP over best baseline", "ours over it"]
        return (
            "One sequence in 128 of 131,072 tokens, the others of 500 to 4,000:\n\n"
            + table(columns, rows)
            + f"\n\nThe paper's second version has {known.UNBALANCED} on batches that its abstract does not describe."
        )

    def planning(self) -> str:
        rows = []
        model = "qwen3-vl-8b"
        for count, ranks in [(128, 64), (512, 16), (512, 32), (512, 64)]:
            batch = self.dhp.batch("openvid", model, count, 1)
            cost = self.dhp.cost(model, DEVICE, ranks, "full")
            runs = self.dhp.sweep(["paper", "free"], [batch] * 5, [cluster_of(ranks)], [cost], "0")
            ms = [[1e3 * r["planning_s"] for r in runs if r["planner"] == s] for s in ("paper", "free")]
            solver = known.SOLVER_MS_BY_BATCH.get(count) if ranks == 64 else None
            by_batch = known.SCHEDULING_MS_BY_BATCH if ranks == 64 else {}
            whole = by_batch.get(count) or known.SCHEDULING_MS_BY_RANKS.get(ranks)
            rows.append([f"{count}", f"{ranks}", *map(spread, ms)])
            rows[-1] += ["" if solver is None else f"{solver}", f"{whole}"]
        columns = ["batch", "ranks", "DHP here, ms", "ours, ms", "the paper's solver, ms", "its whole scheduling, ms"]
        return table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--dhp", type=Path, default=Path("build/release/dhp"))
    parser.add_argument("--batches", type=int, default=10, help="batches of each data set (up to 64 ranks)")
    parser.add_argument("--output-format", choices=("text", "json"), default="text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        evaluation = Evaluation(Dhp(options.dhp.resolve(), Path(folder)), options.batches)
        sections = {
            "Lengths (Figure 1)": evaluation.lengths,
            "Throughput, 64 ranks (Figure 4)": evaluation.figure_4,
            "The same with errors of estimates": evaluation.noise,
            "Scaling (Figure 5)": evaluation.figure_5,
            "Degrees (case study)": evaluation.case_study,
            "Unbalanced batches": evaluation.unbalanced,
            "Planning time": evaluation.planning,
        }
        for title, section in sections.items():
            text = section()
            if options.output_format == "text":
                print(f"## {title}\n\n{text}\n", flush=True)
        if options.output_format == "json":
            json.dump(evaluation.numbers, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
