"""FlexSP as a peer: a mixed-integer program a micro-batch, instead of a planner that runs in milliseconds.

    python bench/flexsp.py                        # the shared cases at 8,192 tokens a rank, beside dhp's planners
    python bench/flexsp.py --batch B.json --cluster C.json --cost K.json -o plan.json

Needs highspy, of requirements-tests.txt.

After FlexSP (Wang et al., ASPLOS 2025; Hetu-Galvatron, branch flexsp), from its rules: the batch, longest first, is cut
into consecutive micro-batches so that the one with most tokens has fewest; the least number that memory allows and the
four above it are tried. The lengths of a micro-batch fall into 16 buckets whose upper ends exceed them by least in sum
(more buckets where that sum is too large); a bucket's sequences count as its upper end. The program picks groups of
power-of-two degrees and how many sequences of each bucket every group gets, so that the slowest group is quickest.
Lockstep, as for ZeRO-3. Groups stand on consecutive, aligned ranks.

Ours: time is dhp's task time. The program needs it linear in the counts. For all_to_all (FlexSP's exchange) it is, but
for the largest frame of a batch that tells of frames; that, and what ring hides, is charged sequence by sequence, which
is never too little. HiGHS solves it, where FlexSP has SCIP, under the same 5 seconds, here of CPU time; as there, the
best plan with one degree for all is what it may not fall behind. FlexSP leaves out degree 1 (`--least-degree 2`) and
uses all ranks; here some may idle. Ratios are over the simple bound of docs/design.md, which does not hold for
all_to_all.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import math
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highspy
import numpy as np

from dhp import _core as core
from dhp._core import Sequence

CASES = Path(__file__).parent.parent / "bench" / "cases"
DATA = ["openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"]
EXCHANGES = ["all_to_all", "ring"]
BUCKETS = 16


@dataclass
class Limits:
    """What a run may try."""

    time_limit_s: float = 5.0  # of one program
    counts: int = 5  # numbers of micro-batches
    least_degree: int = 1
    jobs: int = 1


@dataclass
class Group:
    degree: int
    sequences: list[Sequence]


class Model:
    """Costs and memory as the program sees them: a fixed part of every group, and a part of every sequence in it."""

    def __init__(self, cluster: core.Cluster, cost: core.CostModel, exchange: str) -> None:
        self.cluster, self.cost, self.exchange = cluster, cost, getattr(core.Exchange, exchange)
        self.ranks = cluster.ranks
        self.budget_bytes = core.activation_budget_bytes(cost, cluster)
        # Without what a task has once, the time of one sequence is its part: copies, with fixed terms of zero.
        self.part_cost = core.parse_cost_model(core.to_json(cost), "cost")
        self.part_cost.task_s = 0.0
        for name in ("forward", "backward"):
            each = getattr(self.part_cost, name)
            each.step_s = 0.0
            setattr(self.part_cost, name, each)
        self.part_cluster = core.parse_cluster(core.to_json(cluster), "cluster")
        for name in ("intra_node", "inter_node"):
            link = getattr(self.part_cluster, name)
            link.latency_s = 0.0
            setattr(self.part_cluster, name, link)

    def degrees(self, least: int) -> list[int]:
        powers = [2**k for k in range(self.ranks.bit_length()) if least <= 2**k <= self.ranks]
        heads = self.cost.query_heads
        return [d for d in powers if self.exchange == core.Exchange.ring or heads % d == 0]

    def bytes_of(self, one: Sequence) -> float:
        return core.task_memory_bytes(self.cost, [one], 1)

    def fixed_s(self, degree: int) -> float:
        return core.task_seconds(self.cost, self.cluster, [], list(range(degree)), self.exchange)

    def sequence_s(self, one: Sequence, degree: int) -> float:
        return core.task_seconds(self.part_cost, self.part_cluster, [one], list(range(degree)), self.exchange)

    def group_s(self, group: Group) -> float:
        return core.task_seconds(self.cost, self.cluster, group.sequences, list(range(group.degree)), self.exchange)

    def slowest_s(self, groups: list[Group]) -> float:
        return max(map(self.group_s, groups))


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
        heaviest = [max(model.bytes_of(s) for s in run) for run in runs]
        seconds = {degree: [self.most_s(run, degree) for run in runs] for degree in degrees}
        self.gets: list[list[Any]] = []
        for p, degree in enumerate(self.groups):
            budget = degree * model.budget_bytes
            most = [len(run) if heaviest[q] <= budget else 0 for q, run in enumerate(runs)]
            gets = [self.highs.addIntegral(0, count) for count in most]
            self.gets.append(gets)
            times = zip(gets, seconds[degree], strict=True)
            shares = zip(gets, [each / budget for each in heaviest], strict=True)
            self.row([(self.slowest, -1), (self.used[p], model.fixed_s(degree)), *times], most=0)
            self.row([(self.used[p], -1), *shares], most=0)
            if p > 0 and self.groups[p - 1] == degree:  # groups of one degree are alike: use the first ones
                self.row([(self.used[p - 1], 1), (self.used[p], -1)], least=0)
        for q, run in enumerate(runs):
            self.row([(gets[q], 1) for gets in self.gets], least=len(run), most=len(run))
        self.row(list(zip(self.used, self.groups, strict=True)), most=model.ranks)

    def most_s(self, run: list[Sequence], degree: int) -> float:
        """A bucket's upper end: its most tokens with its most patches."""
        end = Sequence(0, *(max(getattr(s, of) for s in run) for of in ("tokens", "patches", "frame_patches")))
        return self.model.sequence_s(end, degree)

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
        """What is found in so many seconds of CPU time: other processes do not count."""
        end_s = time.process_time() + limit_s
        for callback in (self.highs.cbSimplexInterrupt, self.highs.cbMipInterrupt):
            callback.subscribe(lambda event: event.interrupt() if time.process_time() > end_s else None)
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

    def is_optimal(self) -> bool:
        """Solved before its time was up, to HiGHS's relative gap of 1e-4."""
        return bool(self.highs.getModelStatus() == highspy.HighsModelStatus.kOptimal)


def solve(model: Model, sequences: list[Sequence], limits: Limits) -> tuple[list[Group] | None, bool]:
    """Groups of one micro-batch, nothing if no plan was found; whether the program was solved to its optimum."""
    degrees = model.degrees(limits.least_degree)
    capacity = model.ranks * model.budget_bytes / max(model.bytes_of(s) / s.tokens for s in sequences)
    program = Program(model, enough_buckets(sequences, capacity), degrees)
    one_degree = solve_one_degree(model, sequences, degrees)
    if one_degree:
        program.begin_with(one_degree)
    found = [one_degree, program.solve(limits.time_limit_s)]
    return min((g for g in found if g), key=model.slowest_s, default=None), program.is_optimal()


def to_plan(model: Model, micro_batches: list[list[Group]]) -> core.Plan:
    """Widest groups first, so that all are aligned."""
    tasks: list[core.Task] = []
    for number, groups in enumerate(micro_batches):
        first = 0
        for group in sorted(groups, key=lambda g: -g.degree):
            ranks = list(range(first, first + group.degree))
            exchange = model.exchange if group.degree > 1 else core.Exchange.ring
            tasks.append(core.Task(len(tasks), ranks, [s.id for s in group.sequences], number, exchange))
            first += group.degree
    return core.Plan(core.Schedule.lockstep, model.ranks, tasks, "flexsp")


# What the processes of a pool inherit: objects of the core cannot be sent to them.
inherited: dict[str, Any] = {}


def begin_worker() -> None:
    """HiGHS greets whatever its options say."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def solve_inherited(ids: list[int]) -> tuple[list[tuple[int, list[int]]] | None, bool]:
    groups, optimal = solve(inherited["model"], [inherited["by_id"][one] for one in ids], inherited["limits"])
    return groups and [(group.degree, [s.id for s in group.sequences]) for group in groups], optimal


@dataclass
class Answer:
    plan: core.Plan | None  # None: none was found
    programs: int
    optimal: int  # of them
    seconds: float


def plan_flexsp(model: Model, batch: core.Batch, limits: Limits) -> Answer:
    start = time.monotonic()
    by_id = {s.id: s for s in batch.sequences}
    inherited.update(model=model, by_id=by_id, limits=limits)
    least = math.ceil(sum(map(model.bytes_of, batch.sequences)) / (model.ranks * model.budget_bytes))
    tried = (cut(batch.sequences, least + more) for more in range(limits.counts))
    cuts = {len(parts): parts for parts in tried}
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(limits.jobs, fork, initializer=begin_worker) as pool:
        waiting = [[pool.submit(solve_inherited, [s.id for s in part]) for part in parts] for parts in cuts.values()]
        answers = [[each.result() for each in parts] for parts in waiting]
    flags = [optimal for parts in answers for _, optimal in parts]
    solved = [
        [[Group(degree, [by_id[one] for one in ids]) for degree, ids in groups] for groups, _ in parts if groups]
        for parts in answers
    ]
    whole = [parts for parts, all_parts in zip(solved, answers, strict=True) if len(parts) == len(all_parts)]
    best = min(whole, key=lambda parts: sum(map(model.slowest_s, parts)), default=None)
    plan = to_plan(model, best) if best else None
    return Answer(plan, len(flags), sum(flags), time.monotonic() - start)


def makespan_s(plan: core.Plan, batch: core.Batch, cluster: core.Cluster, cost: core.CostModel) -> float:
    wrong = core.check_plan(plan, batch, cluster, cost)
    if wrong:
        raise SystemExit(f"flexsp: a plan that is not valid: {'; '.join(wrong)}")
    return core.replay(plan, core.predict_task_seconds(plan, batch, cluster, cost)).makespan_s


def planner_names() -> list[str]:
    return [info.name for info in core.planners() if ":" not in info.name]


def ratios_of_planners(batch: core.Batch, cluster: core.Cluster, cost: core.CostModel, bound_s: float) -> list[float]:
    """Over the bound; infinite where a planner has no plan."""
    ratios = []
    for name in planner_names():
        plan = core.try_plan(batch, cluster, cost, planner=name)
        ratios.append(math.inf if isinstance(plan, core.Infeasible) else plan.predicted.makespan_s / bound_s)
    return ratios


def cell(ratio: float) -> str:
    return f"{ratio:.4f}" if math.isfinite(ratio) else "-"


def compare(name: str, files: tuple[Path, Path, Path], args: argparse.Namespace, limits: Limits) -> list[str]:
    """One row of the table."""
    batch, cluster = core.read_batch(str(files[0])), core.read_cluster(str(files[1]))
    cost = core.read_cost_model(str(files[2]))
    if any(speed != 1 for speed in cluster.rank_speed):
        raise SystemExit(f"{files[1]}: rank_speed other than 1; FlexSP knows no ranks of unequal speed")
    bound_s = core.simple_lower_bound_s(batch, cluster, cost)
    row = [name, *map(cell, ratios_of_planners(batch, cluster, cost, bound_s))]
    optimal = programs = seconds = 0.0
    for exchange in args.exchange:
        answer = plan_flexsp(Model(cluster, cost, exchange), batch, limits)
        row.append(cell(makespan_s(answer.plan, batch, cluster, cost) / bound_s if answer.plan else math.inf))
        optimal, programs, seconds = optimal + answer.optimal, programs + answer.programs, seconds + answer.seconds
        if args.output and answer.plan:
            core.annotate(answer.plan, batch, cluster, cost)
            args.output.write_text(core.to_json(answer.plan))
    return [*row, f"{optimal:.0f} of {programs:.0f}", f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("batch", "cluster", "cost"):
        parser.add_argument(f"--{name}", type=Path, help="JSON; all three or none")
    parser.add_argument("-o", "--output", type=Path, help="file for FlexSP's plan (of the last exchange and case)")
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA, help="of the shared cases")
    parser.add_argument("--tokens", default="8192", choices=["4096", "8192", "16384"], help="a rank; shared cases")
    parser.add_argument("--exchange", nargs="+", choices=EXCHANGES, default=EXCHANGES)
    parser.add_argument("--time-limit", type=float, default=Limits.time_limit_s, help="CPU seconds a program")
    parser.add_argument("--counts", type=int, default=Limits.counts, help="numbers of micro-batches tried")
    parser.add_argument("--least-degree", type=int, default=Limits.least_degree)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    limits = Limits(args.time_limit, args.counts, args.least_degree, args.jobs)
    own = (args.batch, args.cluster, args.cost)
    if any(own) and not all(own):
        parser.error("--batch, --cluster and --cost: all three or none")
    cost = f"cost_qwen3-vl-8b_{args.tokens}.json"
    shared = {
        data: (CASES / f"batch_{data}_512.json", CASES / "cluster_910b_8x8.json", CASES / cost) for data in args.data
    }
    columns = ["data", *planner_names(), *(f"flexsp, {exchange}" for exchange in args.exchange)]
    columns += ["programs solved to the end", "flexsp's planning, s"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for name, files in ({args.batch.stem: own} if args.batch else shared).items():
        print(f"| {' | '.join(compare(name, files, args, limits))} |", flush=True)


if __name__ == "__main__":
    main()
