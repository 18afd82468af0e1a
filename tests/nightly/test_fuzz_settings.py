"""Odd settings, in the file, by --set and as options: refused in one line by the launcher, or trained with."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
from budget import FUZZ_INPUTS, SEED, fuzz
from hypothesis import given, seed
from hypothesis import strategies as st
from in_process import at_most, check_ended, dhp_train
from odd_values import odd_values, scratched

from dhp._core import plan_options
from dhp.data.indexing.index import build_index
from dhp.settings.config import TrainConfig
from tiny_run import make_tiny

# Paths are relative to the working folder; whatever they become, they stay below the test's own folder.
BASE: dict[str, Any] = {
    "model": "../model",
    "data": "../data.jsonl",
    "index": "../data.idx",
    "output_dir": "out",
    "ranks": 2,
    "steps": 2,
    "global_batch_size": 2,
    "capacity_tokens": 512,
}
OUTPUTS = [
    *[
        "out",
        "new/deeper/out.json",
        "file",
        "file/x",
        "folder",
        "loop",
        "/dev/full",
        "/dev/null/x",
        "/proc/none",
        ".",
        "~/x",
    ],
    *("", " ", "x\0y", "\ud800", "\x1b[2J", "a" * 300),
]
WORDS = [
    "skip",
    "fail",
    "stop",
    "warn",
    "fp32",
    "bf16",
    "fp64",
    "fp16",
    "free",
    "lockstep",
    "paper",
    "static",
    "static:1",
    "static:0",
    "static:-1",
    "balanced-static:2",
    "megatron-hybrid:64",
    "megatron-dynamic:x",
    "ulysses:2",
    "free:3",
    "local-cpu",
    "h100",
    "h100-2x8",
    "h100-1x2",
    "910b",
    "local-cpu-1x1",
    "consecutive",
    "any",
    "fast",
    "default",
    "ring",
]
SETTINGS = [field.name for field in fields(TrainConfig)]
OPTIONS = [option.name for option in plan_options()]


def toml(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def likely(name: str) -> st.SearchStrategy[Any]:
    """Values that are right for the setting, or nearly."""
    default = next((field.default for field in fields(TrainConfig) if field.name == name), None)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(0, 9) | st.sampled_from((-1, 2**31, 2**63 - 1, 2**63, 10**20))
    if isinstance(default, float):
        return st.floats() | st.floats(0, 1) | st.integers(-1, 3)
    return st.sampled_from(OUTPUTS + WORDS)


def values(name: str) -> st.SearchStrategy[Any]:
    return likely(name) | likely(name) | odd_values().filter(lambda value: not str(value).startswith("/"))


@st.composite
def calls(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """The text of a settings file, and what follows it on the command line."""
    table = dict(BASE)
    table["ranks"] = draw(st.integers(1, 2))
    words: list[str] = []
    plan: dict[str, Any] = {}
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(SETTINGS))
        value = draw(values(name))
        if draw(st.booleans()):
            table[name] = value
        else:
            text = draw(st.sampled_from((toml(value), str(value))))
            words += ["--set", f"{name}={text}".replace("\0", "")]
    for _ in range(draw(st.integers(0, 1))):
        option, value = draw(st.sampled_from(OPTIONS)), draw(st.integers(0, 9) | st.sampled_from(WORDS) | odd_values())
        if draw(st.booleans()):
            plan[option] = value
        else:
            words += ["--set", f"plan.{option}={toml(value)}".replace("\0", "")]
    for option in draw(st.lists(st.sampled_from(("--metrics", "--trace", "--result")), max_size=2)):
        words += [option, draw(st.sampled_from(OUTPUTS)).replace("\0", "").replace("\ud800", "\udcff")]
    for option in draw(st.lists(st.sampled_from(("--ranks", "--steps", "--result-step")), max_size=1)):
        words += [option, draw(st.sampled_from(("0", "1", "2", "-1", "1e3", "nan", "x", "", "9" * 30)))]
    last: tuple[list[str], ...] = ([], [], ["--resume"], ["--set"], ["--set", "=1"], ["--set", "steps"], ["--nothing"])
    words += draw(st.sampled_from(last))
    text = "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
    text += "".join(f"[plan]\n{key} = {toml(value)}\n" for key, value in plan.items())
    content = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 9:
        content = draw(scratched(content))
    return content, words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """model/, data.jsonl, data.idx; tests work in a folder below."""
    folder = tmp_path_factory.mktemp("settings") / "deep" / "down"
    make_tiny(folder / "model")
    turns = [[{"role": "user", "content": "One? " * i}, {"role": "assistant", "content": "Two."}] for i in range(1, 7)]
    (folder / "data.jsonl").write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    build_index(folder / "data.jsonl", folder / "model", folder / "data.idx")
    yield folder


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder / "work", ignore_errors=True)
    (folder / "work" / "folder").mkdir(parents=True)
    (folder / "work" / "file").write_text("a file\n")
    (folder / "work" / "loop").symlink_to("loop")
    return folder / "work"


@seed(SEED)
@fuzz(FUZZ_INPUTS)
@given(calls(), st.integers(0, 7).map(lambda number: number == 7))
def test_odd_settings_are_refused_in_one_line_or_trained_with(
    folder: Path, call: tuple[bytes, list[str]], rank: bool
) -> None:
    """By the launcher, without ranks; of one in eight a rank runs, and must agree."""
    text, words = call
    work = fresh(folder)
    (work / "run.toml").write_bytes(text)
    with at_most(120):
        ended = dhp_train("run.toml", *words, cwd=work, rank=rank)
    check_ended(ended)
    if not ended.settings:
        assert ended.code in (0, 2), ended.said  # 0: --help
        return
    numbers = [value for value in asdict(ended.settings).values() if isinstance(value, float)]
    assert all(map(math.isfinite, numbers)), ended.settings
    if ended.settings.ranks > 1:
        assert ended.code != 2, f"not refused by the launcher: {ended.said}"
    if ended.code:
        answers = ("dhp: infeasible: ", "finite")
        assert any(text in ended.said for text in answers) or not ended.computed, f"a late no: {ended.said}"
