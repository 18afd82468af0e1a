"""Steps of `dhp train` beside Hugging Face loops: CPU ms a sample.

    python -m dhp.demo build/demo && python bench/peers_training.py [--ranks 1 2] [--steps 6] [--rounds 2]

All have the same batches of the demo's data, model, reader (which reads one batch ahead in a thread), AdamW and
clipping; one torch thread a rank. Peers:

    a sample        model(**inputs).loss.backward() for one sample after the other, gradients accumulated
    padded by 4     for batches of four, neighbours when sorted by length, padded to the longest, with a mask
    padded, as is   the same in the order of the batch (--sides)

With several ranks the peers run under DistributedDataParallel, every rank with each N-th sample, gradients summed with
the last backward of a step alone (no_sync). It looks for unused parameters (find_unused_parameters): without that, it
waits for ever where a rank's last sample has no picture. DHP may split samples, as its planner likes; its ranks hold
enough to leave all whole. A side trains --steps steps from the same weights in processes of its own; the sides take
turns, --rounds times. CPU seconds are those of all processes and threads, from the end of the second step to that of
the last but one, so that as many batches are read as are trained. First losses are compared. Median (least to most) of
the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns where no parameter was unused

import torch
from hugging_face import Inputs, inputs_of
from measure import in_turns, machine, over, span
from torch.nn.parallel import DistributedDataParallel

from dhp import train
from dhp.data.dataset import Dataset
from dhp.data.text import IGNORED
from dhp.models import import_family
from dhp.models.weights import load_model
from dhp.run import entry
from dhp.run.launch import run_local
from dhp.settings.config import TrainConfig
from dhp.step import optimizer
from dhp.watch.record import Recorder
from dhp.watch.trace import Tracer

WARM_UP = 2  # steps
OURS = "dhp train"
PEERS = {"a sample": (1, False), "padded by 4": (4, True), "padded, as is": (4, False)}  # samples a forward, sorted
ALIKE = 1e-4  # relative, first losses


class Ends:
    """CPU seconds of this process at the end of every step, and losses; stands where a Reporter does."""

    def __init__(self) -> None:
        self.cpu_s: list[float] = []
        self.losses: list[float] = []

    def add(self, loss: float) -> None:
        self.cpu_s.append(time.process_time())
        self.losses.append(loss)

    def step(self, record: Any) -> None:
        self.add(record.loss)

    def say(self, text: str) -> None:
        pass

    def write(self, folder: Path, rank: int) -> None:
        row = {"cpu_s": self.cpu_s[-2] - self.cpu_s[WARM_UP - 1], "loss": self.losses[0]}
        (folder / f"{rank}.json").write_text(json.dumps(row))


def run_ours(settings: TrainConfig, folder: Path) -> int:
    """One rank of `dhp train`: its loop, without its lines on the terminal."""
    torch.set_num_threads(1)
    run, ends = entry.init(timeout_s=settings.timeout_s, device="cpu"), Ends()
    train.train(settings, run, ends, Tracer(None, run), Recorder("", run, settings), None)  # type: ignore[arg-type]
    ends.write(folder, run.rank)
    run.close()
    return 0


def run_peer(settings: TrainConfig, folder: Path, size: int, by_length: bool) -> int:
    """One rank of a Hugging Face loop."""
    torch.set_num_threads(1)
    run, ends = entry.init(timeout_s=settings.timeout_s, device="cpu"), Ends()
    model: Any = load_model(settings, settings.model)
    wrapped = model
    if run.world_size > 1:
        wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    adamw = torch.optim.AdamW(optimizer_groups(model, settings), lr=settings.learning_rate, eps=settings.adam_epsilon)
    data = Dataset(settings.data, settings.model)
    pad = model.config.text_config.pad_token_id or 0
    for step, (ids, samples, valid) in enumerate(read_ahead(data, settings, model, run.rank, run.world_size)):
        total = torch.zeros(())
        order = sorted(ids, key=lambda i: data.sample(i).tokens) if by_length else ids
        parts = [order[first : first + size] for first in range(0, len(order), size)]
        for number, part in enumerate(parts):
            inputs = collate([samples[i] for i in part], pad)
            with contextlib.nullcontext() if wrapped is model or number + 1 == len(parts) else wrapped.no_sync():
                loss = wrapped(**inputs, num_items_in_batch=valid).loss * run.world_size  # DDP takes the mean of ranks
                loss.backward()
            total += loss.detach() / run.world_size
        run.sum(total)
        for group in adamw.param_groups:
            group["lr"] = optimizer.learning_rate(settings, step)
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], settings.max_grad_norm)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        ends.add(total.item())
    ends.write(folder, run.rank)
    run.close()
    return 0


def optimizer_groups(model: torch.nn.Module, settings: TrainConfig) -> list[dict[str, Any]]:
    """As dhp.step.optimizer has them, without its sharded state."""
    trained = list(model.parameters())
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def read_ahead(
    data: Dataset, settings: TrainConfig, model: Any, rank: int, ranks: int
) -> Iterator[tuple[list[int], dict[int, Inputs], int]]:
    """Of every step this rank's ids and inputs by id, read in a thread one batch ahead; label tokens of all ranks."""

    def read(step: int) -> tuple[list[int], dict[int, Inputs], int]:
        batch = data.batch(step, settings.global_batch_size, settings.seed)
        ids = [sequence.id for sequence in batch.sequences][rank::ranks]
        return ids, {i: inputs_of(data, i, model) for i in ids}, data.label_tokens(batch)

    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(read, 0)
        for step in range(settings.steps):
            now = following.result()
            if step + 1 < settings.steps:
                following = thread.submit(read, step + 1)
            yield now


def collate(samples: list[Inputs], pad: int) -> Inputs:
    """Texts padded on the right, with a mask where there is a pad; media one after the other."""
    batch: Inputs = {}
    for key, filler in (("input_ids", pad), ("labels", IGNORED), ("mm_token_type_ids", 0)):
        rows = [sample[key][0] for sample in samples]
        batch[key] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler)
    lengths = torch.tensor([sample["input_ids"].shape[1] for sample in samples])
    if lengths.min() < lengths.max():
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    for key in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw"):
        if parts := [sample[key] for sample in samples if key in sample]:
            batch[key] = torch.cat(parts)
    return batch


def cpu_ms_a_sample(side: str, settings: TrainConfig, losses: dict[str, float]) -> float:
    """Trains, in as many processes as there are ranks. Keeps the first loss."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = TrainConfig(**(settings.__dict__ | {"output_dir": str(folder / "out")}))
        work: Callable[[], int] = lambda: run_ours(own, folder) if side == OURS else run_peer(own, folder, *PEERS[side])  # noqa: E731
        if code := run_local(settings.ranks, work):
            sys.exit(code)
        rows = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(settings.ranks)]
    losses[side] = rows[0]["loss"]
    samples = settings.global_batch_size * (settings.steps - 1 - WARM_UP)
    return 1000 * sum(row["cpu_s"] for row in rows) / samples


def make_index(settings: TrainConfig) -> int:
    """In a process of its own: one that has read media has threads, and must not fork."""
    Dataset(settings.data, settings.model)
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("build/demo"), help="folder of python -m dhp.demo")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sides", nargs="+", choices=list(PEERS), default=["a sample", "padded by 4"])
    parser.add_argument("--steps", type=int, default=6, help="of which the first two and the last do not count")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if options.steps < WARM_UP + 2:
        parser.error(f"--steps {options.steps}: the first {WARM_UP} and the last do not count; take {WARM_UP + 2}")
    if not (options.demo / "train.jsonl").exists():
        parser.error(f"--demo {options.demo}: no train.jsonl in it; make it with python -m dhp.demo {options.demo}")
    import_family(options.demo / "model")
    print(f"{machine()}, torch {torch.__version__}; {options.rounds} rounds: median (least to most)\n")
    columns = ["ranks", "side", "CPU ms a sample", "over dhp train", "first loss"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for ranks in options.ranks:
        settings = TrainConfig(
            model=str(options.demo / "model"), data=str(options.demo / "train.jsonl"), ranks=ranks,
            capacity_tokens=2048, global_batch_size=16, steps=options.steps, learning_rate=1e-3, warmup_steps=5,
        )  # fmt: skip
        if code := run_local(1, lambda settings=settings: make_index(settings)):
            sys.exit(code)
        losses: dict[str, float] = {}
        sides = {s: lambda s=s: cpu_ms_a_sample(s, settings, losses) for s in [OURS, *options.sides]}  # noqa: B023
        taken = in_turns(sides, options.rounds, warm_up=0)
        for side, ms in taken.items():
            row = [str(ranks), side, span(ms, ".0f"), span(over(ms, taken[OURS])), f"{losses[side]:.4f}"]
            print(f"| {' | '.join(row)} |", flush=True)
            if abs(losses[side] / losses[OURS] - 1.0) > ALIKE:
                sys.exit(f"peers_training: the first loss of {side} is not that of dhp train")


if __name__ == "__main__":
    main()
