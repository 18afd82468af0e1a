"""`dhp check-model`: every family is exact, and what is not is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers as tf

import ranks  # noqa: F401  (loads the operators)
from dhp._core import InputError
from dhp.models import check_model
from dhp.models.shrink import VOCABULARY, shrunk
from drawn import skip_most_in_ci
from family_models import MODELS, OMNI, TEXT

# As released, in what matters for shrinking: many layers, wide, ids far beyond a small vocabulary.
LARGE_TEXT = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
IDS = {"image_token_id": 151655, "video_token_id": 151656}
LARGE_ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
GLM_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12], "partial_rotary_factor": 0.5}


def omni() -> tf.PreTrainedConfig:
    """With the parts that speak, which are left out. Released configs say where pictures begin."""
    thinker = {"text_config": {"rope_parameters": LARGE_ROPE}, "vision_start_token_id": 151652}
    return tf.Qwen2_5OmniConfig(thinker_config=thinker | {"vision_end_token_id": 151653})


LARGE = {
    "internvl": lambda: tf.InternVLConfig(
        text_config=LARGE_TEXT | {"model_type": "qwen2", "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
        image_token_id=151667,
    ),
    "qwen2_5_vl": lambda: tf.Qwen2_5_VLConfig(text_config=LARGE_TEXT | {"rope_parameters": LARGE_ROPE}, **IDS),
    "qwen2_5_omni": omni,
    "qwen2_vl": lambda: tf.Qwen2VLConfig(text_config=LARGE_TEXT | {"rope_parameters": LARGE_ROPE}, **IDS),
    "qwen3_vl": lambda: tf.Qwen3VLConfig(),
    "qwen3_vl_moe": lambda: tf.Qwen3VLMoeConfig(),
    "glm4v": lambda: tf.Glm4vConfig(text_config={"rope_parameters": GLM_ROPE}),
    "glm4v of defaults": lambda: tf.Glm4vConfig(),
    "qwen2_5_vl of defaults": lambda: tf.Qwen2_5_VLConfig(),
    "smolvlm": lambda: tf.SmolVLMConfig(),
    "mistral3": lambda: tf.Mistral3Config(),
    "llava": lambda: tf.LlavaConfig(),
    "llava_onevision": lambda: tf.LlavaOnevisionConfig(),
    "llama": lambda: tf.LlamaConfig(**LARGE_TEXT),
    "deepseek_v3": lambda: tf.DeepseekV3Config(),
}


def write_config(folder: Path, config: tf.PreTrainedConfig) -> Path:
    config.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", LARGE)
def test_a_released_config_shrinks_to_a_model_that_is_exact(name: str, tmp_path: Path) -> None:
    skip_most_in_ci(keep=0.3)
    what, found, units = check_model.check_model(str(write_config(tmp_path, LARGE[name]())))
    print(what, found, units)
    assert found.within(check_model.TOLERANCE), found
    assert units <= 1e-12
    assert found.parameters > 20


def test_every_kind_of_layer_is_kept() -> None:
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config = tf.Gemma3TextConfig(**TEXT | {"num_hidden_layers": 12, "layer_types": kinds * 2})
    small = shrunk(config)
    assert small.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert config.num_hidden_layers == 12, "the config itself stays"
    assert all(small.pad_token_id < VOCABULARY for _ in [0])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(write_config(tmp_path, tf.Qwen3Config(**LARGE_TEXT)))
    assert check_model.main([folder]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "exact"
    # A model that sees another scale on shards than alone.
    monkeypatch.setattr("dhp.models.attention.head_size", lambda text: 1)
    own = torch.ops.dhp.ring_attention_packed
    monkeypatch.setattr(torch.ops.dhp, "ring_attention_packed", lambda q, *rest: own(1.001 * q, *rest))
    assert check_model.main([folder]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "NOT exact: more than 1e-06 off"


def test_what_cannot_be_attached_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    windows = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}
    assert check_model.main([str(write_config(tmp_path, tf.Qwen2Config(**LARGE_TEXT, **windows)))]) == 1
    assert "layer_types: found sliding_attention" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba2"}))
    assert check_model.main([str(tmp_path)]) == 2
    assert 'model_type: found "mamba2", supported: ' in capsys.readouterr().err
    with pytest.raises(InputError, match="expected a Hugging Face checkpoint folder"):
        check_model.check_model(str(tmp_path / "nowhere"))


def test_a_config_of_no_model_is_named_with_its_folder(tmp_path: Path) -> None:
    config = tf.LlamaConfig(**TEXT, hidden_act="no such")
    write_config(tmp_path, config)
    with pytest.raises(InputError, match=f"{tmp_path}/config.json: no small model can be made of it"):
        check_model.check_model(str(tmp_path))
    with pytest.raises(InputError, match=f"{tmp_path}/config.json: no small model can be made of it"):
        check_model.check_config(check_model.config_of(str(tmp_path)))


def test_every_family_that_is_registered_has_a_small_model_to_test() -> None:
    from dhp.models import FAMILIES

    tested = {name.split(" with ")[0] for name in MODELS} | {OMNI}  # which needs a newer transformers than the oldest
    assert tested | {OMNI.removesuffix("_thinker")} == set(FAMILIES)
