"""`dhp train --ranks 2` on a device: the launcher starts each rank as a program of its own, which finds its device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tiny_run import copied_run, metrics_of_run

ON_LATE = Path(__file__).parents[2] / "nightly" / "on_late.py"
STEPS = 2


def ranks_of(launcher: int) -> set[str]:
    """RANK of its children that were started with one; a forked child's environment is its parent's."""
    found = set()
    for child in psutil.Process(launcher).children():
        try:
            found.add(child.environ().get("RANK", ""))
        except psutil.Error:  # it has just ended
            continue
    return found - {""}


def test_local_ranks_are_programs_with_a_device_each(mixed_data: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "late.jsonl"
    run = copied_run(mixed_data, tmp_path, ranks=2, steps=STEPS, capacity_tokens=200, precision="bf16")
    command = [sys.executable, str(ON_LATE), str(run), "--metrics", str(metrics)]
    with open(tmp_path / "said", "w+") as said:
        launcher = subprocess.Popen(
            command, stdout=said, stderr=said, cwd=tmp_path, env={**os.environ, "LATE": "eager eager"}
        )
        seen: set[str] = set()
        while launcher.poll() is None:
            seen |= ranks_of(launcher.pid)
            time.sleep(0.05)
        said.seek(0)
        text = said.read()
    assert launcher.returncode == 0, text
    assert seen == {"0", "1"}
    losses = [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]
    expected = [step["loss"] for step in metrics_of_run(tmp_path, "cpu", "device=cpu")]
    assert len(losses) == STEPS
    assert losses == pytest.approx(expected, rel=1e-2)  # in 16 bits, by other kernels


def test_more_ranks_than_devices_are_refused_before_any_starts(mixed_data: Path, tmp_path: Path) -> None:
    run = copied_run(mixed_data, tmp_path, ranks=2, steps=1)
    done = subprocess.run(
        [sys.executable, str(ON_LATE), str(run), "--ranks", "99"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert "99 ranks were to start here, but there are" in done.stderr
