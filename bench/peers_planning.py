"""Our planners beside Megatron-Core's own schedulers: CPU time of a call, and makespan over the bound.

    python bench/peers_planning.py --megatron CHECKOUT [CHECKOUT ...] [--ranks 64 256] [--data openvid ...]

CHECKOUT is a folder with megatron/core in it: a checkout of github.com/NVIDIA/Megatron-LM, or where pip has put
megatron-core. Main and releases have BalancedCPScheduler ("hcp", one degree a length, rounds), dev also has
DefaultDynamicCPScheduler ("dcp", packed groups, micro-batches). Left out: an installed megatron-core, if there is one.
Without either, our planners are measured alone. Needs torch, which Megatron's files import, but no GPU: their own code
runs, and modules of Megatron that it imports and planning does not use are empty.

Both get the lengths of a batch and M, the tokens that a rank may hold: the best by makespan of what memory surely
holds and of 1/2 to 1/16 of it, as people tune it once for a run. An M is left out at which their rules assert, or give
a group that their run-time has no communicator for: slices begin at multiples of their size. The time is that of one
call at this M. "copy" is our
C++ of their rules (megatron-hybrid:M, megatron-dynamic:M) at the same M. Their groups become a plan of ours, which is
checked and replayed with task times of our cost model: makespan / simple bound of docs/design.md. "No barriers" replays
hcp's tasks without those between its rounds, which its run-time has.

Cases: Qwen3-VL-8B, 8,192 tokens a rank, nodes of eight, eight sequences a rank: at 64 ranks bench/cases, else as
`dhp dataset --model qwen3-vl` draws them. Sides take turns. Thread CPU ms: median (least to most).
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import re
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import in_turns, machine, over, span, thread_seconds

from dhp import _core as core

sys.path.insert(0, str(Path(__file__).parent / "paper"))
from dhp_command import Dhp

CASES = Path(__file__).parent / "cases"
DATA = ["openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"]
HYBRID, DYNAMIC = "megatron.core.pipeline_parallel.hybrid_cp_schedule", "megatron.core.datasets.data_schedule"
OWN_CODE = [HYBRID, DYNAMIC, DYNAMIC + "_utils"]

Rounds = list[list[list[int]]]  # ids by round and rank
Scheduler = Callable[[list[tuple[int, int]], int, int], Rounds]  # of (id, tokens), ranks and M


class Unused:
    """Stands for anything in a module that schedulers import without using it."""


class Empty(types.ModuleType):
    def __getattr__(self, name: str) -> type[Unused]:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unused


class MegatronFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the files of the schedulers in a checkout; other modules of Megatron are empty."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] != "megatron":
            return None
        file = self.checkout / (name.replace(".", "/") + ".py")
        if name in OWN_CODE and file.exists():
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def import_schedulers(checkout: Path) -> dict[str, Scheduler]:
    """Those that the checkout has, by "hcp" and "dcp"."""
    found: dict[str, Scheduler] = {}
    for name in [name for name in sys.modules if name.split(".")[0] == "megatron"]:
        del sys.modules[name]  # of another checkout
    finder = MegatronFinder(checkout)
    sys.meta_path.insert(0, finder)
    try:
        hybrid = getattr(importlib.import_module(HYBRID), "BalancedCPScheduler", Unused)
        dynamic = getattr(importlib.import_module(DYNAMIC), "DefaultDynamicCPScheduler", Unused)
    finally:
        sys.meta_path.remove(finder)
    if hybrid is not Unused:
        found["hcp"] = lambda lengths, ranks, most: run_hybrid(hybrid, lengths, ranks, most)
    if dynamic is not Unused:
        found["dcp"] = lambda lengths, ranks, most: run_dynamic(dynamic, lengths, ranks, most)
    return found


def run_hybrid(scheduler: Any, lengths: list[tuple[int, int]], ranks: int, most: int) -> Rounds:
    group = types.SimpleNamespace(size=lambda: ranks)
    _, rounds = scheduler(most, group).get_groups_and_subsamples(lengths, None)
    return list(rounds)


def run_dynamic(scheduler: Any, lengths: list[tuple[int, int]], ranks: int, most: int) -> Rounds:
    return list(scheduler(most, 1, ranks, None).get_groups_and_subsamples(lengths))


def version_of(checkout: Path) -> str:
    file = checkout / "megatron/core/package_info.py"
    numbers = re.findall(r"^(?:MAJOR|MINOR|PATCH) = (\d+)", file.read_text(), re.M) if file.exists() else []
    return f"megatron-core {'.'.join(numbers)}" if numbers else "megatron-core"


@dataclass
class Case:
    ranks: int
    batch: core.Batch
    cluster: core.Cluster
    cost: core.CostModel

    def most_tokens(self) -> int:
        """That a rank surely holds: their cap counts tokens, so the sequence with most bytes a token decides."""
        budget = core.activation_budget_bytes(self.cost, self.cluster)
        return int(min(budget * s.tokens / core.task_memory_bytes(self.cost, [s], 1) for s in self.batch.sequences))

    def over_bound(self, plan: core.Plan) -> float:
        if wrong := core.check_plan(plan, self.batch, self.cluster, self.cost):
            raise SystemExit(f"peers_planning: {plan.planner} makes a plan that is not valid: {wrong[0]}")
        seconds = core.predict_task_seconds(plan, self.batch, self.cluster, self.cost)
        bound_s = core.simple_lower_bound_s(self.batch, self.cluster, self.cost)
        return core.replay(plan, seconds).makespan_s / bound_s

    def plan(self, planner: str, **options: Any) -> core.Plan:
        plan = core.try_plan(self.batch, self.cluster, self.cost, planner=planner, **options)
        if isinstance(plan, core.Infeasible):
            raise SystemExit(f"peers_planning: {planner}: {plan.reason}")
        return plan


def case_of(data: str, ranks: int, dhp: Dhp) -> Case:
    cluster = core.read_cluster(str(CASES / "cluster_910b_8x8.json"))
    cluster.nodes = ranks // cluster.ranks_per_node
    file = CASES / f"batch_{data}_512.json"
    if ranks != 64:
        file = dhp.folder / f"{data}_{ranks}.json"
        dhp.json("dataset", "--data", data, "--model", "qwen3-vl", "--count", str(8 * ranks), "-o", file)
    cost = core.read_cost_model(str(CASES / "cost_qwen3-vl-8b_8192.json"))
    return Case(ranks, core.read_batch(str(file)), cluster, cost)


def groups_of(ids_of_ranks: list[list[int]]) -> dict[tuple[int, ...], list[int]]:
    """Ranks by what they run, in the order in which they run it."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank, ids in enumerate(ids_of_ranks):
        groups.setdefault(tuple(ids), []).append(rank)
    groups.pop((), None)  # ranks that run nothing
    return groups


def has_communicators(ids_of_ranks: list[list[int]], ranks: int) -> bool:
    return all(len(g) == ranks or g[0] % len(g) == 0 for g in groups_of(ids_of_ranks).values())


def plan_of(case: Case, name: str, rounds: Rounds, barriers: bool = True) -> core.Plan:
    """A task a sample (hcp), or one of all samples of a group (dcp); by ring, as our planners plan too."""
    packed = name == "dcp"
    tasks: list[core.Task] = []
    for number, ids_of_ranks in enumerate(rounds):
        for ids, ranks in groups_of(ids_of_ranks).items():
            for part in [list(ids)] if packed else [[one] for one in ids]:
                tasks.append(core.Task(len(tasks), ranks, part, number if barriers else 0))
    schedule = (core.Schedule.lockstep if packed else core.Schedule.rounds) if barriers else core.Schedule.free
    return core.Plan(schedule, case.ranks, tasks, name)


def best_capacity(case: Case, name: str, scheduler: Scheduler) -> tuple[int, Rounds]:
    """M and the answer at it."""
    lengths = [(s.id, s.tokens) for s in case.batch.sequences]
    tried = []
    for divisor in (1, 2, 4, 8, 16):
        most = case.most_tokens() // divisor
        try:
            rounds = scheduler(lengths, case.ranks, most)
        except (AssertionError, IndexError):
            continue
        if all(has_communicators(one, case.ranks) for one in rounds):
            tried.append((case.over_bound(plan_of(case, name, rounds)), most, rounds))
    if not tried:
        raise SystemExit(f"peers_planning: {name} has no plan at any number of tokens a rank")
    _, most, rounds = min(tried, key=lambda one: one[0])
    return most, rounds


def compare(case: Case, schedulers: dict[str, Scheduler], repeats: int) -> list[list[str]]:
    """Rows of the table: side, ms, over free, makespan over bound."""
    lengths = [(s.id, s.tokens) for s in case.batch.sequences]
    plans = {"free": case.plan("free"), "free, effort fast": case.plan("free", effort="fast")}
    calls: dict[str, Callable[[], object]] = {
        "free": lambda: case.plan("free"),
        "free, effort fast": lambda: case.plan("free", effort="fast"),
    }
    extra = {}
    for name, scheduler in schedulers.items():
        most, rounds = best_capacity(case, name, scheduler)
        side, copied = f"{name}, M = {most:,}", f"megatron-{'hybrid' if name == 'hcp' else 'dynamic'}:{most}"
        plans[side], plans[f"{name}, copy"] = plan_of(case, name, rounds), case.plan(copied)
        calls[side] = lambda scheduler=scheduler, most=most: scheduler(lengths, case.ranks, most)
        calls[f"{name}, copy"] = lambda copied=copied: case.plan(copied)
        if name == "hcp":
            extra[side] = f"; no barriers {case.over_bound(plan_of(case, name, rounds, barriers=False)):.3f}"
    timed = {name: (lambda call=call: thread_seconds(call)) for name, call in calls.items()}
    seconds = in_turns(timed, repeats)
    rows = []
    for name, taken in seconds.items():
        ratio = span(over(taken, seconds["free"]), ".3g")
        quality = f"{case.over_bound(plans[name]):.3f}{extra.get(name, '')}"
        rows.append([name, span([1000 * s for s in taken], ".3g"), ratio, quality])
    return rows


def installed() -> list[Path]:
    """The folder that an installed megatron-core is in."""
    spec = importlib.util.find_spec("megatron")
    return [Path(place).parent for place in (spec.submodule_search_locations or [])] if spec else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megatron", type=Path, nargs="+", metavar="CHECKOUT", help="folders with megatron/core")
    parser.add_argument("--ranks", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--data", nargs="+", choices=DATA, default=["openvid", "internvid", "lognormal"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dhp", type=Path, default=Path("build/release/dhp"), help="makes batches")
    options = parser.parse_args()
    schedulers: dict[str, Scheduler] = {}
    for checkout in options.megatron or installed():
        if not (checkout / "megatron/core").is_dir():
            parser.error(f"--megatron {checkout}: no folder megatron/core in it; give that of a checkout")
        found = import_schedulers(checkout)
        print(f"{checkout}: {version_of(checkout)}, {' and '.join(found) or 'no scheduler'}")
        schedulers |= found
    if not schedulers:
        print("no megatron-core here: our planners alone; --megatron CHECKOUT adds its schedulers")
    print(f"{machine()}; {options.repeats} repeats: median (least to most)\n")
    columns = ["ranks", "data", "planner", "thread CPU ms", "over free", "makespan / bound"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        dhp = Dhp(options.dhp.resolve(), Path(folder))
        for ranks, data in itertools.product(options.ranks, options.data):
            for row in compare(case_of(data, ranks, dhp), schedulers, options.repeats):
                print(f"| {' | '.join([str(ranks), data, *row])} |", flush=True)


if __name__ == "__main__":
    main()
