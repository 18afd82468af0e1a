"""What README and docs show of the demo and of measurements: the same losses, the same lines but for the numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from budget import nightly

import console
from command_line import ROOT

STEP = re.compile(r"step +(\d+)/20 \| loss ([\d.]+) \| .*")


def run(command: str, folder: Path) -> list[str]:
    """As a shell in the repository, but for where its files are."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    command = re.sub(r"\b(bench|examples)/", rf"{ROOT}/\1/", command)
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run("python -m dhp.demo build/demo", folder)
    return folder


@nightly
def test_the_demo_learns_as_the_readme_shows(demo: Path) -> None:
    told = dict(STEP.findall((ROOT / "README.md").read_text()))
    assert len(told) >= 4
    printed = run("dhp train examples/demo.toml", demo)
    losses = dict(STEP.findall("\n".join(printed)))
    assert len(losses) == 20
    assert {step: losses[step] for step in told} == told
    assert printed[0] in (ROOT / "README.md").read_text()
    assert printed[-1] == "saved build/demo/run/step-000020"


@nightly
def test_measurements_print_the_lines_that_are_shown(demo: Path) -> None:
    for shown in console.shown_in("docs/calibration.md"):
        printed = run(shown.command, demo)
        assert first_words(printed) == first_words(shown.lines), shown.command


def first_words(lines: list[str]) -> list[str]:
    """Their order is by what was measured."""
    return sorted(console.masked(line, measured=True).split(" ")[0] for line in lines)
