"""LoRA: adapters on shards have the gradients of peft alone, and runs save, continue and merge them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

import ranks  # noqa: F401  (loads the operators)
from dhp._core import InputError
from dhp.models import family_class
from dhp.models.lora import targets, with_adapters
from dhp.models.model_folder import load_weights
from dhp.models.trial import TASKS, alone, difference, made_samples, on_shards
from dhp.settings.config import TrainConfig
from family_models import make
from programs import run_program
from tiny_run import copied_run


def settings_of(**changes: object) -> TrainConfig:
    return TrainConfig("model", "data", lora_rank=4, lora_alpha=8.0, **changes)


@pytest.mark.parametrize("name", ["qwen3_vl", "internvl with qwen2"])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_of_adapters_are_those_of_peft_alone(name: str, recompute: bool) -> None:
    adapted = with_adapters(make(name, torch.float64), settings_of())
    model = adapted.get_base_model()
    with torch.no_grad():  # peft begins with nothing added, so that one of both matrices would have no gradient
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    if recompute:
        model.activation_checkpointing_enable()
    samples = made_samples(family_class(model)(model))
    found = difference(alone(model, samples), on_shards(model, samples, TASKS), floor=1e-6)
    print(found)
    assert found.parameters == 2 * 7 * 3, "of seven linear layers in each of three blocks"
    assert found.within(1e-6)


def test_targets_are_the_language_models_linear_layers_or_what_an_expression_names() -> None:
    model = make("qwen3_vl", torch.float32)
    names = targets(model, "all-linear")
    assert len(names) == 21
    assert all(".language_model.layers." in name for name in names)
    assert len(targets(model, r".*\.visual\..*\.qkv")) == 3
    with pytest.raises(InputError, match=r"lora_target: found 'nothing', which matches no linear layer; the names are"):
        targets(model, "nothing")
    with pytest.raises(InputError, match="which is no regular expression"):
        targets(model, "(")


def test_a_run_saves_adapters_continues_from_them_and_merges(mixed_data: Path, tmp_path: Path) -> None:
    copied_run(
        mixed_data, tmp_path, ranks=2, steps=4, capacity_tokens=110, learning_rate=1e-2, lora_rank=4, lora_merge=True
    )

    def train(out: str, *arguments: str) -> list[float]:
        metrics = tmp_path / f"{out}.jsonl"
        paths = ["--metrics", metrics, "--set", f"output_dir={tmp_path / out}", "save_steps=2"]
        done = run_program("dhp.train", tmp_path / "run.toml", *paths, *arguments)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]

    whole = train("whole")
    assert whole[-1] < whole[0]
    train("parts", "lora_merge=false")
    shutil.rmtree(tmp_path / "parts" / "step-000004")
    saved = tmp_path / "parts" / "step-000002"
    assert (saved / "adapter_model.safetensors").exists()
    assert not (saved / "model.safetensors").exists(), "adapters alone"
    assert train("parts", "--resume")[-2:] == whole[-2:]
    ends = [load_file(tmp_path / out / "step-000004" / "adapter_model.safetensors") for out in ("whole", "parts")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])

    # peft reads what was saved, and what was merged computes the same without peft.
    base = load_weights(tmp_path / "model", torch.float32)
    with_peft = peft.PeftModel.from_pretrained(base, tmp_path / "whole" / "step-000004").eval()
    merged = load_weights(tmp_path / "whole" / "merged", torch.float32).eval()
    ids = torch.arange(1, 40)[None]
    before = load_weights(tmp_path / "model", torch.float32).eval()(input_ids=ids).logits
    torch.testing.assert_close(merged(input_ids=ids).logits, with_peft(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert (merged(input_ids=ids).logits - before).abs().max() > 1e-3

    done = run_program("dhp.train", tmp_path / "run.toml", "--resume", "--set", f"output_dir={tmp_path / 'parts'}",
                       "--set", "lora_rank=8")  # fmt: skip
    assert done.returncode == 2
    assert "lora_rank: was 4, is now 8: that would be another run" in done.stderr
