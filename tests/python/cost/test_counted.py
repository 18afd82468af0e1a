"""Costs of families that the core does not count, against one that it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from borrowed_checkpoints import write_checkpoint
from dhp._core import Freeze, InputError, Recompute, analytic_cost, read_device
from dhp.base.unregistered import ALLOWED
from dhp.cost.counted import LIKE, cost_by_parts, uncounted_cost
from dhp.cost.local import STATE_BYTES, local_cost
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.models.families import Family
from dhp.models.model_folder import empty_model, plain_config
from family_models import MODELS, OMNI, TEXT, internvl

OPTIONS = {"device": "h100", "ranks": 4, "state": STATE_BYTES["bf16"]}


@pytest.mark.parametrize("vision_trains", [True, False])
def test_parts_agree_with_the_core_where_both_can(tmp_path: Path, vision_trains: bool) -> None:
    frozen = Freeze() if vision_trains else Freeze(vit=True, aligner=True)
    folder = make_tiny_checkpoint(tmp_path, family="internvl", layers=2, hidden=64, vision_layers=3, vision_hidden=32)
    text = (folder / "config.json").read_text()
    core = analytic_cost(text, "config", recompute=Recompute.full, freeze=frozen, **OPTIONS)
    parts = cost_by_parts(folder, recompute=Recompute.full, freeze=frozen, lora_rank=0, counts_tokens=False, **OPTIONS)
    assert parts.state_bytes == pytest.approx(core.state_bytes, rel=1e-9)
    assert parts.gradient_bytes == pytest.approx(core.gradient_bytes, rel=1e-9)
    assert parts.forward.token_s == core.forward.token_s
    assert parts.backward.pair_s == core.backward.pair_s


def test_flop_of_a_patch_are_about_two_a_parameter() -> None:
    """By torch's counter, on a tower whose attention is small beside its matrices."""
    model = internvl(TEXT | {"model_type": "qwen2"}, hidden=128, intermediate=512, layers=4)
    pixels = torch.randn(2, 3, 16, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.get_image_features(pixels, return_dict=True)
    parameters = sum(p.numel() for p in Family(model).encoder_parameters)
    assert counter.get_total_flops() / 32 == pytest.approx(2 * parameters, rel=0.15)


@pytest.mark.parametrize("family", ["llava", "llava_onevision", "idefics3", "mistral3"])
def test_families_that_the_core_does_not_count_have_a_cost(family: str, tmp_path: Path) -> None:
    folder, _ = write_checkpoint(tmp_path, family)
    cost = local_cost(folder, 4, device="h100")
    assert cost.patch_s > 0
    assert cost.layers == 3
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["model_type"] = "gpt_neox"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        local_cost(folder, 4, device="h100")


@pytest.mark.parametrize("family", ["glm4v", OMNI])
def test_a_patch_is_the_work_of_one_encoder(family: str, tmp_path: Path) -> None:
    """Of Qwen2.5-Omni that is of the one that sees or of the one that hears, which are alike."""
    if family not in MODELS:
        pytest.skip("transformers before 5.23")
    folder = make_tiny_checkpoint(tmp_path, family=family, layers=2, hidden=64, vision_layers=3, vision_hidden=32)
    cost = local_cost(folder, 4, device="h100", recompute=Recompute.none)
    parameters = {"visual": 0, "audio_tower": 0, "language_model": 0}
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        part = next((part for part in parameters if f"{part}." in name), "language_model")
        parameters[part] += tensor.numel()
    assert parameters["visual"] > 0
    own = max(parameters["visual"], parameters["audio_tower"])
    assert cost.patch_s == pytest.approx(3 * 2 * own / read_device("h100").linear_flop_per_s)
    assert cost.state_bytes > 6 * sum(parameters.values())


def test_configs_that_do_not_say_their_sizes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "1")
    tf.MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4).save_pretrained(tmp_path)
    problem = f"{tmp_path}/config.json: num_attention_heads of mamba: found nothing, expected a number from 1 on"
    for count in (
        lambda: local_cost(tmp_path, 4, device="h100", capacity_tokens=1000),
        lambda: uncounted_cost(tmp_path, "h100", Recompute.none),
    ):
        with pytest.raises(InputError, match=problem):
            count()


def test_memory_of_an_encoder_that_does_not_say_its_depth_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens can be counted all the same."""
    folder, _ = write_checkpoint(tmp_path, "llava")
    model = empty_model(folder, plain_config(folder))
    model.config.vision_config = tf.PreTrainedConfig(depth=[2, 2], hidden_size=32)
    monkeypatch.setattr("dhp.cost.counted.empty_model", lambda *_: model)
    with pytest.raises(InputError, match=r"num_hidden_layers or depth of the model: found \[2, 2\], .* count tokens "):
        local_cost(folder, 4, device="h100")
    assert local_cost(folder, 4, device="h100", capacity_tokens=1000).patch_s > 0.0


BIG = TEXT | {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "head_dim": 64}


@pytest.mark.parametrize(("name", "tolerance"), [("llama", 1e-9), ("qwen3", 0.03)])
def test_flop_without_numbers_give_what_the_core_counts(
    name: str, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Qwen3 the core also counts the norms of q and k, which have no FLOP to speak of."""
    tf.CONFIG_MAPPING[name](**BIG).save_pretrained(tmp_path)
    core = local_cost(tmp_path, 4, device="h100", capacity_tokens=1000)
    monkeypatch.delitem(LIKE, name)
    own = cost_by_parts(tmp_path, recompute=Recompute.full, freeze=Freeze(), lora_rank=0, counts_tokens=True, **OPTIONS)
    for found, right in ((own.forward, core.forward), (own.backward, core.backward)):
        assert found.token_s == pytest.approx(right.token_s, rel=tolerance)
        assert found.pair_s == pytest.approx(right.pair_s, rel=1e-9)


def test_a_model_that_nobody_knows_is_counted_by_flop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "1")
    tf.Olmo2Config(**BIG).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="memory of olmo2 with olmo2 cannot be counted; count tokens"):
        local_cost(tmp_path, 4, device="h100")
    cost = local_cost(tmp_path, 4, device="h100", capacity_tokens=1000)
    tf.LlamaConfig(**BIG).save_pretrained(tmp_path)  # the same products
    assert cost.forward.token_s == local_cost(tmp_path, 4, device="h100", capacity_tokens=1000).forward.token_s
