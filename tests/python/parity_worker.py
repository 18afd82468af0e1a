"""Trains the same ten steps in one way and stores losses and gradients; run by test_parity.py in a process of its own.

    parity_worker.py FOLDER NAME...     NAME is "reference-PRECISION" or "RANKS-SCHEDULE-PRECISION", and may end with
                                        "-VARIANT", a key of VARIANTS

The reference is Hugging Face alone: one sample at a time through model(..., labels=...), no DHP, no packing, no groups.
"""

import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForImageTextToText

from dhp import optimizer, runtime, train
from dhp.config import TrainConfig
from dhp.dataset import Dataset
from dhp.launch import run_local
from dhp.trace import Tracer

STEPS = 10
VARIANTS: dict[str, dict] = {
    "frozen_vit": {"freeze_vit": True},
    "frozen_vision": {"freeze_vit": True, "freeze_aligner": True},
    "frozen_llm": {"freeze_llm": True},
    "recompute": {"gradient_checkpointing": True},
}
transformers.logging.set_verbosity_error()


def settings_for(folder: Path, name: str) -> TrainConfig:
    parts = name.replace("reference", "1-paper").split("-")
    ranks, schedule, precision = parts[:3]
    return TrainConfig(
        model=str(folder / "model"),
        data=str(folder / "train.jsonl"),
        output_dir=str(folder / f"run-{name}"),
        ranks=int(ranks),
        schedule=schedule,
        precision=precision,
        steps=STEPS,
        global_batch_size=6,
        # Just enough for the longest of 214 tokens, so that groups of all sizes arise.
        capacity_tokens={"1": 10_000, "2": 110, "3": 75, "4": 56}[ranks] if schedule == "paper" else 10_000,
        learning_rate=1e-3,
        warmup_steps=2,
        seed=3,
        **(VARIANTS[parts[3]] if len(parts) > 3 else {}),
    )


class Recorder:
    """Stands where `optimizer.update` does: keeps the gradients of every step, then updates as always."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []
        self._update = optimizer.update

    def update(self, model, adamw, settings, step):
        named = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        self.gradients.append(named)
        return self._update(model, adamw, settings, step)


class Losses:
    def __init__(self) -> None:
        self.records = []

    def step(self, record) -> None:
        self.records.append(record)

    def say(self, text: str) -> None:
        pass


def run_dhp(folder: Path, name: str) -> int:
    torch.set_num_threads(1)
    settings, recorder, losses = settings_for(folder, name), Recorder(), Losses()
    optimizer.update = recorder.update
    run = runtime.init(timeout_s=120)
    train.train(settings, run, losses, Tracer(None, run))
    if run.rank == 0:
        result = {
            "losses": [r.loss for r in losses.records],
            "gradients": recorder.gradients,
            "degrees": [r.degrees for r in losses.records],
            "groups": len(torch.distributed.distributed_c10d._world.pg_map),
        }
        torch.save(result, folder / f"{name}.pt")
    run.close()
    return 0


def run_reference(folder: Path, name: str) -> int:
    torch.set_num_threads(1)
    settings, recorder = settings_for(folder, name), Recorder()
    run = runtime.init()
    model = AutoModelForImageTextToText.from_pretrained(settings.model, dtype=train.DTYPES[settings.precision]).train()
    train.freeze(model, settings)
    data = Dataset(settings.data, settings.model)
    adamw = optimizer.make_optimizer(model, settings, run)
    losses = []
    for step in range(STEPS):
        batch = data.batch(step, settings.global_batch_size, settings.seed)
        valid_tokens, total = data.label_tokens(batch), 0.0
        for sequence in batch.sequences:
            loss = model(**hugging_face_input(data, sequence.id), num_items_in_batch=valid_tokens).loss
            if loss.requires_grad:  # text alone teaches a frozen language model nothing
                loss.backward()
            total += loss.item()
        losses.append(total)
        recorder.update(model, adamw, settings, step)
    torch.save({"losses": losses, "gradients": recorder.gradients}, folder / f"{name}.pt")
    run.close()
    return 0


def hugging_face_input(data: Dataset, sample_id: int) -> dict[str, torch.Tensor]:
    sample = data.sample(sample_id)
    encoded = data.encode(sample)
    given = {
        "input_ids": torch.as_tensor(encoded.input_ids)[None],
        "labels": torch.as_tensor(encoded.labels)[None],
        "mm_token_type_ids": torch.as_tensor(encoded.media_type)[None].int(),
    }
    for kind, pixels, grid in (
        ("image", "pixel_values", "image_grid_thw"),
        ("video", "pixel_values_videos", "video_grid_thw"),
    ):
        media = [m for m in sample.media if m.kind == kind]
        if media:
            given[pixels] = torch.cat([data.read_pixels(m, 0, m.grid[0]) for m in media])
            given[grid] = torch.tensor([m.grid for m in media])
    return given


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        settings = settings_for(folder, name)
        work = run_reference if name.startswith("reference") else run_dhp
        code = run_local(settings.ranks, lambda work=work, name=name: work(folder, name))
        if code:
            sys.exit(f"{name}: exit code {code}")
