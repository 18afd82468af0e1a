"""Costs measured on this device, and plans for 64 ranks held against it: the tasks of each plan are run here, one after
the other, each as the busiest member of its group, with the shards of the others as buffers. Their seconds, put back in
the plan, give the step that 64 such devices would take, but for transfers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import torch
from place import ROOT, Place

from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    InputError,
    Plan,
    Sequence,
    read_batch,
    read_cluster,
    read_cost_model,
    try_plan,
)
from dhp._core import (
    replay as put_back,
)
from dhp.cost import calibrate as calibration
from dhp.cost.calibrate_fit import measure
from dhp.cost.calibrate_options import parser
from dhp.cost.calibrate_tasks import Design, Shape
from dhp.cost.fit import NoFit, error_of, estimate_s, terms_of
from dhp.cost.local import preset_at_hand
from dhp.models import attach
from dhp.models.model_folder import load_weights
from dhp.models.weights import DTYPES

CLUSTER = "h100-8x8"
BATCH = ROOT / "bench" / "cases" / "batch_openvid_512.json"
PLANNERS = ("static", "megatron-dynamic", "paper", "free")
WIDEST = 8  # ranks that the longest sequence needs: what makes one degree for all a bad choice
MERGE = 2
LABEL_SHARE = 0.25
GOAL = 0.04  # of estimates


def calibrate(place: Place) -> list[str]:
    """`dhp calibrate` of this process: degrees by a transport without peers."""
    cost = place.folder / "cost.json"
    words = ["--model", str(place.model()), "--precision", place.sizes.precision, "--device", preset(place)]
    words += ["--max-degree", str(place.sizes.most_degree), *place.sizes.calibration]
    options = parser().parse_args(words)
    run = place.join()
    found = calibration.calibrate(options, run, lambda done, of: None)
    run.close()
    if isinstance(found, NoFit) or found is None:
        raise AssertionError(f"no fit: {found and found.reason}")
    cost.write_text(json.dumps(found.file))
    off, fitted = found.file["fit"]["left_out"], found.file["fit"]
    degrees = ", ".join(f"{d}: {e['mean']:.1%}" for d, e in fitted["left_out_by_degree"].items())
    return [
        f"{off['samples']} tasks left out: off by {off['mean']:.1%} (goal {GOAL:.0%}), 95 % by {off['p95']:.1%}",
        f"by degree: {degrees}",
    ]


def preset(place: Place) -> str:
    try:
        return preset_at_hand(place.device, "--device") if place.device != "late" else "h100"
    except InputError:
        return "h100"


def shape_of(sequence: Sequence) -> Shape:
    """Frames alike, as near to square as pairs of patches allow, and as many as leave text around each."""
    patches = sequence.frame_patches or min(sequence.patches, 1024)
    side = patches // MERGE**2
    rows = next((n for n in range(math.isqrt(side), 0, -1) if side % n == 0), 0) if side else 0
    if not rows:
        return Shape(sequence.tokens, (), max(1, round(LABEL_SHARE * sequence.tokens)))
    units = min(sequence.patches // (side * MERGE**2), (sequence.tokens - 1) // (side + 1))
    media = ((units, rows * MERGE, side // rows * MERGE),) if units else ()
    return Shape(sequence.tokens, media, max(1, round(LABEL_SHARE * sequence.tokens)))


def batch_of(place: Place) -> tuple[Batch, dict[int, Shape]]:
    """The batch of bench/cases, of such shapes exactly."""
    sequences, shapes = [], {}
    for i, given in enumerate(read_batch(str(BATCH)).sequences[: place.sizes.samples]):
        tokens = max(16, given.tokens // place.sizes.divisor)
        frame = max(16, (given.frame_patches or 1024) // place.sizes.divisor)
        shape = shape_of(Sequence(i, tokens, given.patches // place.sizes.divisor, frame))
        shapes[i] = shape
        sequences.append(Sequence(i, tokens, shape.patches, shape.frame_patches))
    return Batch(sequences), shapes


def crowded(cost: CostModel, batch: Batch) -> tuple[Cluster, CostModel]:
    """64 ranks whose memory counts tokens: the longest sequence needs WIDEST of them."""
    cluster = read_cluster(CLUSTER)
    cost.token_bytes, cost.patch_bytes, cost.state_bytes = 1.0, 0.0, 0.0
    cluster.memory_bytes = float(math.ceil(max(s.tokens for s in batch.sequences) / WIDEST) + 2 * WIDEST)
    return cluster, cost


def replay(place: Place) -> list[str]:
    file = place.folder / "cost.json"
    if not file.exists():
        raise AssertionError("there is no cost: calibrate failed")
    batch, shapes = batch_of(place)
    cluster, cost = crowded(read_cost_model(str(file)), batch)
    plans = {planner: try_plan(batch, cluster, cost, planner=planner) for planner in PLANNERS}
    lines = [f"{name}: no plan: {plan.reason}" for name, plan in plans.items() if not isinstance(plan, Plan)]
    run = place.join()
    model: Any = load_weights(str(place.model()), DTYPES[place.sizes.precision]).train().to(run.device)
    model.tie_weights()
    adapter = attach(model, run)
    rows, measured = [], {}
    for name, plan in plans.items():
        if isinstance(plan, Plan):
            missing = list(dict.fromkeys(d for d in map(design_of(shapes), plan.tasks) if d not in measured))
            measured |= measure_all(place, adapter, missing, run)
            rows.append(compare(name, plan, [measured[d] for d in map(design_of(shapes), plan.tasks)], batch, cost))
    run.close()
    if not rows:
        raise AssertionError("; ".join(lines))
    best = min(row["measured_s"] for row in rows)
    (place.folder.parent / "replay.json").write_text(json.dumps(rows, indent=1) + "\n")
    return lines + [
        f"{row['planner']:<17} {row['measured_s']:8.3f} s on the device, {row['measured_s'] / best:5.2f} of the best; "
        f"estimated {row['estimated_s']:8.3f} s; tasks off by {row['task_error']:.1%}, degrees up to {row['widest']}"
        for row in rows
    ]


def design_of(shapes: dict[int, Shape]) -> Any:
    return lambda task: Design(tuple(shapes[i] for i in task.sequences), len(task.ranks))


def measure_all(place: Place, adapter: Any, designs: list[Design], run: Any) -> dict[Design, float]:
    """Seconds of each; inputs of a few at a time are in memory."""
    seconds: dict[Design, float] = {}

    def forward(loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        with torch.autocast(run.device.type, torch.bfloat16, enabled=place.sizes.precision == "bf16"):
            return loss()

    for start in range(0, len(designs), place.sizes.calls):
        some = designs[start : start + place.sizes.calls]
        found = measure(adapter, some, place.sizes.replay_repeats, run, forward=forward)
        adapter.run = run
        seconds |= {one.design: one.total_s for one in found.tasks}
    return seconds


def compare(name: str, plan: Plan, seconds: list[float], batch: Batch, cost: CostModel) -> dict[str, Any]:
    """What the plan's step takes with these seconds of its tasks, and with the estimates of them; both but for
    transfers, which nothing here makes."""
    by_id = {sequence.id: sequence for sequence in batch.sequences}
    terms = terms_of(cost)
    estimates = [estimate_s(terms, [by_id[i] for i in task.sequences], len(task.ranks)) for task in plan.tasks]
    return {
        "planner": name,
        "measured_s": put_back(plan, seconds).makespan_s,
        "estimated_s": put_back(plan, estimates).makespan_s,
        "task_error": error_of(estimates, seconds).mean,
        "widest": max(len(task.ranks) for task in plan.tasks),
        "tasks": [
            {"degree": len(task.ranks), "sequences": len(task.sequences), "estimated_s": estimate, "measured_s": took}
            for task, estimate, took in zip(plan.tasks, estimates, seconds, strict=True)
        ],
    }
