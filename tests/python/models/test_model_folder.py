"""Checkpoint folders: every weight from the checkpoint, or refused by name before any rank computes."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dhp._core import InputError
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.models.model_folder import check_model_folder, load_weights
from family_models import MODELS, OMNI, make

HEAD = "lm_head.weight"
EMBEDDING = "model.language_model.embed_tokens.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny_checkpoint(folder, layers=1, hidden=64, vision_layers=1, vision_hidden=32, deepstack=(0,))
    return folder


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def set_config(folder: Path, *keys: str, value: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    inner = config
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder: Path) -> dict[str, str]:
    """The weights in two files and an index. Returns its map."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: weights[name] for name in held}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    map_of = {name: file for file, held in parts.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": map_of}))
    return map_of


def test_whole_folders_pass_and_load_as_they_are(model: Path) -> None:
    kept = load_file(model / "model.safetensors")
    assert HEAD not in kept, "tied to the embedding: not in the file"
    for step in ("whole", "sharded"):
        check_model_folder(model)
        state = load_weights(model, torch.float32).state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
        assert torch.equal(state[HEAD], kept[EMBEDDING])
        if step == "whole":
            shard(model)


def test_weights_of_the_base_model_alone_are_the_models(model: Path) -> None:
    """As transformers loads them."""
    kept = load_file(model / "model.safetensors")
    change_weights(model, lambda w: [w.__setitem__(n.removeprefix("model."), w.pop(n)) for n in list(w)])
    check_model_folder(model)
    state = load_weights(model, torch.float32).state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


def refusal(model: Path) -> str:
    """What both say: the check before the ranks, and the load in each."""
    texts = []
    for use in (check_model_folder, lambda folder: load_weights(folder, torch.float32)):
        with pytest.raises(InputError) as error:
            use(model)
        texts.append(str(error.value))
        assert "\n" not in texts[-1]
    return texts[0]


def test_a_weight_that_the_checkpoint_lacks_is_named(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    set_config(model, "tie_word_embeddings", value=False)
    assert f"{model}: the weights are not those" in refusal(model)
    assert f"1 missing: {HEAD};" in refusal(model)
    assert capfd.readouterr() == ("", ""), "no table of transformers"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.__setitem__("model.extra", torch.zeros(2)), "1 unknown to the model: model.extra;"),
        (lambda w: w.__setitem__(EMBEDDING, w[EMBEDDING][:-1].clone()), f"1 of another size: {EMBEDDING} (1023x64 in"),
        (
            lambda w: [w.__setitem__("x." + name, w.pop(name)) for name in list(w)],
            "unknown to the model: x.model.",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(model: Path, change: Callable[..., object], message: str) -> None:
    change_weights(model, change)
    assert message in refusal(model)


def test_sizes_of_the_config_are_compared(model: Path) -> None:
    set_config(model, "text_config", "intermediate_size", value=48)
    assert "mlp.down_proj.weight (64x" in refusal(model)
    assert "in the file, 64x48 by config.json)" in refusal(model)


@pytest.mark.parametrize("cut", [0, 4, 40, 5000, -1])
def test_cut_off_weights_are_named_with_file_and_size(model: Path, cut: int) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    message = refusal(model)
    assert message.startswith(f"{file}: is damaged or cut off, at {file.stat().st_size:,} bytes")


def test_pipes_are_no_files(model: Path) -> None:
    """Whoever opens one waits for ever."""
    os.mkfifo(model / "special.json")
    with pytest.raises(InputError, match=r"special\.json: is no regular file"):
        check_model_folder(model)


def test_names_that_are_too_long_and_folders_that_cannot_be_listed(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "other.json").symlink_to("n" * 300)
    check_model_folder(model)

    def forbidden(folder: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(InputError, match=r"model: cannot be read \(Permission denied\)"):
        check_model_folder(model)


def test_pointers_are_no_files(model: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        file = model / name
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n")
        with pytest.raises(InputError) as error:
            check_model_folder(model)
        assert str(error.value) == f"{file}: is a pointer of Git LFS, not the file itself; download it: git lfs pull"


def test_shards_that_are_missing_or_elsewhere_are_named(model: Path) -> None:
    map_of = shard(model)
    (model / "model-2-of-2.safetensors").rename(model / "elsewhere")
    assert "names 2 files, missing: model-2-of-2.safetensors; download them" in refusal(model)
    index = model / "model.safetensors.index.json"
    for content, message in (
        (
            {"metadata": {}, "weight_map": {**map_of, EMBEDDING: "../model-1-of-2.safetensors"}},
            "which is no file of this folder",
        ),
        ({"metadata": {}, "weight_map": 3}, 'expected "metadata", and "weight_map"'),
        ({"metadata": {}, "weight_map": {EMBEDDING: 3}}, 'expected "metadata", and "weight_map"'),
        ({"weight_map": map_of}, 'expected "metadata", and "weight_map"'),
        ({"metadata": {}, "weight_map": {}}, "names 0 files"),
        ([], "not a JSON object"),
    ):
        index.write_text(json.dumps(content))
        assert f"{index}: " in refusal(model)
        assert message in refusal(model)
    index.unlink()
    assert f"{model}: has neither model.safetensors nor " in refusal(model)


def test_pickles_are_not_read(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    assert "has pytorch_model.bin, which is a pickle and may run code when read; convert" in refusal(model)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("auto_map",), {"AutoModel": "evil.Model"}, "auto_map: names code that comes with the checkpoint"),
        (("quantization_config",), {"quant_method": "fp8"}, "quantization_config: the weights are quantized"),
        (("text_config", "num_hidden_layers"), 10**9, "text_config.num_hidden_layers: found 1000000000, expected"),
        (("text_config", "hidden_size"), "wide", "describes no model ("),
        (("text_config", "hidden_size"), -1, "describes no model ("),
        (("text_config",), None, "the weights are not those of the model"),
        (("text_config",), 3, "describes no model ("),
        (("vision_config", "num_heads"), 0, "describes no model ("),
        (("text_config", "vocab_size"), 10**18, "describes no model ("),
        (("text_config", "rope_parameters", "strange"), 3, ""),
        (("unknown",), {"a": 1}, ""),
        (("text_config", "hidden_size"), 0, "the weights are not those of the model"),
    ],
)
def test_odd_configs_are_refused_in_a_line(
    model: Path, keys: tuple[str, ...], value: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    set_config(model, *keys, value=value)
    with pytest.raises(InputError) if message else contextlib.nullcontext() as error:
        check_model_folder(model)
    if error is None:  # keys that nothing reads
        assert capfd.readouterr() == ("", "")
        return
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", ""), "transformers says nothing beside it"


def test_numbers_that_are_no_floats_are_no_weights(model: Path) -> None:
    change_weights(model, lambda w: w.__setitem__(EMBEDDING, w[EMBEDDING].to(torch.int8)))
    with pytest.raises(InputError, match=r"not of F64, F32, F16, BF16: .*embed_tokens.weight \(I8\)"):
        check_model_folder(model)


@pytest.mark.skipif(OMNI not in MODELS, reason="transformers before 5.23")
def test_of_a_folder_of_qwen_omni_the_thinker_is_loaded(tmp_path: Path) -> None:
    """As released: names of their own, and weights of the parts that speak."""
    thinker = make(OMNI, torch.float32)
    thinker.save_pretrained(tmp_path)
    check_model_folder(tmp_path)

    def released(name: str) -> str:
        for part in ("language_model.", "visual.", "audio_tower."):
            name = name.replace(f"model.{part}", "model." if part == "language_model." else part)
        return f"thinker.{name}"

    weights = {released(name): tensor.clone() for name, tensor in thinker.state_dict().items()}
    weights |= {"talker.codec_head.weight": torch.zeros(3, 2), "token2wav.dit.weight": torch.zeros(2)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": config}))
    check_model_folder(tmp_path)
    loaded = load_weights(tmp_path, torch.float32)
    assert loaded.state_dict().keys() == thinker.state_dict().keys()
    assert all(torch.equal(tensor, thinker.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    weights["speaker.weight"] = weights.pop("talker.codec_head.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for read in (check_model_folder, lambda folder: load_weights(folder, torch.float32)):
        with pytest.raises(InputError, match=r"1 unknown to the model: speaker\.weight"):
            read(tmp_path)
