"""Trains the same ten steps (four in CI) in one way and stores losses and gradients; test_parity.py runs it in a
process of its own.

    parity_worker.py FOLDER NAME...     NAME is "reference-PRECISION" or "RANKS-PLANNER-PRECISION", and may end with
                                        "-VARIANT", a key of VARIANTS, or "-late_COMPUTE_TRANSFERS": on the late device
                                        with those policies. PLANNER is a planner's name or "handmade", and
                                        may end with "@NODES": the ranks are then on so many nodes, not on one

The reference is Hugging Face alone: one sample at a time through model(..., labels=...), no DHP, no packing, no groups.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from bench_script import load_bench
from dhp import train
from dhp._core import Batch, Cluster, CostModel, Plan, annotate, check_plan, parse_plan
from dhp.data.dataset import Dataset
from dhp.models import family_of, freeze, import_family, weights
from dhp.models.model_folder import auto_class
from dhp.run import entry, planning
from dhp.run.launch import run_local
from dhp.settings.config import TrainConfig
from dhp.step import optimizer
from dhp.step.sharded import names_of
from dhp.watch import record
from dhp.watch.trace import Tracer

inputs_of = load_bench("hugging_face").inputs_of

# The share of random cases that CI takes means fewer steps here: each repeats what the first ones do.
STEPS = int(os.environ.get("DHP_PARITY_STEPS", 0)) or (10 if float(os.environ.get("DHP_TEST_SHARE", 1)) >= 1 else 4)
VARIANTS: dict[str, dict] = {
    "frozen_vit": {"freeze_vit": True},
    "frozen_vision": {"freeze_vit": True, "freeze_aligner": True},
    "frozen_llm": {"freeze_llm": True},
    "recompute": {"gradient_checkpointing": True},
    "keep_attention": {"recompute": "keep_attention"},
}
# Free plans of four ranks on two nodes of two, for a step each in turn: groups of any ranks in any order, tasks of all
# exchanges, ranks with one to four tasks, and one (rank 1 of the second plan) with none. Ranks, places in the batch,
# exchange.
HANDMADE: list[list[tuple[list[int], list[int], str]]] = [
    [
        ([3, 0, 2], [0, 4], "hierarchical"),
        ([1], [1], "ring"),
        ([1], [5], "direct"),
        ([2, 1], [2], "direct"),
        ([0, 3, 1, 2], [3], "direct"),
    ],
    [([2, 3, 0], [1, 5, 2], "direct"), ([0, 3], [0], "ring"), ([0], [3], "ring"), ([3, 0, 2], [4], "hierarchical")],
    [
        ([1, 3, 0, 2], [5, 0, 3], "hierarchical"),
        ([0], [1], "hierarchical"),
        ([3, 2, 1], [2], "ring"),
        ([1, 3], [4], "hierarchical"),
    ],
]
transformers.logging.set_verbosity_error()


def handmade_plan(step: int, batch: Batch) -> Plan:
    ids = [sequence.id for sequence in batch.sequences]
    tasks = [
        {"id": i, "ranks": ranks, "sequences": [ids[place] for place in places], "exchange": exchange}
        for i, (ranks, places, exchange) in enumerate(HANDMADE[step % len(HANDMADE)])
    ]
    text = json.dumps({"format": "dhp.plan/1", "schedule": "free", "ranks": 4, "tasks": tasks})
    return parse_plan(text, f"handmade plan of step {step + 1}")


class Plans:
    """Stands where `planning.plan` does: keeps the plans, and makes them by hand where it is told to."""

    def __init__(self, handmade: bool) -> None:
        self._handmade = handmade
        self.made: list[Plan] = []
        self._plan = planning.plan

    def plan(self, batch: Batch, cluster: Cluster, cost: CostModel, *, planner: str, **options: Any) -> Plan:
        if self._handmade:
            made = handmade_plan(len(self.made), batch)
            annotate(made, batch, cluster, cost)
            assert not check_plan(made, batch, cluster, cost), check_plan(made, batch, cluster, cost)
        else:
            made = self._plan(batch, cluster, cost, planner=planner, **options)
        self.made.append(made)
        return made


def capacity_of(planner: str, ranks: int) -> int:
    """Tokens."""
    if planner.startswith(("static", "handmade")):
        return 10_000
    # Just enough for the longest of 214 tokens, so that groups of all sizes arise.
    return {1: 10_000, 2: 110, 3: 75, 4: 56}[ranks]


def write_cluster(file: Path, ranks: int, nodes: int, capacity: int) -> None:
    """With slow links between nodes."""
    cluster = {"format": "dhp.cluster/1", "nodes": nodes, "ranks_per_node": ranks // nodes, "memory_bytes": capacity}
    inside, across = ({"bandwidth_bytes_per_s": b, "latency_s": 5e-5} for b in (2e9, 1e8))
    file.write_text(json.dumps(cluster | {"intra_node": inside, "inter_node": across}))


def settings_for(folder: Path, name: str) -> TrainConfig:
    parts = name.replace("reference", "1-paper").split("-")
    ranks, planned, precision = int(parts[0]), *parts[1:3]
    planner, _, nodes = planned.partition("@")
    capacity = int(os.environ.get("DHP_PARITY_CAPACITY", 0)) or capacity_of(planner, ranks)
    cluster = folder / f"cluster-{name}.json" if nodes else None
    if cluster and not cluster.exists():  # by the process that starts the ranks
        write_cluster(cluster, ranks, int(nodes), capacity)
    return TrainConfig(
        model=str(folder / "model"),
        data=str(folder / "train.jsonl"),
        output_dir=str(folder / f"run-{name}"),
        ranks=ranks,
        planner="free" if planner == "handmade" else planner,
        precision=precision,
        steps=STEPS,
        global_batch_size=6,
        capacity_tokens=capacity,
        cluster=str(cluster or ""),
        learning_rate=1e-3,
        warmup_steps=2,
        seed=3,
        **(VARIANTS.get(parts[3], {}) if len(parts) > 3 else {}),
    )


class Recorder:
    """Stands where `optimizer.make_optimizer` does: keeps the gradients of every step, as they are summed."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []
        self._make = optimizer.make_optimizer

    def make_optimizer(self, model, settings, run):
        adamw = self._make(model, settings, run)
        reduce, names = adamw.reduce, names_of(model, adamw)

        def reduce_and_keep(*read):
            reduced = reduce(*read)
            whole = gathered_gradients(adamw, run)
            self.gradients.append({names[place]: gradient for place, gradient in whole.items()})
            return reduced

        adamw.reduce = reduce_and_keep
        return adamw


def gathered_gradients(adamw, run) -> dict[int, torch.Tensor]:
    """Whole sums of gradients, by place of the parameter, out of the pieces that ranks have."""
    own = [
        (piece.place, piece.within, piece.weight.grad.reshape(-1).cpu().clone())
        for piece in adamw._pieces
        if piece.weight.grad is not None
    ]
    whole: dict[int, torch.Tensor] = {}
    for place, within, values in (piece for pieces in run.gather(own) for piece in pieces):
        p = adamw.parameters[place]
        whole.setdefault(place, torch.full((p.numel(),), torch.nan, dtype=p.dtype))[within] = values
    return {place: values.view(adamw.parameters[place].shape) for place, values in whole.items()}


class Losses:
    def __init__(self) -> None:
        self.records = []

    def step(self, record) -> None:
        self.records.append(record)

    def say(self, text: str) -> None:
        pass


def run_dhp(folder: Path, name: str) -> int:
    torch.set_num_threads(1)
    settings, recorder, losses, plans = settings_for(folder, name), Recorder(), Losses(), Plans("handmade" in name)
    optimizer.make_optimizer, planning.plan = recorder.make_optimizer, plans.plan
    if "-late_" in name:
        sys.path.append(str(Path(__file__).parents[1] / "device"))
        import late

        rank = int(os.environ["RANK"])
        late.arrange(*name.split("_")[1:], seed=rank)
        if "@" in name:  # as two machines would, each of half of the ranks
            os.environ["LOCAL_RANK"] = str(rank % (settings.ranks // 2))
    run = entry.init(timeout_s=600)
    train.train(settings, run, losses, Tracer(None, run), record.Recorder("", run, settings), None)
    contacts = run.all(late.device.contacts()) if "-late_" in name else []
    if run.rank == 0:
        result = {
            "contacts": contacts,
            "losses": [r.loss for r in losses.records],
            "gradients": recorder.gradients,
            "tasks": [[(list(task.ranks), task.exchange.name) for task in plan.tasks] for plan in plans.made],
            "groups": len(torch.distributed.distributed_c10d._world.pg_map),
        }
        torch.save(result, folder / f"{name}.pt")
    run.close()
    return 0


def run_reference(folder: Path, name: str) -> int:
    torch.set_num_threads(1)
    settings, recorder = settings_for(folder, name), Recorder()
    run = entry.init()
    dtype = weights.DTYPES[settings.precision]
    model = auto_class(family_of(settings.model)).from_pretrained(settings.model, dtype=dtype).train()
    freeze(model, settings.frozen)
    data = Dataset(settings.data, settings.model)
    adamw = recorder.make_optimizer(model, settings, run)
    losses = []
    for step in range(STEPS):
        batch = data.batch(step, settings.global_batch_size, settings.seed)
        valid_tokens, total = data.label_tokens(batch), 0.0
        for sequence in batch.sequences:
            loss = model(**inputs_of(data, sequence.id, model), num_items_in_batch=valid_tokens).loss
            if loss.requires_grad:  # text alone teaches a frozen language model nothing
                loss.backward()
            total += loss.item()
        losses.append(total)
        _, norm = adamw.reduce()
        optimizer.update(adamw, settings, step, norm)
    torch.save({"losses": losses, "gradients": recorder.gradients}, folder / f"{name}.pt")
    run.close()
    return 0


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    import_family(folder / "model")  # once, not in every rank of every run
    for name in sys.argv[2:]:
        settings = settings_for(folder, name)
        work = run_reference if name.startswith("reference") else run_dhp
        code = run_local(settings.ranks, lambda work=work, name=name: work(folder, name))
        if code:
            sys.exit(f"{name}: exit code {code}")
