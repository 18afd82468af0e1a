"""What commands say where an extra or the op library is missing; that pyproject.toml, which names what extras need, and
what checks it agree."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import ROOT
from dhp.run import build_ops, commands, ops

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[ ;]", one, maxsplit=1)[0].lower() for one in requirements}


def test_extras_are_those_of_pyproject() -> None:
    modules_of = importlib.metadata.packages_distributions()
    for extra, modules in commands.EXTRAS.items():
        packages = {modules_of[module][0].lower() for module in modules}
        assert packages == names(PROJECT["project"]["optional-dependencies"][extra])
    assert set(commands.EXTRAS) == set(PROJECT["project"]["optional-dependencies"])
    assert names(PROJECT["project"]["dependencies"]) == {"numpy"}


def test_versions_are_pinned_of_all_that_is_asked_for() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = names([line for line in lines if line and not line.startswith("#")])
    asked = [*PROJECT["build-system"]["requires"], *PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        asked += extra
    assert pinned == names(asked) | {"ninja"}


@pytest.mark.parametrize(
    ("command", "lacking", "said"),
    [
        ("train", {"av"}, 'dhp train needs av: pip install "dhp[train]"'),
        ("index", {"torch", "PIL"}, 'dhp index needs torch, PIL: pip install torch "dhp[train]"'),
        ("calibrate", {"torch"}, 'dhp calibrate needs torch: pip install torch "dhp[train]"'),
        ("report", {"plotly", "torch"}, 'dhp report needs plotly: pip install "dhp[report]"'),
        ("build-ops", {"torch", "av"}, "dhp build-ops needs torch: pip install torch"),
    ],
)
def test_missing_modules(monkeypatch: pytest.MonkeyPatch, command: str, lacking: set[str], said: str) -> None:
    assert commands.missing(command) == ""
    find = importlib.util.find_spec

    def find_spec(name: str) -> Any:
        return None if name in lacking else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert commands.missing(command) == f"dhp: error: {said}"


def test_no_op_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DHP_TORCH_LIBRARY", raising=False)
    monkeypatch.setattr(ops, "LIBRARY_NAME", "libnothing.so")
    with pytest.raises(
        ImportError, match=f"without its op library for torch {re.escape(torch.__version__)}: `dhp build"
    ):
        ops.library_path()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"\x7fELF dhp_torch of dhp 0.0.1 built for torch 9.9.9\0",
            r"built of dhp 0\.0\.1 for torch 9\.9\.9, but here",
        ),
        (b"\x7fELF", "is not an op library of this dhp: `dhp build-ops` makes one"),
    ],
)
def test_op_libraries_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "library.so"
    file.write_bytes(content)
    monkeypatch.setenv("DHP_TORCH_LIBRARY", str(file))
    monkeypatch.setattr(ops, "_loaded", None)
    with pytest.raises(ImportError, match=said):
        ops.load()


def test_build_ops_says_what_it_lacks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = str(tmp_path / "ops.so")
    assert build_ops.main(["-o", output, "--jobs", "0"]) == 2
    assert capsys.readouterr().err == "dhp: error: --jobs: found 0, expected at least 1\n"
    assert build_ops.main(["-o", output, "--compiler", "no-such-compiler"]) == 2
    assert "found no C++ compiler no-such-compiler; install g++ 12 or later" in capsys.readouterr().err
    assert build_ops.main(["-o", output, "--compiler", ""]) == 2
    assert "found no C++ compiler ; install" in capsys.readouterr().err
    assert build_ops.main(["-o", output, "--compiler", "false"]) == 1
    assert capsys.readouterr().err.endswith("dhp: error: dhp build-ops: the compiler refuses; see above\n")
    assert not list(tmp_path.iterdir())


def test_build_ops_takes_a_compiler_of_several_words_and_ends_on_interrupt(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "env SAID=1 false")
    assert build_ops.main(["-o", str(tmp_path / "ops.so"), "--jobs", "1"]) == 1
    assert capsys.readouterr().err.startswith("env SAID=1 false -std=c++20 ")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build_ops.subprocess, "run", interrupted)
    assert build_ops.main(["-o", str(tmp_path / "ops.so"), "--jobs", "1"]) == 130
    assert capsys.readouterr().err == "dhp build-ops: interrupted; nothing was written\n"
    assert not list(tmp_path.iterdir())
