"""The script for the first hour on a GPU (docs/gpu.md), on the late device: nothing but the hardware is new then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench_script import BENCH
from dhp.run import ops

ALL = float(os.environ.get("DHP_TEST_SHARE", 1)) >= 1
QUICK = ["library", "flash", "ring", "group", "packed", "alone"]


def run(tmp_path: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], dict[str, dict]]:
    environment = {**os.environ, "DEVICE": "late", "PYTHON": sys.executable, "DHP_TORCH_LIBRARY": str(ops.check())}
    command = [BENCH / "gpu" / "run.sh", "--out", tmp_path, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert (tmp_path / "result.json").exists(), done.stdout + done.stderr
    return done, json.loads((tmp_path / "result.json").read_text())["steps"]


def test_every_step_runs(tmp_path: Path) -> None:
    done, steps = run(tmp_path, *([] if ALL else ["--steps", *QUICK]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: step["end"] for name, step in steps.items() if step["end"] != "ok"} == {}
    assert list(steps) == QUICK or len(steps) == 11
    if not ALL:
        return
    assert [line.split(":")[0] for line in steps["waits"]["found"]] == ["1 in a step of 1 tasks"] * 2
    rows = json.loads((tmp_path / "replay.json").read_text())
    assert [row["planner"] for row in rows] == ["static", "megatron-dynamic", "paper", "free"]
    for row in rows:
        longest = max(task["measured_s"] for task in row["tasks"])
        assert 0.0 < longest <= row["measured_s"] <= sum(task["measured_s"] for task in row["tasks"]) * 1.001
        assert row["widest"] > 1


def test_a_step_that_fails_is_reported_and_the_next_one_runs(tmp_path: Path) -> None:
    done, steps = run(tmp_path, "--steps", "replay", "library")  # without the cost that calibrate would have left
    assert (done.returncode, {name: step["end"] for name, step in steps.items()}) == (
        1,
        {"library": "ok", "replay": "FAILED"},
    )
    assert "there is no cost: calibrate failed" in done.stdout


@pytest.mark.parametrize("words", [["--steps", "flush"]])
def test_an_unknown_step_is_named(tmp_path: Path, words: list[str]) -> None:
    environment = {**os.environ, "DEVICE": "late", "PYTHON": sys.executable}
    command = [BENCH / "gpu" / "run.sh", "--out", tmp_path, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "invalid choice: 'flush'" in done.stderr
