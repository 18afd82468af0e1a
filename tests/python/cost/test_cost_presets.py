"""Counts of `dhp cost` against the model classes of transformers: parameters of every preset and of random configs on
the meta device, FLOP of the forward pass by torch's own counter."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from command_line import dhp
from dhp import _core as core
from dhp.models.lora import with_adapters
from dhp.settings.config import TrainConfig

FRAME_PATCHES = 64  # of frames of towers that are run
PRESETS = {preset.name: json.loads(preset.text) for preset in core.model_presets()}
CLASSES = {
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "internvl": "InternVLForConditionalGeneration",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
TEXT_ALONE = ("llama", "qwen2", "qwen3", "qwen3_moe")
WITH_VISION = [family for family in CLASSES if family not in TEXT_ALONE]


def model_of(config: dict[str, Any], device: str = "meta", **keywords: Any) -> Any:
    made = transformers.AutoConfig.for_model(**config)
    for key, value in keywords.items():
        setattr(made, key, value)
    with torch.device(device):
        return getattr(transformers, CLASSES[config["model_type"]])(made)


def report_of(config: dict[str, Any], **options: str) -> dict[str, Any]:
    """What `dhp cost --output-format json` says of the model: its options by their names."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.json")
        file.write_text(json.dumps(config))
        words = [word for key, value in options.items() if value for word in (f"--{key}", value)]
        said = dhp("cost", "--model", file, "--device", "h100", "--output-format", "json", *words)
    assert said.code == 0, said.err
    return dict(said.json())


def part_of(name: str) -> str:
    if "merger" in name or "multi_modal_projector" in name:
        return "projector"
    if ".visual." in name or ".vision_tower." in name:
        return "vision"
    if "embed_tokens" in name:
        return "embedding"
    return "head" if name.startswith("lm_head") else "layers"


def assert_parameters_equal(config: dict[str, Any]) -> None:
    expected: Counter[str] = Counter()
    for name, parameter in model_of(config).named_parameters():  # tied ones once
        expected[part_of(name)] += parameter.numel()
    report = report_of(config)
    assert Counter({row["module"]: row["parameters"] for row in report["modules"] if row["parameters"]}) == expected
    assert report["parameters"] == expected.total()


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_presets(name: str) -> None:
    assert PRESETS[name]["architectures"] == [CLASSES[PRESETS[name]["model_type"]]]
    assert_parameters_equal(PRESETS[name])


def random_config(family: str, rng: random.Random) -> dict[str, Any]:
    """Small and odd: every switch that changes a count, on and off."""
    kv_heads, share, head_dim = rng.choice([1, 2]), rng.choice([1, 2, 3]), rng.choice([4, 8])
    heads = kv_heads * share
    hidden = heads * head_dim
    text: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": rng.randrange(8, 40, 2),
        "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": rng.randint(20, 60),
        "pad_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    if family in TEXT_ALONE:
        if family != "qwen2":
            text |= {"head_dim": rng.choice([4, 8]), "attention_bias": rng.random() < 0.5}
        if family == "qwen3_moe":
            text |= random_experts(rng)
        return text | {"model_type": family, "tie_word_embeddings": rng.random() < 0.5}
    config: dict[str, Any] = {"model_type": family, "text_config": text, "tie_word_embeddings": rng.random() < 0.5}
    width = rng.choice([8, 16])
    if family == "internvl":
        text["model_type"] = rng.choice(["qwen2", "qwen3"])
        if text["model_type"] == "qwen3":
            text |= {"attention_bias": rng.random() < 0.5, "head_dim": rng.choice([4, 8])}
        config["vision_config"] = {
            "hidden_size": width,
            "intermediate_size": rng.randrange(8, 40),
            "num_hidden_layers": rng.randint(1, 3),
            "num_attention_heads": 2,
            "attention_bias": rng.random() < 0.5,
            "use_qk_norm": rng.random() < 0.5,
            "norm_type": rng.choice(["layer_norm", "rms_norm"]),
            "image_size": [8, 8],
            "patch_size": [2, 2],
            "use_mask_token": rng.random() < 0.5,
            "use_mean_pooling": rng.random() < 0.5,
        }
        config["downsample_ratio"] = rng.choice([0.5, 0.25])
        return config
    sections = [head_dim // 2 - 2 * (head_dim // 8), head_dim // 8, head_dim // 8]
    text["rope_parameters"] |= {"mrope_section": sections}
    vision = config["vision_config"] = {
        "depth": rng.randint(1, 4),
        "hidden_size": width,
        "intermediate_size": rng.randrange(8, 40),
        "num_heads": 2,
        "out_hidden_size": hidden,
        "patch_size": rng.choice([2, 4]),
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "in_channels": 3,
    }
    if family == "qwen2_vl":
        del vision["out_hidden_size"], vision["intermediate_size"]
        vision |= {"embed_dim": width, "hidden_size": hidden, "mlp_ratio": rng.choice([2, 4])}
        return config
    if family == "qwen2_5_vl":
        vision |= {"window_size": 4 * vision["patch_size"]}
        vision |= {"fullatt_block_indexes": sorted(rng.sample(range(vision["depth"]), rng.randint(0, vision["depth"])))}
        return config
    vision |= {"num_position_embeddings": rng.choice([4, 9])}
    vision |= {"deepstack_visual_indexes": sorted(rng.sample(range(vision["depth"]), rng.randint(0, vision["depth"])))}
    text |= {"attention_bias": rng.random() < 0.5}
    if family == "qwen3_vl" or rng.random() < 0.5:
        text["head_dim"] = rng.choice([4, 8])
    if family == "qwen3_vl_moe":
        text |= random_experts(rng)
    return config


def random_experts(rng: random.Random) -> dict[str, Any]:
    experts = rng.randint(2, 5)
    return {
        "num_experts": experts,
        "num_experts_per_tok": rng.randint(1, experts),
        "moe_intermediate_size": 6,
        "decoder_sparse_step": rng.choice([1, 2]),
        "mlp_only_layers": rng.choice([[], [0], [1]]),
    }


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("family", CLASSES)
def test_parameters_of_random_configs(family: str, seed: int) -> None:
    config = random_config(family, random.Random(seed))
    print(json.dumps(config))
    assert_parameters_equal(config)


def forward_flop(report: dict[str, Any], name: str, unit: str) -> float:
    """Of one unit."""
    return next(float(row["forward"]["flop"]) for row in rows_of(report, unit) if row["module"] == name)


def rows_of(report: dict[str, Any], *units: str) -> list[dict[str, Any]]:
    return [row for row in report["modules"] if row["per"] in units]


def both_flop(row: dict[str, Any]) -> float:
    return float(row["forward"]["flop"] + row["backward"]["flop"])


def counted_flop(run: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", [name for name in PRESETS if "-a" not in name])
def test_flop_of_language_models(name: str) -> None:
    """Layers and attention over whole sequences: the counter takes no account of causal masks."""
    config = json.loads(json.dumps(PRESETS[name]))
    config["text_config"]["rope_parameters"]["rope_type"] = (
        "default"  # "dynamic" looks at positions, which are not there
    )
    model = model_of(config, _attn_implementation="eager")
    report = report_of(config)
    tokens = 48
    embeds = torch.empty(1, tokens, config["text_config"]["hidden_size"], device="meta")
    mask = torch.empty(1, 1, tokens, tokens, device="meta")
    positions = torch.empty(1, tokens, dtype=torch.long, device="meta")
    if config["model_type"] != "internvl":
        positions = positions.expand(3, 1, tokens)
    flop = counted_flop(
        lambda: model.model.language_model(
            inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False
        )
    )
    pairs = forward_flop(report, "attention", "pair") * tokens**2
    assert flop == forward_flop(report, "layers", "token") * tokens + pairs
    head = counted_flop(lambda: model.lm_head(embeds))
    assert head == forward_flop(report, "head", "token") * tokens


def tower_of(family: str, seed: int, **options: str) -> tuple[Any, dict[str, Any], int, Callable[[], torch.Tensor]]:
    """A small model, its report, a number of patches, and what encodes them: the sum of all that comes out."""
    config = random_config(family, random.Random(100 + seed))
    print(json.dumps(config))
    model = model_of(config, device="cpu", _attn_implementation="eager")  # the counter knows no fused kernel of CPUs
    if family == "internvl":
        pixels = torch.zeros(2, 3, 8, 8)
        features = model.model.get_image_features
        return model, report_of(config, **options), 2 * 16, lambda: features(pixels).pooler_output.sum()
    frames, height, width = 3, 8, FRAME_PATCHES // 8
    patches = frames * height * width
    pixels = torch.zeros(patches, 3 * 2 * config["vision_config"]["patch_size"] ** 2)
    grid = torch.tensor([[frames, height, width]])

    def encode() -> torch.Tensor:
        made = model.model.visual(pixels, grid)
        rows = [made.pooler_output, *(getattr(made, "deepstack_features", None) or [])]
        return torch.stack([one.sum() for one in rows]).sum()

    return model, report_of(config, **options), patches, encode


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", WITH_VISION)
def test_flop_of_vision_towers(family: str, seed: int) -> None:
    _, report, patches, encode = tower_of(family, seed)
    expected = forward_flop(report, "vision", "patch") + forward_flop(report, "projector", "patch")
    # Attention over whole frames; of tiles and windows it is a patch's.
    expected += sum(row["forward"]["flop"] for row in rows_of(report, "patch pair")) * FRAME_PATCHES
    assert counted_flop(encode) == pytest.approx(expected * patches, rel=1e-9)


@pytest.mark.parametrize("frozen", ["", "vit", "aligner"])
@pytest.mark.parametrize("family", WITH_VISION)
def test_backward_flop_of_vision_towers(family: str, frozen: str) -> None:
    """All but attention, whose backward pass has one product less in eager mode than in fused kernels."""
    model, report, patches, encode = tower_of(family, 7, freeze=frozen, recompute="none")
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parameter.requires_grad_(frozen != ("vit" if part == "vision" else "aligner"))
    with FlopCounterMode(display=False) as counter:
        encode().backward()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(flop for op, flop in counts.items() if "bmm" in str(op))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encode()
    forward = counter.get_flop_counts()["Global"]
    fused = sum(flop for op, flop in forward.items() if "bmm" in str(op)) * (1.0 if frozen == "vit" else 3.5)
    units = {"patch": patches, "patch pair": patches * FRAME_PATCHES}
    expected = sum(both_flop(row) * units[row["per"]] for row in rows_of(report, *units)) - fused
    assert sum(counts.values()) - attention == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("frozen", ["", "llm"])
@pytest.mark.parametrize("family", CLASSES)
def test_backward_flop_of_language_models(family: str, frozen: str) -> None:
    config = random_config(family, random.Random(3))
    print(json.dumps(config))
    model = model_of(config, device="cpu", _attn_implementation="eager", _experts_implementation="eager")
    report = report_of(config, freeze=frozen, recompute="none")
    model.requires_grad_(not frozen)
    tokens = 12
    embeds = torch.randn(1, tokens, config.get("text_config", config)["hidden_size"], requires_grad=True)
    positions = torch.arange(tokens)[None]
    if family not in ("internvl", *TEXT_ALONE):
        positions = positions.expand(3, 1, tokens)
    language_model = getattr(model.model, "language_model", model.model)
    with FlopCounterMode(display=False) as counter:
        states = language_model(
            inputs_embeds=embeds, position_ids=positions, attention_mask=None, use_cache=False
        ).last_hidden_state
        model.lm_head(states).sum().backward()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(flop for op, flop in counts.items() if "bmm" in str(op))
    rows = [row for row in rows_of(report, "token") if row["module"] in ("layers", "head")]
    expected = sum(both_flop(row) for row in rows) * tokens
    assert sum(counts.values()) - attention == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("family", CLASSES)
def test_adapters_are_those_of_peft(family: str) -> None:
    config = random_config(family, random.Random(5))
    if family == "qwen3_moe":  # where it is named like a dense layer of the same model, peft adapts experts too
        config |= {"decoder_sparse_step": 1, "mlp_only_layers": []}
    print(json.dumps(config))
    model = model_of(config, device="cpu")
    settings = TrainConfig("m", "d", lora_rank=4)
    adapted = with_adapters(model, settings)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    flags = {"lora-rank": "4", "recompute": "none"}
    with_lora, without = report_of(config, **flags), report_of(config, recompute="none")
    bytes_of = {key: report["memory"] for key, report in (("with", with_lora), ("without", without))}
    # bf16: 2 bytes a weight and gradient, 12 of the optimizer
    assert bytes_of["with"]["parameters_bytes"] - bytes_of["without"]["parameters_bytes"] == 2 * trained
    assert (bytes_of["with"]["gradients_bytes"], bytes_of["with"]["optimizer_bytes"]) == (2 * trained, 12 * trained)
    layers = [forward_flop(report, "layers", "token") for report in (with_lora, without)]
    assert layers[0] - layers[1] == 2 * trained
    assert not any(both_flop(row) - row["forward"]["flop"] for row in rows_of(with_lora, "patch", "patch pair"))


def test_original_internvl_config_counts_alike() -> None:
    """`internvl_chat`, which transformers has no class for, with the dimensions of `internvl`."""
    config = PRESETS["internvl3-8b"]
    vision = config["vision_config"]
    chat = {
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "llm_config": config["text_config"],
        "vision_config": {
            key: vision[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        }
        | {"qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm", "image_size": 448, "patch_size": 14},
    }
    counted = [[row["parameters"] for row in report_of(one)["modules"]] for one in (chat, config)]
    assert counted[0] == counted[1]


def test_flat_config_of_the_hub_counts_alike() -> None:
    config = PRESETS["qwen2.5-vl-7b"]
    flat = {key: value for key, value in config.items() if key != "text_config"} | config["text_config"]
    flat["model_type"] = "qwen2_5_vl"
    assert report_of(flat)["cost"] == report_of(config)["cost"]
