"""A run that is small enough for a test: the smallest checkpoint, settings as a file, a copy of data to train on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dhp.demo.checkpoint import make_tiny_checkpoint
from programs import run_program

TEXT = {"layers": 1, "hidden": 16, "heads": 1, "kv_heads": 1, "head_dim": 16}
VISION = {"vision_layers": 1, "vision_hidden": 16, "deepstack": (0,)}


def make_tiny(folder: Path, **changes: Any) -> Path:
    """A Qwen3-VL checkpoint with one layer of each kind."""
    return make_tiny_checkpoint(folder, **{**TEXT, **VISION, **changes})


def as_toml(settings: Mapping[str, Any]) -> str:
    """A line a setting. What JSON writes of text, numbers and lists of them is TOML too."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def copied_run(data: Path, folder: Path, *ignored: str, **settings: Any) -> Path:
    """A copy of `mixed_data` (conftest.py) but for files `ignored`, and a run.toml, which is returned."""
    shutil.copytree(data, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.pt", "run-*", *ignored))
    own = {
        "model": str(folder / "model"),
        "data": str(folder / "train.jsonl"),
        "output_dir": str(folder / "out"),
        "global_batch_size": 6,
        "timeout_s": 240.0,
    }
    file = folder / "run.toml"
    file.write_text(as_toml({**own, **settings}))
    return file


def metrics_of_run(folder: Path, name: str, *settings: str) -> list[dict[str, Any]]:
    """Of `dhp train` with the run.toml of `folder`, into a folder of this name below it."""
    done = run_program(
        "dhp.train", folder / "run.toml", "--metrics", folder / f"{name}.jsonl",
        "--set", f"output_dir={folder / name}", *settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
