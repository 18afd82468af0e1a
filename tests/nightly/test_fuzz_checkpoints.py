"""Checkpoint folders that are damaged, incomplete or somebody else's: refused in one line that names a file, before any
rank computes, or trained from. What a run saved itself is taken up as it was saved, or not at all."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from budget import FUZZ_INPUTS, SEED, fuzz
from hypothesis import given, seed
from hypothesis import strategies as st
from in_process import Ended, at_most, check_ended, dhp_train
from odd_values import as_json, changes

from dhp import train
from dhp.data.indexing.index import build_index
from dhp.step.sharded import ShardedAdamW
from tiny_run import as_toml, make_tiny

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 301992\n"
HOW = [
    "remove",
    "empty",
    "half",
    "head",
    "flip",
    "flip",
    "flip",
    "pointer",
    "folder",
    "loop",
    "pipe",
    "swap",
    "foreign",
    "grow",
    "zero",
    "rename",
    "pickle",
    "code",
    "json",
    "json",
    "json",
    "json",
]
KEYS = [
    "model_type",
    "architectures",
    "auto_map",
    "text_config",
    "vision_config",
    "hidden_size",
    "num_hidden_layers",
    "vocab_size",
    "dtype",
    "format",
    "tie_word_embeddings",
    "patch_size",
    "merge_size",
    "spatial_merge_size",
    "image_token_id",
    "tokenizer_class",
    "chat_template",
    "added_tokens",
    "model",
    "step",
    "config",
    "do_sample_frames",
    "size",
    "quantization_config",
    "image_processor_type",
    "attn_implementation",
    "rope_scaling",
    "rope_parameters",
]
SETTINGS = {
    "model": "model",
    "data": "data.jsonl",
    "index": "data.idx",
    "output_dir": "out",
    "global_batch_size": 2,
    "capacity_tokens": 512,
    "save_steps": 1,
}


class Bomb:
    """A pickle that makes a folder when somebody loads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def damage(data: st.DataObject, folder: Path, foreign: Path, trap: Path) -> str:
    """Does something to a file of the folder; says what. Code that the folder brings would make `trap`."""
    files = sorted(folder.iterdir())
    if not files:
        return ""
    file, how = data.draw(st.sampled_from(files)), data.draw(st.sampled_from(HOW))
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    if how in ("remove", "folder", "loop", "pipe"):
        put_there(file, how)
    elif file.is_file():
        overwrite(data, file, how, chance, foreign, trap)
    return f"{how} {file.name}"


def put_there(file: Path, how: str) -> None:
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    else:
        file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "pipe":
        os.mkfifo(file)


def overwrite(data: st.DataObject, file: Path, how: str, chance: random.Random, foreign: Path, trap: Path) -> None:
    content = file.read_bytes()
    place = int(len(content) * chance.random() ** chance.choice((1, 3)))
    match how:
        case "empty":
            content = b""
        case "half":
            content = content[: len(content) // 2]
        case "head":
            content = content[: chance.randrange(64)]
        case "flip" if content:
            content = content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
        case "pointer":
            content = POINTER
        case "foreign" if (foreign / file.name).is_file():
            content = (foreign / file.name).read_bytes()
        case "grow":
            content += bytes(chance.choice((1, 8, 4096)))
        case "zero":
            content = bytes(len(content))
        case "pickle":
            content = pickle.dumps(Bomb(trap))
        case "swap":
            other = chance.choice([other for other in sorted(file.parent.iterdir()) if other.is_file()])
            other_content = other.read_bytes()
            other.write_bytes(content)
            content = other_content
        case "rename":
            file.rename(file.with_name(file.name + ".part"))
            return
        case "json" | "code" if file.suffix == ".json":
            content = changed_json(data, file, how, trap)
    file.write_bytes(content)


def changed_json(data: st.DataObject, file: Path, how: str, trap: Path) -> bytes:
    try:
        table = json.loads(file.read_bytes())
    except ValueError:  # damaged before
        return file.read_bytes()
    if how == "code" and isinstance(table, dict):
        file.with_name("evil.py").write_text(f"import os\nos.mkdir({str(trap)!r})\nclass Evil: pass\n")
        kinds = ("AutoConfig", "AutoModelForImageTextToText", "AutoTokenizer", "AutoImageProcessor", "AutoProcessor")
        return as_json({**table, "auto_map": dict.fromkeys(kinds, "evil.Evil")}).encode()
    small = table if len(as_json(table)) < 20_000 else {**table, "model": {}}  # a vocabulary has too many places
    changed = data.draw(changes(small, KEYS))
    if small is not table and isinstance(changed, dict) and changed.get("model") == {}:
        changed["model"] = table["model"]
    return as_json(changed).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """whole/: model/, data, and out/ with two checkpoints of a run; foreign/: a model of another shape."""
    folder = tmp_path_factory.mktemp("checkpoints")
    whole = folder / "whole"
    make_tiny(whole / "model")
    make_tiny(folder / "foreign", hidden=32, vocabulary=900)
    turns = [[{"role": "user", "content": "One? " * i}, {"role": "assistant", "content": "Two."}] for i in range(1, 7)]
    (whole / "data.jsonl").write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    build_index(whole / "data.jsonl", whole / "model", whole / "data.idx")
    write_settings(whole, steps=2)
    ended = dhp_train("run.toml", cwd=whole, rank=True)
    assert ended.code == 0, ended.said
    write_settings(whole, steps=3)
    yield folder


def write_settings(folder: Path, **more: Any) -> None:
    table = {**SETTINGS, **more}
    (folder / "run.toml").write_text(as_toml(table))


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder / "work", ignore_errors=True)
    return Path(shutil.copytree(folder / "whole", folder / "work"))


class Loaded:
    """Catches model and optimizer as a run loads them; the steps themselves are left out."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.moments: list[torch.Tensor] = []
        self.first_step = -1

    def hold(self, patch: pytest.MonkeyPatch) -> None:
        attach, load_optimizer = train.attach, train.checkpoint.load_optimizer

        def attached(model: Any, *rest: Any, **named: Any) -> Any:
            self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
            return attach(model, *rest, **named)

        class FirstStep(train.Ahead):
            def __init__(ahead, steps: range, *rest: Any) -> None:
                self.first_step = steps.start
                super().__init__(steps, *rest)

        def loaded_optimizer(saved: Path, model: Any, adamw: ShardedAdamW) -> None:
            load_optimizer(saved, model, adamw)
            self.moments = [v for state in adamw.gathered_state().values() for v in state.values()]

        patch.setattr(train, "attach", attached)
        patch.setattr(train, "Ahead", FirstStep)
        patch.setattr(train.checkpoint, "load_optimizer", loaded_optimizer)

    def same(self, other: Loaded) -> bool:
        pairs = [*zip(self.moments, other.moments, strict=True)] if len(self.moments) == len(other.moments) else None
        return (
            pairs is not None
            and self.weights.keys() == other.weights.keys()
            and all(torch.equal(self.weights[name], other.weights[name]) for name in self.weights)
            and all(torch.equal(mine, its) for mine, its in pairs)
        )


def run(work: Path, *words: str) -> tuple[Ended, Loaded]:
    loaded = Loaded()
    with at_most(120):
        ended = dhp_train("run.toml", *words, cwd=work, rank=True, steps=0, hold=loaded.hold)
    return ended, loaded


@seed(SEED)
@fuzz(FUZZ_INPUTS // 2)
@given(st.data())
def test_damaged_models_are_refused_by_name_or_trained_from(folder: Path, data: st.DataObject) -> None:
    work, trap = fresh(folder), folder / "trap"
    shutil.rmtree(work / "out")
    done = [damage(data, work / "model", folder / "foreign", trap) for _ in range(data.draw(st.integers(1, 2)))]
    ended, _ = run(work)
    check_ended(ended)
    assert not trap.exists(), f"{done}: code of the checkpoint was run"
    if ended.code:
        assert ended.code == 2, (done, ended.said)
        assert "model" in ended.said, f"{done}: the folder is not named: {ended.said}"


@seed(SEED)
@fuzz(FUZZ_INPUTS - FUZZ_INPUTS // 2)
@given(st.data())
def test_damaged_checkpoints_are_refused_by_name_or_taken_up_as_saved(folder: Path, data: st.DataObject) -> None:
    work, trap = fresh(folder), folder / "trap"
    newest = work / "out" / "step-000002"
    done = [damage(data, newest, folder / "foreign", trap) for _ in range(data.draw(st.integers(1, 2)))]
    ended, loaded = run(work, "--resume")
    check_ended(ended)
    assert not trap.exists(), f"{done}: code of the checkpoint was run"
    if ended.code:
        assert ended.code == 2, (done, ended.said)
        assert "step-000002" in ended.said, f"{done}: the folder is not named: {ended.said}"
        return
    _, whole = run(fresh(folder), "--resume")
    assert whole.first_step == 2
    if loaded.first_step == 2:
        assert loaded.same(whole), f"{done}: not what was saved, and not a word"
    assert newest.exists(), f"{done}: a checkpoint was deleted"
