"""What planning for errors of estimates gains, as Markdown tables: 36 cases of tight memory, 42 of ample memory.

    python bench/robust.py [tight|ample] [--dhp build/release/dhp] [--trials 400] [--every 1]

Plans are made with estimates and replayed with errors of dhp.ErrorSizes (docs/plan_quality.md, "When estimates are
wrong"), drawn otherwise than the planner's own scenarios. Columns, over the tighter lower bound, geometric means:

    without   free, planned for no errors (expect_error=0)
    told      free, planned for the very errors that come, whatever it loses without them (most_loss=1)
    default   free as it is: one plan for errors of 2 %, 2 % and 1 %, which gives up at most 0.9 % for them
    other     the best other planner of the case, chosen after the fact

and for the three of free in how many cases it is behind, more than 0.5 % slower than the best other planner, and the
largest ratio. tight: the cases of `bench/noise.py shared`; ample: those of `sweep`. With --every 3, every third case.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from noise import BEHIND, Case, Dhp, mean_ratio, shared_cases, sweep_cases, table

from dhp import _core as core

SEED = 11
MIXTURES = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (2, 2, 1), (2, 2, 2), (3, 1, 1), (3, 2, 1), (4, 0, 2)]
PERCENTS = [(0, 0, 0), *((s, 0, 0) for s in (3, 6, 10)), *((0, s, 0) for s in (3, 6, 10)),
            *((0, 0, s) for s in (3, 6, 10)), *MIXTURES]  # fmt: skip
ERRORS = [core.ErrorSizes(*(percent / 100 for percent in percents)) for percents in PERCENTS]
OURS = ("without", "told", "default")


@dataclass
class Measured:
    """Of one case under one error: seconds, and the name of the best other planner."""

    name: list[str]
    bound_s: float
    free_s: dict[str, float]
    other_s: float
    other: str

    def behind(self, which: str) -> float:
        return self.free_s[which] / self.other_s


def plan_of(case: Case, planner: str, **options: object) -> core.Plan | None:
    plan = core.try_plan(case.batch, case.cluster, case.cost, planner=planner, **options)
    return None if isinstance(plan, core.Infeasible) else plan


def mean_s(case: Case, plan: core.Plan, errors: core.ErrorSizes, trials: int) -> float:
    count = trials if str(errors) != "0" else 1
    return statistics.fmean(core.noisy_makespans(plan, case.batch, case.cluster, case.cost, errors, count, SEED))


def measure(case: Case, trials: int) -> list[Measured]:
    """Under each of ERRORS."""
    names = [info.name for info in core.planners() if ":" not in info.name and info.name != "free"]
    others = {name: plan for name in names if (plan := plan_of(case, name)) is not None}
    without = plan_of(case, "free", expect_error=0)
    default = plan_of(case, "free", expect_error=core.ErrorSizes())
    bound_s = core.tighter_lower_bound_s(case.batch, case.cluster, case.cost)
    measured = []
    for errors in ERRORS:
        told = plan_of(case, "free", expect_error=errors, most_loss=1.0)
        plans = dict(zip(OURS, (without, told, default), strict=True))
        seconds = {name: mean_s(case, plan, errors, trials) for name, plan in others.items()}
        best = min(seconds, key=lambda name: seconds[name])
        ours = {which: mean_s(case, plan, errors, trials) for which, plan in plans.items()}
        measured.append(Measured(case.name, bound_s, ours, seconds[best], best))
    return measured


def shown(errors: core.ErrorSizes) -> str:
    return ", ".join(f"{100 * size:g} %" if size else "0" for size in (errors.sequence, errors.task, errors.rank))


def rows_of(errors: core.ErrorSizes, cases: list[Measured]) -> list[str]:
    over = [mean_ratio([case.free_s[which] / case.bound_s for case in cases]) for which in OURS]
    other = mean_ratio([case.other_s / case.bound_s for case in cases])
    cells = [shown(errors), *(f"{ratio:.4f}" for ratio in (*over, other))]
    for which in OURS:
        ratios = [case.behind(which) for case in cases]
        cells.append(f"{sum(ratio > BEHIND for ratio in ratios)}, {max(ratios):.3f}")
    return cells


def worst_of(cases: list[list[Measured]]) -> list[list[str]]:
    """The cases in which a plan told its errors is behind."""
    rows = []
    for case in cases:
        for errors, one in zip(ERRORS, case, strict=True):
            if one.behind("told") > BEHIND:
                rows.append([*one.name, shown(errors), f"{one.behind('told'):.3f}", one.other])
    return rows


def measure_all(cases: Iterable[Case], trials: int, every: int) -> list[list[Measured]]:
    return [measure(case, trials) for number, case in enumerate(cases) if number % every == 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["tight", "ample"], help="tight, ample (default: both)")
    parser.add_argument("--dhp", type=Path, default=Path("build/release/dhp"))
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--every", type=int, default=1, help="1: all cases")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dhp = Dhp(options.dhp.resolve(), Path(folder))
        sets = {"tight": shared_cases, "ample": lambda: sweep_cases(dhp)}
        for what in options.what:
            cases = measure_all(sets[what](), options.trials, options.every)
            columns = ["sequence, task, rank", *OURS, "other", *(f"{which}: behind, worst" for which in OURS)]
            rows = [rows_of(errors, [case[i] for case in cases]) for i, errors in enumerate(ERRORS)]
            print(f"{what}: {len(cases)} cases, {options.trials} trials, seed {SEED}\n\n{table(columns, rows)}\n")
            lost = [math.log(case[0].free_s["default"] / case[0].free_s["without"]) for case in cases]
            print(
                f"default without errors: {100 * statistics.fmean(lost):.2f} % lost, {100 * max(lost):.2f} % at most\n"
            )
            parts = ["case"] * (len(cases[0][0].name) - 1)
            print(
                f"{table(['case', *parts, 'errors', 'told over the best other', 'planner'], worst_of(cases))}\n",
                flush=True,
            )


if __name__ == "__main__":
    main()
