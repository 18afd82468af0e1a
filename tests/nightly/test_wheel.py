"""The wheel of scripts/wheel.sh beside this environment's torch: what it says without the op library, and that `dhp
build-ops` makes one that trains."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from command_line import ROOT
from mixed_media import write_mixed_data
from tiny_run import copied_run, make_tiny


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The programs of a fresh environment with the wheel, which sees the packages of this one."""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    wheels = sorted((ROOT / "build/wheels").glob(f"dhp-*-{tag}-{tag}-*.whl"), key=os.path.getmtime)
    if not wheels or not os.environ.get("DHP_NIGHTLY"):
        pytest.skip("`make nightly PARTS=wheel` makes the wheel, and compiles for minutes")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv/bin"
    subprocess.run([programs / "python", "-m", "pip", "install", "-q", "--no-deps", wheels[-1]], check=True)
    packages = subprocess.run(
        [programs / "python", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(packages, "of_torch.pth").write_text(sysconfig.get_paths()["purelib"])
    return programs


def test_build_ops_compiles_what_trains(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_mixed_data(tmp_path / "data")
    make_tiny(tmp_path / "data/model")
    config = copied_run(tmp_path / "data", tmp_path / "run", steps=2, capacity_tokens=512)
    # Not what this environment's editable install puts before all.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["PATH"] = f"{installed}:{environment['PATH']}"

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*map(str, words)], env=environment, cwd=tmp_path, capture_output=True, text=True)

    train = ("dhp", "train", config, "--ranks", 2)
    done = run(*train)
    assert done.returncode == 2, done
    said = done.stderr.splitlines()
    assert len(said) == 1, said
    assert "is installed without its op library for torch" in said[0]
    assert "`dhp build-ops`" in said[0]

    done = run("dhp", "build-ops", "--compiler", "no-such-compiler")
    assert (done.returncode, done.stdout) == (2, "")
    assert "found no C++ compiler no-such-compiler" in done.stderr
    done = run("dhp", "build-ops")
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    done = run(*train)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/out").is_dir()
