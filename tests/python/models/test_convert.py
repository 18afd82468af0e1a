"""`dhp convert`: what OpenGVLab's InternVL computes, transformers' InternVL computes of the folder that is written.

The reference is the original forward pass, restated here on the original names of weights.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dhp._core import InputError
from dhp.data.formats.samples import MediumRef
from dhp.data.grid import probe_medium
from dhp.data.text import Encoder
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.models.convert import convert, main
from dhp.models.model_folder import load_weights

C, LAYERS, HEADS, SIDE, PATCH, TEXT_C = 16, 2, 2, 56, 14, 32
CONFIG = {
    "architectures": ["InternVLChatModel"],
    "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "force_image_size": SIDE,
    "max_dynamic_patch": 4,
    "min_dynamic_patch": 1,
    "ps_version": "v2",
    "select_layer": -1,
    "template": "internvl2_5",
    "torch_dtype": "bfloat16",
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "use_thumbnail": True,
    "llm_config": {
        "model_type": "qwen2",
        "hidden_size": TEXT_C,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        "rope_theta": 1e4,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "attn_implementation": "flash_attention_2",
        "torch_dtype": "float32",
        "vocab_size": 1024,
    },
    "vision_config": {
        "model_type": "intern_vit_6b",
        "hidden_size": C,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 24,
        "image_size": SIDE,
        "patch_size": PATCH,
        "num_channels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "norm_type": "layer_norm",
        "qkv_bias": True,
        "qk_normalization": False,
        "drop_path_rate": 0.1,
        "use_flash_attn": True,
    },
}
LIKE_6B = {"norm_type": "rms_norm", "qkv_bias": False, "qk_normalization": True}
Weights = dict[str, torch.Tensor]


def original(vision: dict[str, Any], text: Any) -> Weights:
    """Random weights by OpenGVLab's names."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (1, 1, C),
        "embeddings.position_embedding": (1, (SIDE // PATCH) ** 2 + 1, C),
        "embeddings.patch_embedding.weight": (C, 3, PATCH, PATCH),
        "embeddings.patch_embedding.bias": (C,),
    }
    norm = {"weight": (C,)} if vision["norm_type"] == "rms_norm" else {"weight": (C,), "bias": (C,)}
    for i in range(LAYERS):
        at = f"encoder.layers.{i}"
        shapes |= {f"{at}.{n}.{key}": shape for n in ("norm1", "norm2") for key, shape in norm.items()}
        shapes |= {f"{at}.ls1": (C,), f"{at}.ls2": (C,), f"{at}.attn.qkv.weight": (3 * C, C)}
        shapes |= {f"{at}.attn.qkv.bias": (3 * C,)} if vision["qkv_bias"] else {}
        if vision["qk_normalization"]:
            shapes |= {f"{at}.attn.q_norm.weight": (C,), f"{at}.attn.k_norm.weight": (C,)}
        shapes |= {f"{at}.attn.proj.weight": (C, C), f"{at}.attn.proj.bias": (C,)}
        shapes |= {f"{at}.mlp.fc1.weight": (24, C), f"{at}.mlp.fc1.bias": (24,)}
        shapes |= {f"{at}.mlp.fc2.weight": (C, 24), f"{at}.mlp.fc2.bias": (C,)}
    projector = {"0.weight": (4 * C,), "0.bias": (4 * C,), "1.weight": (TEXT_C, 4 * C), "1.bias": (TEXT_C,)}
    projector |= {"3.weight": (TEXT_C, TEXT_C), "3.bias": (TEXT_C,)}
    named = {f"vision_model.{name}": shape for name, shape in shapes.items()}
    named |= {f"mlp1.{name}": shape for name, shape in projector.items()}
    generator = torch.Generator().manual_seed(1)
    weights = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in named.items()}
    return weights | {f"language_model.{name}": tensor.clone() for name, tensor in text.state_dict().items()}


def rows_of(w: Weights, pixels: torch.Tensor, vision: dict[str, Any]) -> torch.Tensor:
    """[tiles, rows, hidden]: what the original's extract_feature makes of tiles."""

    def norm(x: torch.Tensor, name: str, kind: str) -> torch.Tensor:
        if kind == "rms_norm":
            return w[f"{name}.weight"] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    at = "vision_model.embeddings"
    x = F.conv2d(pixels, w[f"{at}.patch_embedding.weight"], w[f"{at}.patch_embedding.bias"], PATCH)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([w[f"{at}.class_embedding"].expand(len(x), -1, -1), x], 1) + w[f"{at}.position_embedding"]
    for i in range(LAYERS):
        at = f"vision_model.encoder.layers.{i}"
        h = norm(x, f"{at}.norm1", vision["norm_type"])
        qkv = F.linear(h, w[f"{at}.attn.qkv.weight"], w.get(f"{at}.attn.qkv.bias"))
        q, k, v = qkv.reshape(*h.shape[:2], 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
        if vision["qk_normalization"]:
            q, k = (
                norm(y.transpose(1, 2).flatten(2), f"{at}.attn.{name}", "rms_norm").view(v.transpose(1, 2).shape)
                for y, name in ((q, "q_norm"), (k, "k_norm"))
            )
            q, k = q.transpose(1, 2), k.transpose(1, 2)
        scores = (q * (C // HEADS) ** -0.5) @ k.transpose(-2, -1)
        out = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        out = F.linear(out, w[f"{at}.attn.proj.weight"], w[f"{at}.attn.proj.bias"])
        x = x + out * w[f"{at}.ls1"]
        h = norm(x, f"{at}.norm2", vision["norm_type"])
        h = F.gelu(F.linear(h, w[f"{at}.mlp.fc1.weight"], w[f"{at}.mlp.fc1.bias"]))
        x = x + F.linear(h, w[f"{at}.mlp.fc2.weight"], w[f"{at}.mlp.fc2.bias"]) * w[f"{at}.ls2"]
    side = math.isqrt(x.shape[1] - 1)
    tiles = x[:, 1:].reshape(len(x), side, side, C)
    # Of 2x2 patches one row: patches of a line side by side, then the two lines
    tiles = tiles.reshape(len(x), side, side // 2, 2 * C).permute(0, 2, 1, 3)
    tiles = tiles.reshape(len(x), side // 2, side // 2, 4 * C).permute(0, 2, 1, 3)
    h = F.layer_norm(tiles.reshape(len(x), -1, 4 * C), (4 * C,), w["mlp1.0.weight"], w["mlp1.0.bias"], 1e-5)
    return F.linear(F.gelu(F.linear(h, w["mlp1.1.weight"], w["mlp1.1.bias"])), w["mlp1.3.weight"], w["mlp1.3.bias"])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("t") / "model", family="internvl", layers=1, hidden=32)


def write_tokenizer(folder: Path, tokenizer: Path) -> None:
    """As OpenGVLab's: no names for the marks of pictures, no mark of clips."""
    made = json.loads((tokenizer / "tokenizer.json").read_text())
    made["added_tokens"] = [token for token in made["added_tokens"] if token["content"] != "<video>"]
    (folder / "tokenizer.json").write_text(json.dumps(made))
    settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
    tokens = settings["added_tokens_decoder"]
    settings["added_tokens_decoder"] = {id: token for id, token in tokens.items() if token["content"] != "<video>"}
    del settings["extra_special_tokens"]
    settings["additional_special_tokens"] = [token["content"] for token in settings["added_tokens_decoder"].values()]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_original(
    folder: Path, tokenizer: Path, files: int = 1, **changes: Any
) -> tuple[Path, Weights, dict[str, Any], Any]:
    """The folder, its weights, its config and the language model. `changes`: of vision_config."""
    config = json.loads(json.dumps(CONFIG))
    config["vision_config"] |= changes
    folder.mkdir()
    write_tokenizer(folder, tokenizer)
    (folder / "modeling_internvl_chat.py").write_text("raise SystemExit('code of a checkpoint was run')\n")
    (folder / "config.json").write_text(json.dumps(config))
    given = config["llm_config"]
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": given["rope_theta"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        skipped = ("rope_scaling", "rope_theta", "attn_implementation", "torch_dtype", "model_type")
        kept = {key: value for key, value in given.items() if key not in skipped}
        text = tf.Qwen2ForCausalLM(tf.Qwen2Config(**kept, rope_parameters=rope)).eval()
    weights = original(config["vision_config"], text)
    names = sorted(weights)
    if files == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder, weights, config, text
    places = {}
    for part in range(files):
        file = f"model-{part + 1:05}-of-{files:05}.safetensors"
        save_file({name: weights[name] for name in names[part::files]}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names[part::files], file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder, weights, config, text


@pytest.mark.parametrize("vision", [{}, LIKE_6B], ids=["as 300M", "as 6B"])
@pytest.mark.parametrize("files", [1, 3])
def test_logits_are_those_of_the_original(vision: dict[str, Any], files: int, tokenizer: Path, tmp_path: Path) -> None:
    source, weights, config, text = write_original(tmp_path / "source", tokenizer, files, **vision)
    out = tmp_path / "out"
    assert main([str(source), str(out)]) == 0
    model, info = tf.AutoModelForImageTextToText.from_pretrained(out, output_loading_info=True, dtype=torch.float32)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]

    context = model.config.image_token_id
    tiles, rows = 2, model.config.image_seq_length
    assert rows == 4
    ids = torch.tensor([[5, 6, *[context] * (tiles * rows), 7, 8, 9, 10]])  # longer than the 8 that rope knows
    pixels = torch.randn(tiles, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        embeds = text.get_input_embeddings()(ids)
        embeds[ids == context] = rows_of(weights, pixels, config["vision_config"]).flatten(0, 1)
        expected = text(inputs_embeds=embeds).logits
        found = model.eval()(input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1, "or any logits would be these"
    if files == 3:
        assert {f.name for f in out.glob("*.safetensors")} == {f.name for f in source.glob("*.safetensors")}


def test_one_file_of_another_name_is_found_by_its_index(tokenizer: Path, tmp_path: Path) -> None:
    source, *_ = write_original(tmp_path / "source", tokenizer)
    file = "model-00001-of-00001.safetensors"
    (source / "model.safetensors").rename(source / file)
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(source / file), file)}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    convert(source, tmp_path / "out")
    assert (tmp_path / "out" / file).exists()
    load_weights(tmp_path / "out", torch.float32)


def test_a_full_disk_is_named(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors has an error of its own for it."""
    source, *_ = write_original(tmp_path / "source", tokenizer)

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("dhp.models.convert.save_file", full)
    with pytest.raises(InputError, match=r"/out: cannot be written \(.*No space left on device .*; make room, or give"):
        convert(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["source"], "nothing is left behind"


def test_the_folder_trains(tokenizer: Path, tmp_path: Path) -> None:
    """Its files are what dhp reads: weights, tokens, pictures, clips."""
    source, *_ = write_original(tmp_path / "source", tokenizer)
    out = tmp_path / "out"
    count = convert(source, out)
    assert (
        count == len(load_file(out / "model.safetensors")) == len(load_file(source / "model.safetensors")) + 4 * LAYERS
    )
    assert load_weights(out, torch.float32).config.text_config.rope_parameters["rope_type"] == "dynamic"
    encoder = Encoder(out)
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    assert {name: getattr(encoder.tokenizer, name) for name in names} == names, "InternVLProcessor asks for them"
    assert json.loads((out / "processor_config.json").read_text())["image_seq_length"] == 4
    Image.fromarray(np.full((20, 45, 3), 9, np.uint8)).save(tmp_path / "wide.png")
    medium = probe_medium(MediumRef("image", str(tmp_path / "wide.png")), encoder.processor)
    assert medium.units == 3 and medium.unit_rows == 4  # two tiles and the whole
    assert not list(tmp_path.glob(".out*"))
    assert (out.stat().st_mode & 0o777) == 0o755


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["model_type"], "internvl", 'model_type: found "internvl", expected "internvl_chat"'),
        (
            ["llm_config", "model_type"],
            "internlm2",
            r'llm_config.model_type: found "internlm2", expected qwen2 or qwen3',
        ),
        (["select_layer"], -2, "select_layer: found -2"),
        (["ps_version"], "v1", 'ps_version: found "v1"'),
        (["use_llm_lora"], 16, "use_llm_lora: found 16"),
        (["llm_config"], None, "no llm_config"),
        (["vision_config", "num_hidden_layers"], 3, r"18 missing: "),
        (["vision_config", "hidden_size"], 20, "of another size"),
    ],
)
def test_what_cannot_be_converted_is_named(
    keys: list[str], value: Any, message: str, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _, config, _ = write_original(tmp_path / "source", tokenizer)
    inner = config
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        convert(source, tmp_path / "out")
    assert main([str(source), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("dhp convert: error: ")
    assert sorted(os.listdir(tmp_path)) == ["source"], "nothing is left behind"


def test_odd_weights_and_places_are_named(tokenizer: Path, tmp_path: Path) -> None:
    source, weights, *_ = write_original(tmp_path / "source", tokenizer)
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="is there already"):
        convert(source, tmp_path / "there")
    save_file({**weights, "mlp1.2.weight": torch.zeros(1)}, source / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors: holds mlp1\.2\.weight, which is no weight of"):
        convert(source, tmp_path / "out")
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged or cut off"):
        convert(source, tmp_path / "out")
    file.rename(source / "pytorch_model.bin")
    with pytest.raises(InputError, match="which is a pickle"):
        convert(source, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["source", "there"]


def test_a_head_that_is_the_embeddings_is_left_out(tokenizer: Path, tmp_path: Path) -> None:
    source, weights, config, _ = write_original(tmp_path / "source", tokenizer)
    config["llm_config"]["tie_word_embeddings"] = True
    (source / "config.json").write_text(json.dumps(config))
    weights["language_model.lm_head.weight"] = weights["language_model.model.embed_tokens.weight"].clone()
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    convert(source, tmp_path / "out")
    model = load_weights(tmp_path / "out", torch.float32)
    assert model.lm_head.weight is model.get_input_embeddings().weight
