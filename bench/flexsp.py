"""FlexSP as a peer: a mixed-integer program a micro-batch, instead of a planner that runs in milliseconds.

    python bench/flexsp.py --dhp build/release/dhp                      # a few shared cases, beside the other planners
    python bench/flexsp.py --batch B.json --cluster C.json --cost K.json -o plan.json

After FlexSP (Wang et al., ASPLOS 2025; Hetu-Galvatron, branch flexsp), from its rules: the batch, longest first, is cut
into consecutive micro-batches so that the one with most tokens has fewest; the least number that memory allows and the
four above it are tried. The lengths of a micro-batch fall into 16 buckets whose upper ends exceed them by least in sum
(more buckets where that sum is too large); a bucket's sequences count as its upper end. The program picks groups of
power-of-two degrees and how many sequences of each bucket every group gets, so that the slowest group is quickest.
Lockstep, as for ZeRO-3. Groups stand on consecutive, aligned ranks.

Ours: time is docs/design.md's task time, which for all_to_all (FlexSP's exchange) is linear in the counts, as the
program needs; for ring, what is hidden is charged sequence by sequence. HiGHS solves it, where FlexSP has SCIP, under
the same 5 seconds; as there, the best plan with one degree for all is what it may not fall behind. FlexSP leaves out
degree 1 (`--least-degree 2`) and uses all ranks; here some may idle. `dhp explain` gives the makespan of every plan.
"of the bound" divides by the bound of docs/bounds.md, which holds for ring, direct and hierarchical. Needs highspy.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highspy
import numpy as np

CASES = Path(__file__).parent.parent / "data" / "cases"
BUCKETS = 16
PLANNERS = ["paper", "static", "balanced-static", "ulysses", "megatron-hybrid", "megatron-dynamic"]


@dataclass
class Sequence:
    id: int
    tokens: int
    patches: int


@dataclass
class Group:
    degree: int
    sequences: list[Sequence]


@dataclass
class Model:
    """Costs and memory as the program sees them: linear in what a group holds."""

    cluster: dict[str, Any]
    cost: dict[str, Any]
    exchange: str

    @property
    def ranks(self) -> int:
        return self.cluster["nodes"] * self.cluster["ranks_per_node"]

    @property
    def budget_bytes(self) -> float:
        return self.cluster["memory_bytes"] - self.cost["state_bytes"]

    def degrees(self, least: int) -> list[int]:
        powers = [2**k for k in range(self.ranks.bit_length()) if least <= 2**k <= self.ranks]
        heads = self.cost.get("query_heads", 0)
        return [d for d in powers if self.exchange == "ring" or heads % d == 0]

    def bytes_of(self, one: Sequence) -> float:
        return one.tokens * self.cost["token_bytes"] + one.patches * self.cost.get("patch_bytes", 0)

    def link(self, degree: int) -> tuple[float, float]:
        """Seconds a byte and latency of the slowest link of an aligned group."""
        inside, between = self.cluster["intra_node"], self.cluster["inter_node"]
        if degree <= self.cluster["ranks_per_node"]:
            lanes = max(1, min(inside.get("links", 1), degree - 1)) if self.exchange == "all_to_all" else 1
            return 1 / (inside["bandwidth_bytes_per_s"] * lanes), inside["latency_s"]
        bandwidth = between["bandwidth_bytes_per_s"]
        if self.exchange == "ring":
            bandwidth = min(bandwidth, inside["bandwidth_bytes_per_s"])
        return 1 / bandwidth, max(inside["latency_s"], between["latency_s"])

    def fixed_s(self, degree: int) -> float:
        seconds = self.cost["task_s"]
        latency = self.cost["layers"] * self.link(degree)[1] if degree > 1 else 0.0
        for each in (self.cost["forward"], self.cost["backward"]):
            if self.exchange == "all_to_all":
                seconds += each["step_s"] + 4 * latency
            else:
                seconds += degree * each["step_s"] + (degree - 1) * max(0.0, latency - each["step_s"])
        return seconds

    def sequence_s(self, one: Sequence, degree: int) -> float:
        seconds = one.patches * self.cost.get("patch_s", 0) / degree
        for each in (self.cost["forward"], self.cost["backward"]):
            attention = each["pair_s"] * one.tokens**2 / (2 * degree)
            step = each.get("sequence_step_s", 0)
            seconds += each["token_s"] * one.tokens / degree + attention
            shard = one.tokens / degree * self.link(degree)[0] if degree > 1 else 0.0
            if self.exchange == "all_to_all":
                seconds += step + each["all_to_all_bytes_per_token"] * shard * (degree - 1) / degree
            else:
                exposed = each["ring_bytes_per_token"] * shard - attention / degree - step
                seconds += degree * step + (degree - 1) * max(0.0, exposed)
        return seconds

    def slowest_s(self, groups: list[Group]) -> float:
        return max(self.fixed_s(g.degree) + sum(self.sequence_s(s, g.degree) for s in g.sequences) for g in groups)


def cut(sequences: list[Sequence], count: int) -> list[list[Sequence]]:
    """Consecutive parts, longest sequences first, so that the most tokens of a part are least."""
    order = sorted(sequences, key=lambda s: (-s.tokens, s.id))

    def parts_within(limit: int) -> list[list[Sequence]]:
        parts: list[list[Sequence]] = []
        filled = limit
        for one in order:
            if filled + one.tokens > limit:
                parts.append([])
                filled = 0
            parts[-1].append(one)
            filled += one.tokens
        return parts

    low, high = max(s.tokens for s in order), sum(s.tokens for s in order)
    while low < high:
        middle = (low + high) // 2
        if len(parts_within(middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return parts_within(low)


def buckets_of(sequences: list[Sequence], count: int) -> list[list[Sequence]]:
    """Runs of the sorted sequences with the least sum of (longest of its run - own length), by dynamic programming."""
    order = sorted(sequences, key=lambda s: (s.tokens, s.id))
    tokens = np.array([s.tokens for s in order], dtype=float)
    prefix = np.concatenate([[0.0], np.cumsum(tokens)])
    size = len(order)
    begins = np.arange(size + 1)
    error = np.where(begins == 0, 0.0, np.inf)
    choice = np.zeros((count + 1, size + 1), dtype=int)
    for bucket in range(1, count + 1):
        following = np.full(size + 1, np.inf)
        for end in range(1, size + 1):
            costs = error[:end] + tokens[end - 1] * (end - begins[:end]) - (prefix[end] - prefix[:end])
            choice[bucket, end] = int(np.argmin(costs))
            following[end] = costs[choice[bucket, end]]
        error = following
    runs = []
    end = size
    for bucket in range(count, 0, -1):
        runs.append(order[choice[bucket, end] : end])
        end = choice[bucket, end]
    return [run for run in reversed(runs) if run]


def enough_buckets(sequences: list[Sequence], capacity_tokens: float) -> list[list[Sequence]]:
    count = min(BUCKETS, len(sequences))
    limit = (sum(s.tokens for s in sequences) + capacity_tokens) / 2
    while True:
        runs = buckets_of(sequences, count)
        if count >= len(sequences) or sum(run[-1].tokens * len(run) for run in runs) <= limit:
            return runs
        count += 1


def solve_one_degree(model: Model, sequences: list[Sequence], degrees: list[int]) -> list[Group] | None:
    """The best plan with one degree: longest first to the group that is done first and has room."""
    best: list[Group] | None = None
    for degree in degrees:
        groups = [Group(degree, []) for _ in range(model.ranks // degree)]
        busy, held = [0.0] * len(groups), [0.0] * len(groups)
        for one in sorted(sequences, key=lambda s: (-s.tokens, s.id)):
            room = [g for g in range(len(groups)) if held[g] + model.bytes_of(one) <= degree * model.budget_bytes]
            if not room:
                break
            group = min(room, key=lambda g: (busy[g], g))
            groups[group].sequences.append(one)
            busy[group] += model.sequence_s(one, degree)
            held[group] += model.bytes_of(one)
        else:
            used = [g for g in groups if g.sequences]
            if best is None or model.slowest_s(used) < model.slowest_s(best):
                best = used
    return best


class Program:
    """Variables: the slowest group's time, whether a group is used, and what it gets of every bucket."""

    def __init__(self, model: Model, runs: list[list[Sequence]], degrees: list[int]) -> None:
        self.model, self.runs = model, runs
        self.groups = [degree for degree in degrees for _ in range(model.ranks // degree)]
        self.highs = highspy.Highs()
        self.highs.setOptionValue("output_flag", False)
        self.slowest = self.highs.addVariable(0, highspy.kHighsInf, 1.0)
        self.used = [self.highs.addBinary() for _ in self.groups]
        upper = [Sequence(0, max(s.tokens for s in run), max(s.patches for s in run)) for run in runs]
        heaviest = [max(model.bytes_of(s) for s in run) for run in runs]
        self.gets: list[list[Any]] = []
        for p, degree in enumerate(self.groups):
            budget = degree * model.budget_bytes
            most = [len(run) if heaviest[q] <= budget else 0 for q, run in enumerate(runs)]
            gets = [self.highs.addIntegral(0, count) for count in most]
            self.gets.append(gets)
            times = zip(gets, [model.sequence_s(one, degree) for one in upper], strict=True)
            shares = zip(gets, [each / budget for each in heaviest], strict=True)
            self.row([(self.slowest, -1), (self.used[p], model.fixed_s(degree)), *times], most=0)
            self.row([(self.used[p], -1), *shares], most=0)
            if p > 0 and self.groups[p - 1] == degree:  # groups of one degree are alike: use the first ones
                self.row([(self.used[p - 1], 1), (self.used[p], -1)], least=0)
        for q, run in enumerate(runs):
            self.row([(gets[q], 1) for gets in self.gets], least=len(run), most=len(run))
        self.row(list(zip(self.used, self.groups, strict=True)), most=model.ranks)

    def row(self, terms: list[tuple[Any, float]], least: float = -math.inf, most: float = math.inf) -> None:
        columns = np.array([variable.index for variable, _ in terms], dtype=np.int32)
        self.highs.addRow(least, most, len(terms), columns, np.array([value for _, value in terms], dtype=float))

    def begin_with(self, plan: list[Group]) -> None:
        """A plan to improve. It may break the program, whose sequences are as long as their bucket's upper end."""
        bucket_of = {s.id: q for q, run in enumerate(self.runs) for s in run}
        values = {self.slowest.index: 0.0}
        for degree in set(self.groups):
            alike = [p for p, each in enumerate(self.groups) if each == degree]
            for p, group in zip(alike, [g for g in plan if g.degree == degree], strict=False):
                values[self.used[p].index] = 1.0
                for one in group.sequences:
                    column = self.gets[p][bucket_of[one.id]].index
                    values[column] = values.get(column, 0.0) + 1.0
        solution = highspy.HighsSolution()
        solution.col_value = [values.get(column, 0.0) for column in range(self.highs.getNumCol())]
        solution.col_value[self.slowest.index] = 2 * self.model.slowest_s(plan)
        self.highs.setSolution(solution)

    def solve(self, limit_s: float) -> list[Group] | None:
        self.highs.setOptionValue("time_limit", limit_s)
        self.highs.setOptionValue("threads", 1)
        self.highs.run()
        if self.highs.getInfo().primal_solution_status != highspy.kSolutionStatusFeasible:
            return None
        values = self.highs.getSolution().col_value
        waiting = [sorted(run, key=lambda s: (-s.tokens, s.id)) for run in self.runs]
        result = []
        for p, degree in enumerate(self.groups):
            got: list[Sequence] = []
            for q in range(len(self.runs)):
                got += [waiting[q].pop() for _ in range(round(values[self.gets[p][q].index]))]
            if got:
                result.append(Group(degree, got))
        return result


def solve(model: Model, sequences: list[Sequence], degrees: list[int], limit_s: float) -> list[Group] | None:
    """Groups of one micro-batch; nothing if no plan was found."""
    capacity = model.ranks * model.budget_bytes / max(model.bytes_of(s) / s.tokens for s in sequences)
    program = Program(model, enough_buckets(sequences, capacity), degrees)
    one_degree = solve_one_degree(model, sequences, degrees)
    if one_degree:
        program.begin_with(one_degree)
    found = [one_degree, program.solve(limit_s)]
    return min((g for g in found if g), key=model.slowest_s, default=None)


def to_plan(model: Model, micro_batches: list[list[Group]]) -> dict[str, Any]:
    """Widest groups first, so that all are aligned."""
    tasks: list[dict[str, Any]] = []
    for number, groups in enumerate(micro_batches):
        first = 0
        for group in sorted(groups, key=lambda g: -g.degree):
            task = {"id": len(tasks), "ranks": list(range(first, first + group.degree)), "micro_batch": number}
            task["sequences"] = [s.id for s in group.sequences]
            task["exchange"] = model.exchange if group.degree > 1 else "ring"
            tasks.append(task)
            first += group.degree
    return {"format": "dhp.plan/1", "schedule": "lockstep", "ranks": model.ranks, "planner": "flexsp", "tasks": tasks}


def silence() -> None:
    """HiGHS greets whatever its options say."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plan(model: Model, batch: list[Sequence], args: argparse.Namespace) -> dict[str, Any] | None:
    degrees = model.degrees(args.least_degree)
    least = math.ceil(sum(model.bytes_of(s) for s in batch) / (model.ranks * model.budget_bytes))
    cuts = {len(parts): parts for parts in (cut(batch, least + more) for more in range(args.counts))}
    with concurrent.futures.ProcessPoolExecutor(args.jobs, initializer=silence) as pool:
        waiting = {
            count: [pool.submit(solve, model, part, degrees, args.time_limit) for part in parts]
            for count, parts in cuts.items()
        }
        solved = {count: [one.result() for one in parts] for count, parts in waiting.items()}
    whole = [[part for part in parts if part] for parts in solved.values() if all(parts)]
    if not whole:
        return None
    return to_plan(model, min(whole, key=lambda parts: sum(model.slowest_s(groups) for groups in parts)))


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def answer(dhp: str, command: str, files: list[str], *more: str) -> dict[str, Any]:
    run = subprocess.run([dhp, command, *files, *more, "--output-format", "json"], capture_output=True, text=True)
    if run.returncode == 2:
        sys.exit(run.stderr)
    return json.loads(run.stdout)


def compare(batch_file: Path, cluster_file: Path, cost_file: Path, args: argparse.Namespace) -> None:
    files = ["--batch", str(batch_file), "--cluster", str(cluster_file), "--cost", str(cost_file)]
    model = Model(read(cluster_file), read(cost_file), args.exchange)
    if any(speed != 1 for speed in model.cluster.get("rank_speed", [])):
        sys.exit("FlexSP knows no ranks of unequal speed")
    batch = [Sequence(s["id"], s["tokens"], s.get("patches", 0)) for s in read(batch_file)["sequences"]]
    print(f"\n{batch_file.name}, {cluster_file.name}, {cost_file.name}")
    bound_s = 0.0
    for name in PLANNERS:
        made = answer(args.dhp, "plan", files, "--schedule", name, "-o", os.devnull)
        if "makespan_s" not in made:
            print(f"  {name:<18} infeasible")
            continue
        bound_s = bound_s or made["lower_bound_s"]  # the first planner's: ulysses has none
        print(f"  {name:<18} {made['makespan_s']:9.3f} s  {made['makespan_s'] / bound_s:6.3f} of the bound")
    start = time.monotonic()
    made_plan = plan(model, batch, args)
    took_s = time.monotonic() - start
    if made_plan is None:
        print(f"  flexsp             found none in {took_s:.0f} s")
        return
    with tempfile.TemporaryDirectory() as folder:
        file = args.output or Path(folder) / "plan.json"
        file.write_text(json.dumps(made_plan))
        subprocess.run([args.dhp, "check", *files, str(file)], check=True, stdout=subprocess.DEVNULL)
        makespan_s = answer(args.dhp, "explain", files, str(file))["makespan_s"]
    ratio = f"{makespan_s / bound_s:6.3f} of the bound" if bound_s else ""
    print(f"  flexsp             {makespan_s:9.3f} s  {ratio}, {args.exchange}, planned in {took_s:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("batch", "cluster", "cost"):
        parser.add_argument(f"--{name}", type=Path, help="JSON; all three or none")
    parser.add_argument("-o", "--output", type=Path, help="file for the plan")
    parser.add_argument("--dhp", default="build/release/dhp")
    parser.add_argument("--exchange", choices=["all_to_all", "ring"], default="all_to_all")
    parser.add_argument("--time-limit", type=float, default=5.0, help="seconds a micro-batch")
    parser.add_argument("--counts", type=int, default=5, help="numbers of micro-batches tried")
    parser.add_argument("--least-degree", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    if args.batch:
        compare(args.batch, args.cluster, args.cost, args)
        return
    for data in ("openvid", "lognormal", "burst", "msrvtt"):
        names = f"batch_{data}_512.json", "cluster_910b_8x8.json", "cost_qwen3-vl-8b_8192.json"
        compare(*(CASES / name for name in names), args)


if __name__ == "__main__":
    main()
