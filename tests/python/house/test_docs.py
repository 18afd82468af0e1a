"""The console blocks of the documentation say what the commands print today, and the example of a loop runs."""

import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import console
import dhp
from command_line import DHP, ROOT
from dhp.settings.config import TrainConfig
from ranks import context


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository's root that has the cases, and the cluster file that docs/simulator.md tells of."""
    root = tmp_path_factory.mktemp("root")
    cases = shutil.copytree(ROOT / "bench" / "cases", root / "bench" / "cases")
    cluster = json.loads((cases / "cluster_910b_8x8.json").read_text())
    (cases / "nic.json").write_text(json.dumps(cluster | {"node_bandwidth_bytes_per_s": 2.5e10}))
    return root


FILES = ["README.md", *(f"docs/{name}.md" for name in ("costs", "explain", "plan_quality", "simulator", "tokens"))]


@pytest.mark.parametrize("file", FILES)
def test_console_blocks_are_what_commands_print(place: Path, file: str) -> None:
    folder, compared = place, 0
    environment = os.environ | {"PATH": f"{Path(DHP).parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    for shown in console.shown_in(file):
        command = shown.command
        if cd := re.fullmatch(r"cd (\S+)", command):
            folder = place / cd[1]
        if "dhp " not in command:
            continue
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        console.check(shown, done.stdout.splitlines())
        compared += 1
    assert compared >= 1


def test_the_site_has_every_page_and_every_name() -> None:
    docs = ROOT / "docs"
    pages = {file.stem for file in docs.glob("*.md")} - {"index"}
    listed = re.findall(r"^[a-z_]+$", (docs / "index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(pages)
    names = re.findall(r":: dhp\.(\w+)$", (docs / "python_api.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(dhp.__all__)
    headers = re.findall(r"{doxygenfile} (\S+)$", (docs / "cpp_api.md").read_text(), re.MULTILINE)
    assert sorted(headers) == sorted(file.name for file in (ROOT / "include/dhp").glob("*.h") if file.name != "dhp.h")
    shown = re.findall(r"{command-help} (\S+)$", (docs / "commands.md").read_text(), re.MULTILINE)
    said = subprocess.run([DHP, "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert sorted(shown) == sorted(re.findall(r"^  ([a-z][a-z-]+) {3,}", said, re.MULTILINE))


def _example(name: str, folder: str, rank: int, ranks: int, port: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ.update(MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    os.chdir(folder)
    sys.stdout = (Path(folder) / f"out-{ranks}-{rank}").open("w")
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    sys.stdout.close()


def losses_of(name: str, folder: Path, ranks: int) -> list[float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [context.Process(target=_example, args=(name, str(folder), rank, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
    assert [process.exitcode for process in processes] == [0] * ranks
    lines = (folder / f"out-{ranks}-0").read_text().splitlines()
    assert all((folder / f"out-{ranks}-{rank}").read_text() == "" for rank in range(1, ranks))
    found = [re.fullmatch(r"step (\d+): loss ([\d.]+), groups of \[[\d, ]+\]", line) for line in lines]
    assert all(found), lines
    return [float(match[2]) for match in found if match]


@pytest.mark.parametrize("name", ["own_loop.py", "join_existing_group.py"])
def test_examples_of_loops_learn_the_same_on_one_rank_and_two(name: str, mixed_data: Path, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/demo").symlink_to(mixed_data)
    alone, shared = losses_of(name, tmp_path, 1), losses_of(name, tmp_path, 2)
    assert len(alone) == 10
    assert shared == pytest.approx(alone, abs=2e-4), "printed with four digits"
    assert alone[-1] < alone[0]


def test_every_setting_has_a_row() -> None:
    section = (ROOT / "docs" / "training.md").read_text().split("## Settings\n")[1].split("\n## ")[0]
    heads = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")]
    rows = {name for head in heads for name in re.findall(r"`\[?(\w+)\]?`", head)}
    assert rows == {setting.name for setting in fields(TrainConfig)}
