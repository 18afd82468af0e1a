"""The program itself: help, unknown commands, and external ones."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import stat
import tomllib
from pathlib import Path

from command_line import DHP, ROOT, dhp


def test_help_and_version() -> None:
    for words in (["--help"], ["help"]):
        result = dhp(*words)
        assert result.code == 0
        for command in ("plan", "check", "explain", "compare", "cost"):
            assert f"\n  {command} " in result.out
    assert dhp("plan", "--help").code == 0
    assert dhp("help", "plan").out == dhp("plan", "--help").out
    assert dhp("help", "plam").code == 2
    said = re.fullmatch(r"dhp ([0-9.]+)(?: \([\w.-]+\))?\n", dhp("--version").out)
    assert said
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert said[1] == stated == importlib.metadata.version("dhp")
    nothing = dhp()
    assert nothing.code == 2
    assert nothing.out == ""
    assert "Usage" in nothing.err


def test_unknown_command_lists_the_known_ones() -> None:
    result = dhp("plam")
    assert result.code == 2
    assert '"plam" is not a command' in result.err
    assert "plan, check, explain, compare, cost" in result.err
    assert dhp("../plan").code == 2


def write_script(path: Path, text: str) -> None:
    path.write_text(f'#!/bin/sh\necho {text} "$@"\nexit 7\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_external_commands(tmp_path: Path) -> None:
    beside, on_path = tmp_path / "bin", tmp_path / "path"
    beside.mkdir()
    on_path.mkdir()
    binary = beside / "dhp"
    shutil.copy2(DHP, binary)
    path = f"{on_path}:{os.environ['PATH']}"

    write_script(on_path / "dhp-greet", "from PATH")
    result = dhp("greet", "--loud", "a b", binary=binary, path=path)
    assert (result.code, result.out) == (7, "from PATH --loud a b\n")

    write_script(beside / "dhp-greet", "from beside")
    assert dhp("greet", binary=binary, path=path).out == "from beside\n"

    write_script(on_path / "dhp-plan", "shadow")
    assert "Usage" in dhp("plan", "--help", binary=binary, path=path).out

    (on_path / "dhp-notes").write_text("not a program")
    assert dhp("notes", binary=binary, path=path).code == 2

    assert "\n  train " not in dhp("--help", binary=binary).out
    absent = dhp("train", "run.toml", binary=binary, path=str(on_path))
    assert absent.code == 2
    assert '"train" comes with the Python package' in absent.err
    write_script(beside / "dhp-train", "training")
    assert "\n  train " in dhp("--help", binary=binary).out
    assert "greet" in dhp("plam", binary=binary).err
