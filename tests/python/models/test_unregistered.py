"""Families that are not registered: attached once a small model of them has proven exact, and not before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf

import ranks  # noqa: F401  (loads the operators)
from dhp._core import Freeze, InputError
from dhp.base.unregistered import ALLOWED
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.models import attach, check_model, detach, family_of, freeze, unregistered
from family_models import SIGLIP, TEXT
from programs import run_program
from tiny_run import as_toml

RUN: Any = SimpleNamespace(traffic="", group_of=lambda task: [0])


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(ALLOWED, "1")
    monkeypatch.setattr(unregistered, "_proven", set())
    yield


def with_pictures() -> Any:
    vision = SIGLIP | {"model_type": "siglip_vision_model", "vision_use_head": False}
    return tf.DeepseekVLConfig(text_config=TEXT | {"model_type": "llama"}, vision_config=vision, image_token_id=110)


PROVEN = {"olmo2": lambda: tf.Olmo2Config(**TEXT), "deepseek_vl": with_pictures}


@pytest.mark.parametrize("name", PROVEN)
def test_a_model_attaches_once_it_is_proven(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PROVEN[name]()
    with torch.device("meta"):
        classes = tf.AutoModelForImageTextToText if name == "deepseek_vl" else tf.AutoModelForCausalLM
        model = classes.from_config(config)
    with pytest.raises(InputError, match=f'"{name}", which is not registered; with {ALLOWED}=1 it attaches after'):
        attach(model, RUN)
    unregistered.prove(model.config, tmp_path / "out")
    attach(model, RUN)
    detach(model)
    assert list(json.loads((tmp_path / "out" / unregistered.FILE).read_text()).values()) == ["exact"]
    # The same config and versions are not compared again.
    monkeypatch.setattr(check_model, "check_config", lambda config: pytest.fail("compared again"))
    unregistered.prove(PROVEN[name](), tmp_path / "out")
    config.rms_norm_eps = 0.5
    with pytest.raises(pytest.fail.Exception):
        unregistered.prove(config, tmp_path / "out")
    if name == "deepseek_vl":
        with pytest.raises(InputError, match="its parts are not known"):
            freeze(model, Freeze(vit=True))


def test_what_differs_is_refused_with_the_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.ops.dhp.ring_attention_packed
    monkeypatch.setattr(torch.ops.dhp, "ring_attention_packed", lambda q, *rest: own(1.001 * q, *rest))
    with pytest.raises(InputError, match=r"allow_unregistered: olmo2, .*: on shards it is not what it is alone: loss"):
        unregistered.prove(PROVEN["olmo2"](), tmp_path)
    assert not (tmp_path / unregistered.FILE).exists()


def test_parts_of_a_config_in_a_list_are_compared_without_what_passes() -> None:
    def mark(name: str, width: int) -> str:
        parts = [{"width": width, "_name_or_path": name, "use_cache": name == "a"}]
        return unregistered.mark(SimpleNamespace(to_dict=lambda: {"parts": parts}))

    assert mark("a", 8) == mark("b", 8) != mark("b", 9)


def test_a_folder_that_cannot_be_written_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_model, "check_config", lambda config: pytest.fail("compared first"))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"output_dir: .*/out/check-model\.json cannot be written"):
        unregistered.prove(PROVEN["olmo2"](), tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (lambda: tf.MistralConfig(**TEXT, sliding_window=16), "sliding_window 16"),
        (lambda: tf.GraniteConfig(**TEXT, logits_scaling=8.0), "logits_scaling: found 8.0"),
    ],
)
def test_what_guards_refuse_stays_refused(config: Any, problem: str) -> None:
    with pytest.raises(InputError, match=f"allow_unregistered: .*{problem}"):
        unregistered.prove(config())


def test_a_run_proves_its_model_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOWED)
    folder = make_tiny_checkpoint(tmp_path / "model", family="qwen3", layers=2, hidden=32, heads=2, kv_heads=1)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = tf.MistralConfig(**TEXT | {"vocab_size": vocabulary}, sliding_window=None)
    tf.MistralForCausalLM(config).save_pretrained(folder)
    with pytest.raises(InputError, match=r'"mistral", supported: .*; others may be tried with allow_unregistered'):
        family_of(folder)
    turns = [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": "Four."}]
    (tmp_path / "data.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 4)
    settings = {"model": str(folder), "data": str(tmp_path / "data.jsonl"), "output_dir": str(tmp_path / "out")}
    run = {"ranks": 2, "steps": 1, "global_batch_size": 4, "allow_unregistered": True}
    (tmp_path / "run.toml").write_text(as_toml(settings | run))
    done = run_program("dhp.train", tmp_path / "run.toml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / unregistered.FILE).exists()
    assert (tmp_path / "out" / "step-000001").exists()
