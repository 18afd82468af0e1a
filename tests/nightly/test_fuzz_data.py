"""Odd lines in a data file: each is read or named, none ends the index, and what was indexed can be trained on."""

from __future__ import annotations

import contextlib
import io
import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import odd_media
import pytest
from budget import FUZZ_INPUTS, NIGHTLY, SEED, fuzz
from hypothesis import given, seed
from hypothesis import strategies as st
from in_process import at_most
from odd_rows import FORMS, GOOD, Line, lines
from odd_values import as_json, changed, places
from said import FORGERIES, check_shown

from dhp._core import Task
from dhp.data.dataset import Dataset
from dhp.data.indexing import index as indexing
from dhp.data.indexing import index_command
from dhp.data.indexing.scan import SHOWN
from tiny_run import make_tiny

LINES = 10  # inputs a file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Media of all kinds, and model/."""
    folder = tmp_path_factory.mktemp("odd")
    odd_media.make(folder)
    make_tiny(folder / "model")
    yield folder


def dhp_index(*arguments: str) -> tuple[int, str]:
    """Exit code of `dhp index`, and what it says on standard error. Any exception but argparse's exit is a fault."""
    said = io.StringIO()
    with at_most(120), contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = index_command.main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return code, said.getvalue()


def check_said(code: int, said: str, data: Path, left_out: set[int]) -> None:
    """Nothing but a line for each line of the data that is left out, under a head; no other text is a line."""
    assert code in (0, 1, 2), (code, said)
    check_shown(said)
    head = re.escape("dhp index: error: ") if code else rf"skipped {len(left_out)}:\n"
    body = "\n".join(rf"{re.escape(str(data))}:{number}: .+" for number in sorted(left_out))
    wanted = rf"{head}{body}\n" if left_out else ""
    assert re.fullmatch(wanted, said), f"lines that are not dhp's own: {said}"


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
    check_said(code, said, data, left_out)
    trains_on(folder, data, out)
    if left_out:
        out.unlink()
        code, said = dhp_index(str(data), "--model", str(folder / "model"), "-o", str(out), *["--verify"] * verify)
        check_said(code, said, data, left_out)
        assert code == 2 and not out.exists(), (code, said)


def forged_lines() -> list[str]:
    """Each forgery at each place of each form: as a value, as a key, and added to what is there."""
    found = set()
    for form, forgery in itertools.product(FORMS, FORGERIES):
        for place in places(form)[1:]:

            def put(holder: Any, key: Any, forgery: str = forgery) -> None:
                holder[key] = forgery

            def rename(holder: Any, key: Any, forgery: str = forgery) -> None:
                if isinstance(holder, dict):
                    holder[forgery] = holder.pop(key)
                else:
                    holder[key] = {forgery: holder[key]}

            def add(holder: Any, key: Any, forgery: str = forgery) -> None:
                if isinstance(holder[key], dict):
                    holder[key][forgery] = forgery
                elif isinstance(holder[key], list):
                    holder[key].append(forgery)
                else:
                    holder[key] = f"{holder[key]}{forgery}"

            found |= {as_json(changed(form, place, change)) for change in (put, rename, add)}
    return sorted(found)


def test_no_text_of_a_line_passes_for_a_message(folder: Path) -> None:
    """Not in what is left out, nor among the keys that mean nothing."""
    forged = forged_lines()
    random.Random(SEED).shuffle(forged)
    forged = forged[: FUZZ_INPUTS if NIGHTLY else FUZZ_INPUTS // 2]
    data, out = folder / "data.jsonl", folder / "x.idx"
    for first in range(0, len(forged), SHOWN):
        rows = [as_json(GOOD[0]), *forged[first : first + SHOWN]]
        data.write_text("".join(row + "\n" for row in rows))
        out.unlink(missing_ok=True)
        skip = ["--on-error", "skip"]
        code, said = dhp_index(str(data), "--model", str(folder / "model"), "-o", str(out), *skip)
        assert code == 0, said
        index = indexing.load_index(out)
        check_said(code, said, data, {problem.id for problem in index.problems})
        check_shown(index_command.summary(index))


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
