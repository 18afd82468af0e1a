"""What `make` builds again: run in a folder that holds the Makefile and one file of each kind."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
BUILT = "build/release/installed"


def embedded_folders() -> list[str]:
    """The folders that cmake/presets.cmake reads."""
    text = (REPOSITORY / "cmake/presets.cmake").read_text()
    kinds = re.search(r"foreach\(kind IN ITEMS ([a-z ]+)\)", text)
    assert kinds is not None
    return [f"data/{kind}s" for kind in kinds[1].split()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Built a minute ago, of sources that are older."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("include/a.h", "src/base/a.cpp", "cmake/a.cmake", "CMakeLists.txt", "pyproject.toml", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for folder in embedded_folders():
        assert (REPOSITORY / folder).is_dir()
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.json").touch()
    for name in ("build/venv/ready", BUILT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    built_s = (tmp_path / BUILT).stat().st_mtime
    for path in [*tmp_path.rglob("*"), tmp_path]:
        old = path != tmp_path / BUILT
        os.utime(path, (built_s - 120 * old - 60,) * 2)
    return tmp_path


def builds(tree: Path) -> bool:
    printed = subprocess.run(
        ["make", "-n", BUILT, "TORCH=system"], cwd=tree, capture_output=True, text=True, check=True
    ).stdout
    return "pip install" in printed


def test_nothing_is_built_again_without_a_change(tree: Path) -> None:
    (tree / "README.md").touch()
    assert not builds(tree)


@pytest.mark.parametrize(
    "name", ["include/a.h", "src/base/a.cpp", "cmake/a.cmake", "CMakeLists.txt", "pyproject.toml", *embedded_folders()]
)
def test_a_changed_source_is_built_again(tree: Path, name: str) -> None:
    path = tree / name
    (path / "a.json" if path.is_dir() else path).touch()
    assert builds(tree)


@pytest.mark.parametrize("folder", embedded_folders())
def test_a_source_that_is_gone_is_noticed(tree: Path, folder: str) -> None:
    (tree / folder / "a.json").unlink()
    assert builds(tree)


@pytest.mark.parametrize("demo", ["build/demo", "build/other"])
def test_the_demo_runs_a_second_time_and_keeps_the_run_before(tree: Path, demo: str) -> None:
    """A run refuses the folder of an earlier one, and an index that another version of dhp wrote."""
    settings = tomllib.loads((REPOSITORY / "examples/demo.toml").read_text())
    assert {settings[key] for key in ("model", "data", "output_dir")} == {
        f"build/demo/{name}" for name in ("model", "train.jsonl", "run")
    }
    programs = {"scripts/setup.sh": "", "build/venv/bin/python": "", "build/venv/bin/dhp": f"echo $@; mkdir {demo}/run"}
    for name, text in programs.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"#!/bin/sh\n{text}\n")
        (tree / name).chmod(0o755)
    (tree / "build/demo/run/step-001000").mkdir(parents=True)
    (tree / demo).mkdir(exist_ok=True)
    (tree / demo / "train.index").touch()
    done = subprocess.run(["make", "demo", f"DEMO={demo}"], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    given = f"train examples/demo.toml --set model={demo}/model data={demo}/train.jsonl output_dir={demo}/run"
    assert given in done.stdout.splitlines()
    assert not (tree / demo / "train.index").exists()
    kept = list((tree / "build/demo").glob("run*/step-001000"))
    assert len(kept) == 1
    assert (kept[0].parent.name == "run") == (demo == "build/other")
    assert (f"the run before is now build/demo/{kept[0].parent.name}" in done.stdout) == (demo == "build/demo")


@pytest.mark.parametrize("asked", [None, "ON"])
def test_warnings_are_errors_only_where_asked_for(tmp_path: Path, asked: str | None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DHP_WERROR"}
    environment |= {"DHP_WERROR": asked} if asked else {}
    words = ["cmake", "-S", str(REPOSITORY), "-B", str(tmp_path), "-DDHP_TESTS=OFF", "-DDHP_BENCH=OFF"]
    subprocess.run(words, env=environment, check=True, capture_output=True)
    commands = json.loads((tmp_path / "compile_commands.json").read_text())
    assert {"-Werror" in command["command"].split() for command in commands} == {asked is not None}
