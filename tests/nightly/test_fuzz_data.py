"""Odd lines in a data file: each is read or named, none ends the index, and what was indexed can be trained on."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import odd_media
import pytest
from budget import FUZZ_INPUTS, SEED, fuzz
from hypothesis import given, seed
from hypothesis import strategies as st
from in_process import at_most
from odd_rows import GOOD, Line, lines
from odd_values import as_json

from dhp._core import Task
from dhp.data import index as indexing
from dhp.dataset import Dataset
from dhp.demo.checkpoint import make_tiny_checkpoint

TINY = {"layers": 1, "hidden": 16, "heads": 1, "kv_heads": 1, "head_dim": 16, "vision_layers": 1, "vision_hidden": 16}
LINES = 10  # inputs a file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Media of all kinds, and model/."""
    folder = tmp_path_factory.mktemp("odd")
    odd_media.make(folder)
    make_tiny_checkpoint(folder / "model", deepstack=(0,), **TINY)
    yield folder


def dhp_index(*arguments: str) -> tuple[int, str]:
    """Exit code of `dhp index`, and what it says on standard error. Any exception but argparse's exit is a fault."""
    said = io.StringIO()
    with at_most(120), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = indexing.main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return code, said.getvalue()


def check_said(code: int, said: str) -> None:
    assert code in (0, 1, 2), (code, said)
    assert "Traceback" not in said
    assert not any(ord(c) < 32 and c not in "\n\t" for c in said), f"steers the terminal: {said!r}"
    assert all(len(line) < 1200 for line in said.splitlines()), f"too long to read: {said[:3000]!r}"


@seed(SEED)
@fuzz(FUZZ_INPUTS // LINES)
@given(st.lists(lines(), min_size=LINES, max_size=LINES), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_odd_lines_are_read_or_named(folder: Path, odd: list[Line], end: bytes, verify: bool) -> None:
    rows = [as_json(row).encode() for row in GOOD]
    rows[-1:-1] = [line.written(folder, number) for number, line in enumerate(odd)]
    data, out = folder / "data.jsonl", folder / "x.idx"
    data.write_bytes(b"".join(row + end for row in rows))
    out.unlink(missing_ok=True)
    skip = ["--on-error", "skip"]
    code, said = dhp_index(str(data), "--model", str(folder / "model"), "-o", str(out), *skip, *["--verify"] * verify)
    check_said(code, said)
    assert code == 0, f"one odd line ended the index: {said}"
    index = indexing.load_index(out)
    used, left_out = {s.id for s in index.samples}, {p.id for p in index.problems}
    blank = {number for number, row in enumerate(rows, start=1) if not row.strip()}
    assert used | left_out | blank == set(range(1, len(rows) + 1)), said
    assert not used & left_out
    unexpected = [problem.message for problem in index.problems if problem.kind == "unexpected"]
    assert not unexpected, f"nobody thought of it: {unexpected}"
    good = {1, 2, len(rows)}
    assert good <= used, f"a good line was left out: {said}"
    named = [f"{data}:{i}:" in said for i in left_out]
    assert all(named), f"left out but not named: {said}"
    trains_on(folder, data, out)
    if left_out:
        out.unlink()
        code, said = dhp_index(str(data), "--model", str(folder / "model"), "-o", str(out))
        check_said(code, said)
        assert code == 2 and not out.exists(), (code, said)


def trains_on(folder: Path, data: Path, out: Path) -> None:
    """What the index counts is what a rank reads; a picture that cannot be decoded is noted, nothing is raised."""
    dataset = Dataset(data, folder / "model", out, on_error="skip", on_malformed="skip")
    for sample in dataset.samples:
        failed: dict[int, str] = {}
        share = dataset.read(Task(0, [0], [sample.id]), 0, failed)
        assert len(share.encoded[0].input_ids) == sample.tokens
        assert share.encoded[0].label_tokens == sample.label_tokens > 0
        assert share.pixels.shape[0] == sample.patches
        assert set(failed) <= {sample.id}
