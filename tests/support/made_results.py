"""Results for tests of the report: real plans of the shared cases, replayed with tasks that take a little more or less
than predicted. What a simulator or a run would know is made up where the report only draws it."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sys
from pathlib import Path
from typing import Any

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    Link,
    Plan,
    Sequence,
    activation_budget_bytes,
    read_batch,
    read_cluster,
    read_cost_model,
    replay,
    task_memory_bytes,
    try_plan,
)

CASES = Path(__file__).parents[2] / "bench" / "cases"
WAITING = 0.03  # share of a wide task that its ranks wait for shards, made up


@dataclasses.dataclass(frozen=True)
class Case:
    """Batches drawn from one of the shared ones, and where they run."""

    batch: Batch
    cluster: Cluster
    cost: CostModel

    def drawn(self, size: int, seed: int) -> Batch:
        chosen = random.Random(seed).choices(self.batch.sequences, k=size)
        return Batch([Sequence(i, s.tokens, s.patches) for i, s in enumerate(chosen)])


def case(ranks: int, data: str = "openvid") -> Case:
    cluster = read_cluster(str(CASES / "cluster_910b_8x8.json"))
    cluster.nodes, cluster.ranks_per_node = max(1, ranks // 8), min(ranks, 8)
    return Case(
        read_batch(str(CASES / f"batch_{data}_512.json")),
        cluster,
        read_cost_model(str(CASES / "cost_qwen3-vl-8b_8192.json")),
    )


def made_result(name: str, planner: str, where: Case, *, steps: int = 4, noise: float = 0.05, **more: Any) -> dict:
    """A `dhp.result/1` document of `planner` on batches of 8 sequences a rank."""
    ranks = where.cluster.ranks
    document: dict[str, Any] = {
        "format": "dhp.result/1",
        "kind": "simulated",
        "name": name,
        "planner": planner,
        "ranks": ranks,
        "ranks_per_node": where.cluster.ranks_per_node,
        "clock": "simulated",
        "steps": [],
        "tasks": [],
    }
    for step in range(1, steps + 1):
        batch = where.drawn(8 * ranks, seed=step)
        plan = try_plan(batch, where.cluster, where.cost, planner=planner)
        assert isinstance(plan, Plan), plan
        generator = random.Random(step)
        seconds = [(t.end_s - t.start_s) * math.exp(generator.gauss(0, noise)) for t in plan.tasks]
        lines = replay(plan, seconds)
        _add_tasks(document, step, plan, batch, seconds)
        spans = _spans(plan, lines.start_s, lines.end_s)
        update = lines.makespan_s * 0.02
        document["steps"].append(_step(step, plan, batch, spans, lines.makespan_s, update, generator))
        if step == 1:
            for rank in range(ranks):
                at = lines.makespan_s
                spans.append({"rank": rank, "kind": "reduce", "start_s": at, "end_s": at + 0.7 * update})
                spans.append({"rank": rank, "kind": "optimizer", "start_s": at + 0.7 * update, "end_s": at + update})
            document["timeline"] = {"step": 1, "spans": spans}
            document["lengths"] = [s.tokens for s in batch.sequences]
            document["memory"] = _memory(plan, batch, where, lines.start_s, lines.end_s)
    return document | more


def _add_tasks(document: dict, step: int, plan: Plan, batch: Batch, seconds: list[float]) -> None:
    tokens = {s.id: s.tokens for s in batch.sequences}
    for task, took in zip(plan.tasks, seconds, strict=True):
        document["tasks"].append(
            {
                "step": step,
                "id": task.id,
                "degree": len(task.ranks),
                "sequences": len(task.sequences),
                "tokens": sum(tokens[i] for i in task.sequences),
                "predicted_s": task.end_s - task.start_s,
                "seconds": took,
            }
        )


def _spans(plan: Plan, starts: list[float], ends: list[float]) -> list[dict]:
    spans, ready = [], [0.0] * plan.ranks
    for task, start, end in zip(plan.tasks, starts, ends, strict=True):
        computed = end - (WAITING * (end - start) if len(task.ranks) > 1 else 0.0)
        for rank in task.ranks:
            if start > ready[rank]:
                spans.append({"rank": rank, "kind": "peer", "start_s": ready[rank], "end_s": start, "task": task.id})
            spans.append({"rank": rank, "kind": "compute", "start_s": start, "end_s": computed, "task": task.id})
            if computed < end:
                spans.append({"rank": rank, "kind": "transfer", "start_s": computed, "end_s": end, "task": task.id})
            ready[rank] = end
    return spans


def _step(
    step: int, plan: Plan, batch: Batch, spans: list[dict], makespan: float, update: float, generator: random.Random
) -> dict:
    idle = dict.fromkeys(("peer", "transfer", "data", "no_task"), 0.0)
    last = [0.0] * plan.ranks
    for span in spans:
        last[span["rank"]] = max(last[span["rank"]], span["end_s"])
        if span["kind"] in idle:
            idle[span["kind"]] += span["end_s"] - span["start_s"]
    idle["no_task"] = sum(makespan - end for end in last)
    return {
        "step": step,
        "seconds": makespan + update,
        "tasks_s": makespan,
        "predicted_s": plan.predicted.makespan_s,
        "lower_bound_s": plan.predicted.lower_bound_s,
        "tokens": sum(s.tokens for s in batch.sequences),
        "planning_s": 0.005 * math.exp(generator.gauss(0, 0.3)),
        "idle_s": idle,
    }


def _memory(plan: Plan, batch: Batch, where: Case, starts: list[float], ends: list[float]) -> dict:
    by_id = {s.id: s for s in batch.sequences}
    peak, points = [0.0] * plan.ranks, []
    for task, start, end in zip(plan.tasks, starts, ends, strict=True):
        held = task_memory_bytes(where.cost, [by_id[i] for i in task.sequences], len(task.ranks))
        for rank in task.ranks:
            peak[rank] = max(peak[rank], held)
            points.append({"rank": rank, "time_s": start, "bytes": 0.0})
            points.append({"rank": rank, "time_s": (start + end) / 2, "bytes": held})
            points.append({"rank": rank, "time_s": end, "bytes": 0.0})
    budget = activation_budget_bytes(where.cost, where.cluster)
    return {"budget_bytes": budget, "peak_bytes": peak, "over_time": points}


def write_results(folder: Path, ranks: int, planners: list[str], steps: int = 4) -> list[Path]:
    """A file a planner, all on the same batches."""
    files = []
    for planner in planners:
        file = folder / f"{planner.replace(':', '-')}-{ranks}.json"
        file.write_text(
            json.dumps(made_result(f"{planner}, openvid, {ranks} ranks", planner, case(ranks), steps=steps))
        )
        files.append(file)
    return files


__all__ = ["Case", "Link", "case", "made_result", "write_results"]

if __name__ == "__main__":  # made_results.py FOLDER RANKS PLANNER...
    write_results(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
