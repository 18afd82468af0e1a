"""Layers through torch.compile's default backend: every family, every way to recompute, LoRA, and a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from budget import nightly

import ranks  # noqa: F401  (loads the operators)
from compiled_layers import model_of
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.models import family_class
from dhp.models.trial import difference, made_samples, on_shards
from family_models import MODELS
from mixed_media import write_mixed_data
from programs import run_program
from tiny_run import copied_run

TASKS = [([0], [0, 2], "ring"), ([0], [3, 1], "ring"), ([0], [4, 5], "ring")]
CASES = [(name, "none", False) for name in MODELS]
CASES += [("qwen3_vl", recompute, lora) for recompute in ("full", "keep_attention") for lora in (False, True)]


@nightly
@pytest.mark.parametrize(("name", "recompute", "lora"), CASES)
def test_inductor_gives_the_gradients_of_layers_that_are_not_compiled(name: str, recompute: str, lora: bool) -> None:
    torch._dynamo.reset()
    model = model_of(name, recompute, lora)
    samples = made_samples(family_class(model)(model))
    expected = on_shards(model, samples, TASKS)
    found = difference(expected, on_shards(model, samples, TASKS, compile_by="inductor"), floor=1e-6)
    print(name, recompute, lora, found)
    assert found.within(1e-6)


@nightly
def test_a_compiled_run_has_the_losses_of_one_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_mixed_data(tmp_path / "data")
    make_tiny_checkpoint(tmp_path / "data" / "model", layers=3, hidden=64, vision_layers=1, deepstack=(0,))
    losses = []
    for compiled in ("false", "true"):
        folder = tmp_path / compiled
        copied_run(tmp_path / "data", folder, ranks=2, steps=3, capacity_tokens=110, recompute="keep_attention")
        metrics = folder / "metrics.jsonl"
        done = run_program("dhp.train", folder / "run.toml", "--metrics", metrics, "--set", f"compile={compiled}")
        assert done.returncode == 0, done.stderr
        losses.append([json.loads(line)["loss"] for line in metrics.read_text().splitlines()])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
