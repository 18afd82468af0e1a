"""Building an index: interrupted and gone on with, again after changes, by several processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dhp.data.decoding import media
from dhp.data.errors import DataError
from dhp.data.indexing import building, index_pool, scan
from dhp.data.indexing.index import Index, build_index
from dhp.data.indexing.index_command import _Progress
from indexed_data import ROWS, row, write

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the media that are looked at, as they are."""
    names: list[str] = []
    probe = scan.probe_medium

    def noting(ref: Any, processor: Any) -> Any:
        names.append(Path(ref.source if isinstance(ref.source, str) else ref.source[0]).name)
        return probe(ref, processor)

    monkeypatch.setattr(scan, "probe_medium", noting)
    return names


def build(folder: Path, **options: Any) -> Index:
    return build_index(folder / "data.jsonl", folder / "model", **options)


def fresh(folder: Path) -> bytes:
    """What is built where nothing was before."""
    path = folder / "fresh" / "data.index"
    index = build_index(folder / "data.jsonl", folder / "model", path, on_error="skip")
    shutil.rmtree(path.parent)
    return b"".join(index.file.record_bytes(i) for i in range(len(index.samples)))


def records(index: Index) -> bytes:
    return b"".join(index.file.record_bytes(i) for i in range(len(index.samples)))


def interrupt_at(line: int) -> Callable[[int], None]:
    def progress(lines: int) -> None:
        if lines == line:
            raise KeyboardInterrupt

    return progress


# ---- interrupted ----------------------------------------------------------------------------------------------------


def test_who_is_interrupted_goes_on_from_there(folder: Path, probed: list[str]) -> None:
    kept = folder / "data.index.unfinished"
    with pytest.raises(KeyboardInterrupt, match=r"4 samples are kept in .*data\.index\.unfinished; the same command"):
        build(folder, progress=interrupt_at(4))
    assert kept.exists() and not (folder / "data.index").exists()
    probed.clear()
    index = build(folder)
    assert sorted(probed) == ["clip.mp4", "clip.mp4", "large.png", "large.png", "small.png"], "of lines 5 to 7"
    assert not kept.exists()
    assert records(index) == fresh(folder)
    assert [sample.id for sample in index.samples] == [1, 2, 3, 4, 5, 6, 7]


def test_what_is_cut_off_or_damaged_is_read_again(folder: Path, probed: list[str]) -> None:
    kept = folder / "data.index.unfinished"
    with pytest.raises(KeyboardInterrupt):
        build(folder, progress=interrupt_at(7))
    whole, expected = kept.read_bytes(), fresh(folder)
    generator = np.random.default_rng(3)
    for cut in generator.integers(0, len(whole), 12).tolist():
        for text in (whole[:cut], whole[:cut] + bytes([whole[cut] ^ 4]) + whole[cut + 1 :]):
            kept.write_bytes(text)
            assert records(build(folder)) == expected, f"at {cut} of {len(whole)}"
            (folder / "data.index").unlink()
    kept.write_bytes(whole)
    probed.clear()
    build(folder)
    assert probed == []


def test_nothing_to_keep_leaves_nothing(folder: Path) -> None:
    data = write(folder / "data.jsonl", ["{", "{"])
    with pytest.raises(DataError, match="not valid JSON"):
        build_index(data, folder / "model")
    assert not (folder / "data.index.unfinished").exists()


def test_lines_that_are_mended_are_all_that_is_read_again(folder: Path, probed: list[str]) -> None:
    write(folder / "data.jsonl", [*ROWS, row("<image>", images=["media/new.png"])])
    with pytest.raises(DataError, match=r"data\.jsonl:8: .*new\.png: no such file"):
        build(folder)
    shutil.copy(folder / "media" / "small.png", folder / "media" / "new.png")
    probed.clear()
    assert len(build(folder).samples) == 8
    assert probed == ["new.png"]


def test_two_that_build_the_same_index_do_not_meet(folder: Path) -> None:
    expected = fresh(folder)
    with building.unfinished(folder / "data.index", {}) as found:
        assert found.known(1) is None
        assert records(build(folder)) == expected
        (folder / "data.index").unlink()
        assert [f.name for f in folder.glob("*.unfinished")] == ["data.index.unfinished"]
        assert not list(folder.glob(".dhp-*"))


def test_a_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(building.Found, "_append", full)
    with pytest.raises(ValueError, match=r"data\.index\.unfinished cannot be written \(No space left on device\)"):
        build(folder)


# ---- again ----------------------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_read_again(folder: Path, probed: list[str]) -> None:
    build(folder)
    probed.clear()
    write(folder / "data.jsonl", [*ROWS, row("<image>One more?", images=["media/small.png"])])
    index = build(folder)
    assert probed == ["small.png"]
    assert len(index.samples) == 8 and records(index) == fresh(folder)

    levels = np.zeros((40, 90, 3), np.uint8)
    Image.fromarray(levels).save(folder / "media" / "large.png")
    probed.clear()
    index = build(folder)
    assert sorted(probed) == ["clip.mp4", "large.png", "large.png", "large.png", "small.png"], "of lines 3 and 7"
    assert records(index) == fresh(folder)

    write(folder / "data.jsonl", [*ROWS[:1], row("<image>Another?", images=["media/small.png"]), *ROWS[2:]])
    probed.clear()
    index = build(folder)
    assert probed == ["small.png"]
    assert records(index) == fresh(folder)


def test_what_results_depend_on_is_the_same_or_all_is_read_again(folder: Path, probed: list[str]) -> None:
    build(folder)
    every = 9
    for change in (
        lambda: build(folder, verify=True),
        lambda: build(folder, media_roots=[str(folder)]),
        lambda: (folder / "model" / "preprocessor_config.json").write_text(
            (folder / "model" / "preprocessor_config.json").read_text() + "\n"
        ),
    ):
        probed.clear()
        change()
        build(folder)
        assert len(probed) >= every
    probed.clear()
    build(folder)
    assert probed == []


def test_ignored_keys_are_told_again(folder: Path, probed: list[str]) -> None:
    write(folder / "data.jsonl", [{**row("a"), "source": 1}, {**row("b"), "source": 1, "id": 2}])
    first = build(folder).ignored
    assert first == {"id": 1, "source": 2} == build(folder).ignored


def test_limits_hold_for_what_is_taken_over(folder: Path, probed: list[str]) -> None:
    whole = build(folder)
    longest = int(whole.samples.tokens.max())
    probed.clear()
    limited = build(folder, limits=scan.Limits(max_tokens=longest - 1), on_error="skip")
    assert probed == []
    assert [problem.kind for problem in limited.problems] == ["too_long"]
    assert len(limited.samples) == 6
    assert len(build(folder).samples) == 7, "a line that was left out is looked at again"


def test_a_medium_is_opened_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_image, open_clip = media.Image.open, media.read_frames.__globals__["av"].open
    monkeypatch.setattr(media.Image, "open", lambda file, **o: opened.append(Path(file).name) or open_image(file, **o))
    clips = media.read_frames.__globals__["av"]
    monkeypatch.setattr(clips, "open", lambda file, **o: opened.append(Path(file).name) or open_clip(file, **o))
    build(folder, workers=1)
    assert opened.count("small.png") <= 1 and opened.count("large.png") <= 1
    assert opened.count("clip.mp4") <= 2, "its packets are counted, then its first frame is decoded"


# ---- several processes ----------------------------------------------------------------------------------------------


def test_processes_give_the_same_in_order(folder: Path) -> None:
    rows = [json.dumps(ROWS[i % len(ROWS)]) if i % 5 else "{" for i in range(120)]
    write(folder / "data.jsonl", rows)
    alone = build(folder, workers=1, on_error="skip")
    (folder / "data.index").unlink()
    together = build(folder, workers=3, on_error="skip")
    assert records(alone) == records(together)
    assert alone.samples.ids.tolist() == together.samples.ids.tolist()
    assert alone.problems == together.problems


def test_a_process_that_ends_costs_its_line_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_pool, "WORKER", "crashing_worker")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    for name in ("kills", "exits"):
        shutil.copy(folder / "media" / "small.png", folder / "media" / f"{name}.png")
    bad = [row("<image>", images=[f"media/{name}.png"]) for name in ("kills", "exits")]
    write(folder / "data.jsonl", [*ROWS, bad[0], *ROWS, bad[1]])
    index = build(folder, workers=2, on_error="skip")
    assert len(index.samples) == 14
    assert [(problem.id, problem.kind, problem.message) for problem in index.problems] == [
        (8, "unexpected", "ended the process that read it (signal SIGSEGV)"),
        (16, "unexpected", "ended the process that read it (exit code 3)"),
    ]


def test_processes_that_cannot_start_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_pool, "WORKER", "no_such_module")
    with pytest.raises(DataError, match=r"has ended before its first \(exit code 1\); --workers 1 needs none"):
        build(folder, workers=2)


def test_processes_end_with_who_started_them(folder: Path) -> None:
    """Killed: nothing is left running, and what was done is gone on with."""
    rows = [json.dumps(row(f"<image>{i}?", images=["media/small.png"])) for i in range(4000)]
    write(folder / "data.jsonl", rows)
    code = "import sys; from dhp.run.commands import index; sys.exit(index())"
    command = [
        sys.executable,
        "-c",
        code,
        str(folder / "data.jsonl"),
        "--model",
        str(folder / "model"),
        "--workers",
        "2",
    ]
    started = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    kept = folder / "data.index.unfinished"
    until = time.monotonic() + 300
    while not (kept.exists() and kept.stat().st_size > 20_000) and time.monotonic() < until:
        assert started.poll() is None
        time.sleep(0.05)
    started.kill()
    started.wait()
    while processes_of(started.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not processes_of(started.pid)
    done: list[int] = []
    index = build(folder, workers=1, progress=done.append)
    assert len(index.samples) == 4000


def processes_of(session: int) -> list[str]:
    """Command lines of what lives in a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) == session and "State:\tZ" not in (folder / "status").read_text():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_progress_says_how_fast_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 30.0, 60.0, 61.0, 7260.0])
    progress = _Progress(terminal=False, now=lambda: next(now))
    for lines, share in ((10, 0.01), (1200, 0.25), (1300, 0.26), (100_000, 0.5)):
        progress.show(lines, share)
    assert capsys.readouterr().err.splitlines() == [
        "1,200 lines, 20 a second, 25% of the file, 3 min left",
        "100,000 lines, 14 a second, 50% of the file, 2.0 h left",
    ]
