"""Every family trains on groups of one to four ranks what Hugging Face's model trains alone."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

import dhp.models
import ranks  # noqa: F401  (loads the operators)
from dhp._core import Freeze, InputError
from dhp.models import family_class
from dhp.models.families import Family
from dhp.models.trial import TASKS, alone, difference, made_samples, on_shards
from dhp.task.layout import Unit
from drawn import skip_most_in_ci
from family_models import EXPERTS, MODELS, OMNI, SIGLIP, TEXT, make

# fp64 ends at 1e-7 where Hugging Face computes in fp32 whatever the weights are: eager softmax, routers.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


TEXT_ALONE = ("llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3")
LAYERS = TEXT | {"num_hidden_layers": 2, "head_dim": 8}
WINDOW = LAYERS | {"sliding_window": 16}
DELTA = LAYERS | {
    "head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
}
# Of which the result would be wrong without a word, and what says so.
VARIANTS = {
    "mistral": (lambda: tf.MistralForCausalLM(tf.MistralConfig(**WINDOW)), "sliding_window 16"),
    "gemma2": (lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**WINDOW)), "layer_types: found sliding_attention"),
    "gpt_oss": (
        lambda: tf.GptOssForCausalLM(tf.GptOssConfig(**WINDOW | {"layer_types": ["full_attention"] * 2})),
        "found s_aux",
    ),
    "qwen3_next": (
        lambda: tf.Qwen3NextForCausalLM(tf.Qwen3NextConfig(**DELTA | EXPERTS)),
        "layer_types: found linear_attention",
    ),
    "cohere": (lambda: tf.CohereForCausalLM(tf.CohereConfig(**LAYERS)), "logit_scale: found 0.0625"),
    "dropout": (lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**LAYERS, attention_dropout=0.1)), "attention_dropout"),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_those_of_the_model_alone(name: str, dtype: torch.dtype) -> None:
    model = make(name, dtype)
    samples = made_samples(family_class(model)(model))
    found = difference(alone(model, samples), on_shards(model, samples, TASKS), floor=TOLERANCE[dtype])
    print(f"{name}: loss {found.loss:.1e}, worst gradient {found.gradient:.1e} ({found.parameter})")
    assert found.parameters >= sum(1 for _ in model.parameters()) - 2  # LLaVA leaves its last norm out
    assert found.within(TOLERANCE[dtype]), found


@pytest.mark.parametrize("part", ["vit", "aligner", "llm"])
@pytest.mark.parametrize("name", [name for name in MODELS if name.split(" with ")[0] not in TEXT_ALONE])
def test_frozen_parts_have_no_gradient_and_the_others_theirs(name: str, part: str) -> None:
    skip_most_in_ci(keep=0.1)
    model = make(name, torch.float64)
    family = family_class(model)(model)
    everything = {name for name, _ in model.named_parameters()}
    dhp.models.freeze(model, Freeze(**{part: True}))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and frozen != everything
    encoder = {id(p) for p in family.encoder_parameters}
    assert all((id(p) in encoder) == (part != "llm") for p in model.parameters() if not p.requires_grad)
    samples = made_samples(family)
    expected = alone(model, samples)
    assert not expected[1].keys() & frozen
    tasks = [TASKS[0], ([2, 1], [2, 1], "ring"), ([1, 3], [3, 5], "direct")]
    found = difference(expected, on_shards(model, samples, tasks), floor=1e-6)
    print(name, part, len(frozen), found)
    assert found.within(1e-6), found


def test_a_rope_of_the_length_on_shards_would_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama with dynamic rope", torch.float64)
    samples = made_samples(family_class(model)(model))
    expected = alone(model, samples)
    monkeypatch.setattr("dhp.models.whole_rope.BY_LENGTH", ())
    assert difference(expected, on_shards(model, samples, TASKS), floor=1e-6).gradient > 0.01


@pytest.mark.parametrize("name", VARIANTS)
def test_attention_that_is_not_plain_is_refused_by_name(name: str) -> None:
    make_model, message = VARIANTS[name]
    model = make_model().train()
    with pytest.raises(InputError, match=message):
        on_shards(model, made_samples(Family(model)), TASKS, Family)


def test_the_walk_through_of_the_documentation_adds_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[3] / "docs/models.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.setattr("dhp.models.FAMILIES", dict(dhp.models.FAMILIES))
    module = types.ModuleType("my_families")
    monkeypatch.setitem(sys.modules, "my_families", module)
    exec(code, module.__dict__)
    vision = SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False}
    config = tf.DeepseekVLConfig(text_config=TEXT | {"model_type": "llama"}, vision_config=vision, image_token_id=110)
    model = tf.DeepseekVLForConditionalGeneration(config).double().train()
    family = family_class(model)(model)
    assert type(family).__name__ == "DeepseekVL"
    samples = made_samples(family)
    assert difference(alone(model, samples), on_shards(model, samples, TASKS), floor=1e-6).within(1e-6)
    dhp.models.freeze(model, Freeze(vit=True, aligner=True, llm=False))
    assert {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad} <= {
        "language_model",
        "weight",
    }


@pytest.mark.skipif(OMNI not in MODELS, reason="transformers before 5.23")
def test_pixels_of_all_kinds_are_uploaded_as_they_were_read() -> None:
    """Else the launching thread would copy them, out of the memory that the device reads by itself."""
    family = family_class(model := make(OMNI, torch.float32))(model)
    media = family.shapes_to_try()[:6]  # two of them sounds
    generator = np.random.default_rng(0)
    pixels = torch.cat([family.random_pixels(medium, generator) for medium in media])
    units = [
        Unit(0, i, part, *medium.unit_sizes.of(part)) for i, medium in enumerate(media) for part in range(medium.units)
    ]
    uploaded: list[torch.Tensor] = []

    def upload(*tensors: torch.Tensor) -> list[torch.Tensor]:
        uploaded.extend(tensors)
        return list(tensors)

    family.encode(units, [media], pixels, upload)
    assert uploaded[0] is pixels


@pytest.mark.parametrize("asked", [False, True])
def test_an_adapter_says_whether_every_task_exchanges_rows(asked: bool) -> None:
    model = make("qwen3_moe", torch.float32)
    model.config.output_router_logits = asked
    run = types.SimpleNamespace(traffic="", group_of=lambda task: [0])
    assert dhp.models.attach(model, run).exchanges_rows == asked


def test_tables_of_families_agree() -> None:
    from dhp.cost.local import COUNTED_BY_PARTS
    from dhp.data.placeholders import PLACEHOLDERS
    from dhp.data.processor import FAMILIES

    assert FAMILIES.keys() <= dhp.models.FAMILIES.keys(), "what is read can be trained"
    assert PLACEHOLDERS.keys() == {name for name, family in FAMILIES.items() if family.image_classes}
    assert set(COUNTED_BY_PARTS) >= {name for name, family in FAMILIES.items() if family.borrowed}
