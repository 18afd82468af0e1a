"""What must not grow: a long run keeps its memory, threads and open files. And plans for very many ranks are valid."""

from __future__ import annotations

import os
import random
import re
import time
from pathlib import Path

import pytest
from budget import SEED, nightly
from quick import QuickStart
from world import make_world, start_ranks, write_settings

from dhp import _core as core

CASES = Path(__file__).parents[2] / "bench" / "cases"
STEPS = 500
EARLY = 100  # steps after which all that a run keeps for itself is there


def state_of(pid: int) -> dict[str, int]:
    """Of a process: resident memory in bytes, threads, open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    number = {key: int(value) for key, value in re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.M)}
    return {
        "memory": number["VmRSS"] * 1024,
        "threads": number["Threads"],
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


@nightly
def test_five_hundred_steps_take_no_more_than_a_hundred(tmp_path: Path, quick: QuickStart) -> None:
    folder = make_world(tmp_path)
    settings = write_settings(folder, steps=STEPS, global_batch_size=4, capacity_tokens=160, output_dir="out")
    ranks = start_ranks(quick, folder, 2, [settings, "--metrics", "steps.jsonl"], "run")

    metrics = folder / "steps.jsonl"

    def states_at(step: int) -> list[dict[str, int]]:
        deadline = time.monotonic() + 900
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < step:
            assert time.monotonic() < deadline and not quick.ended(*ranks, seconds=0), ranks[0].said()[-2000:]
            time.sleep(0.01)
        return [state_of(rank.pid) for rank in ranks]

    early, late = states_at(EARLY), states_at(STEPS - 10)
    assert quick.ended(*ranks, seconds=120)
    print(f"\nafter {EARLY} steps {early}, after {STEPS - 10} {late}")
    for before, after in zip(early, late, strict=True):
        assert after["threads"] <= before["threads"]
        assert after["files"] <= before["files"]
        # A leak of one activation (4 KB) a step would show as 1.6 MB, the allocator's own wandering is larger.
        assert after["memory"] - before["memory"] < 16 << 20


@pytest.mark.parametrize("planner", ["free", "lockstep"])
def test_plans_for_very_many_ranks_are_valid(planner: str) -> None:
    print(f"\nseed {SEED}")
    draw = random.Random(SEED)
    lengths = [min(131072, max(64, int(draw.lognormvariate(7.8, 1.3)))) for _ in range(2 * 16384)]
    batch = core.Batch([core.Sequence(id=i, tokens=length) for i, length in enumerate(lengths)])
    cluster = core.read_cluster(str(CASES / "cluster_h100_8x8.json"))
    cluster.nodes = 2048
    cost = core.read_cost_model(str(CASES / "cost_qwen3-vl-8b_16384.json"))
    plan = core.try_plan(batch, cluster, cost, planner=planner, effort="fast")
    assert isinstance(plan, core.Plan), plan
    assert core.check_plan(plan, batch, cluster, cost) == []
    assert sum(len(task.sequences) for task in plan.tasks) == len(lengths)
