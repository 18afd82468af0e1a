"""`dhp index`: what the command says, its exit codes, and interrupts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dhp.data.indexing.index import (
    build_index,
    load_index,
)
from dhp.data.indexing.index_command import main, summary
from indexed_data import ROWS, row, write

# ---- the command ----------------------------------------------------------------------------------------------------


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(folder / "data.jsonl")
    assert main([data, "--model", str(folder / "model")]) == 0
    out, err = capsys.readouterr()
    index = load_index(folder / "data.index")
    assert out == f"{summary(index)}\nwrote {index.path}\n"
    assert "7 samples, 5 pictures, 4 clips" in out
    assert err == ""


def test_command_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(folder / "bad.jsonl", [*ROWS, "{"])
    options = ["--model", str(folder / "model"), "--on-error", "skip", "--output-format", "json", "-o"]
    assert main([str(data), *options, str(folder / "i.jsonl")]) == 0
    result = json.loads(capsys.readouterr().out)
    index = load_index(folder / "i.jsonl")
    assert result["index"] == str(folder / "i.jsonl")
    assert result["samples"] == 7
    assert result["tokens"]["total"] == sum(s.tokens for s in index.samples)
    assert result["patches"] == sum(s.patches for s in index.samples)
    assert [p["id"] for p in result["skipped"]] == [8]


def test_histogram_counts_every_sample(made: Path, tmp_path: Path) -> None:
    index = build_index(made / "data.jsonl", made / "model", tmp_path / "i.jsonl")
    counted = [line.split() for line in summary(index).splitlines() if line.startswith("   ")]
    assert sum(int(words[3]) for words in counted) == len(index.samples)
    for low, _, high, count, *_ in counted:
        inside = [s for s in index.samples if int(low.replace(",", "")) <= s.tokens <= int(high.replace(",", ""))]
        assert len(inside) == int(count)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data.jsonl", "--model", "model", "--max-tokens", "50"], 1, "fits"),
        (["data.jsonl", "--model", "model", "--max-degree", "2", "--capacity-tokens", "40"], 1, "degree >= "),
        (["data.jsonl", "--model", "model", "--max-tokens", "50", "--on-error", "skip"], 0, "skipped"),
        (["data.jsonl", "--model", "media"], 2, "no config.json"),
        (["data.jsonl", "--model", "mamba"], 2, 'model_type "mamba" is not supported; supported: deepseek_v3, '),
        (["none.jsonl", "--model", "model"], 2, "none.jsonl: cannot be read"),
        (["lost.jsonl", "--model", "model"], 2, "lost.jsonl:1: "),
    ],
)
def test_exit_codes(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    (folder / "mamba").mkdir()
    (folder / "mamba" / "config.json").write_text('{"model_type": "mamba"}')
    write(folder / "lost.jsonl", [row("<image>", images=["lost.png"])])
    if code == 1 and "--max-tokens" in arguments:
        message = "tokens, more than 50"
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert message in err
    assert (folder / "data.index").exists() == (code == 0)
    assert bool(out) == (code == 0)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["d.jsonl"],
        ["d.jsonl", "--model", "m", "--max-tokens", "0"],
        ["d.jsonl", "--model", "m", "--max-tokens", "many"],
        ["d.jsonl", "--model", "m", "--max-degree", "4"],
        ["d.jsonl", "--model", "m", "--workers", "257"],
        ["d.jsonl", "--model", "m", "--on-error", "hope"],
    ],
)
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "dhp index: error:" in capsys.readouterr().err


def test_a_long_line_is_malformed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(folder / "d.jsonl", [ROWS[0], row("x" * 2000), ROWS[1]])
    options = ["--model", str(folder / "model"), "--max-line-bytes", "1000"]
    assert main([str(data), *options]) == 2
    assert f"{data}:2: is longer than 1,000 bytes; shorten it, or raise max_line_bytes" in capsys.readouterr().err
    assert main([str(data), *options, "--on-malformed", "skip"]) == 0
    assert len(load_index(folder / "d.index").samples) == 2


# ---- writing --------------------------------------------------------------------------------------------------------


def test_an_index_that_cannot_be_written_is_refused_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dhp.data.indexing import index

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the data was read")

    monkeypatch.setattr(index, "scan", never)
    (folder / "file").touch()
    for output in (folder / "media", folder / "file" / "i.jsonl"):
        assert main([str(folder / "data.jsonl"), "--model", str(folder / "model"), "-o", str(output)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"dhp index: error: the index (-o of dhp index, `index` of dhp train): {output} cannot")
        assert said.count("\n") == 1
    data = str(folder / "data.jsonl")
    assert main([data, "--model", str(folder / "model"), "-o", data]) == 2
    assert "is the data itself; give another path" in capsys.readouterr().err
    assert main([str(folder / "typo" / "data.jsonl"), "--model", str(folder / "model")]) == 2
    assert not (folder / "typo").exists()


WHILE_READING = """
from dhp.data.indexing import scan
def probe(*_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)
scan.probe_medium = probe
"""


WHILE_IMPORTING = """
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("when", [WHILE_READING, WHILE_IMPORTING], ids=["reading", "importing"])
def test_interrupt(folder: Path, when: str) -> None:
    """Ctrl-C ends the command with 130, one line, and no index."""
    code = f"import os, signal, sys, time\n{when}\nfrom dhp.run.commands import index\nsys.exit(index())"
    command = [sys.executable, "-c", code, str(folder / "data.jsonl"), "--model", str(folder / "model")]
    done = subprocess.run(command, capture_output=True, text=True)
    kept = r"\d samples are kept in .*data\.index\.unfinished; the same command goes on from there"
    assert re.fullmatch(rf"dhp index: interrupted; (nothing was written|{kept})\n", done.stderr)
    assert done.returncode == 130
    assert not (folder / "data.index").exists()
