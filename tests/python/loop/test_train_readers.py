"""`dhp train` with data_workers and frame_cache: the same losses, gone on with in the middle; a lost process."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dhp.data.decoding.frame_cache import LOCK
from programs import run_program
from tiny_run import copied_run, metrics_of_run

READERS = "data_workers=1"
STEADY = ("learning_rate=1e-3", "min_learning_rate=1e-3")  # whatever the number of steps


@pytest.fixture
def folder(mixed_data: Path, tmp_path: Path) -> Path:
    copied_run(mixed_data, tmp_path, ranks=2, capacity_tokens=1000, save_steps=2)
    return tmp_path


def trained(folder: Path, name: str, *settings: str) -> list[dict[str, Any]]:
    metrics = metrics_of_run(folder, name, *STEADY, *settings)
    assert not workers(), "ended with the run"
    return metrics


def workers() -> list[int]:
    """Processes that decode for anybody's run below this folder's tests."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            environment = file.with_name("environ").read_text()
            if (
                "dhp.data.decoding.media_worker" in file.read_text()
                and f"DHP_TEST_READERS={os.getpid()}" in environment
            ):
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DHP_TEST_READERS", str(os.getpid()))


def test_the_same_losses_with_a_cache_and_gone_on_with(folder: Path) -> None:
    """Of 20 samples in batches of 6: the second epoch begins with step 4."""
    plain = trained(folder, "plain", "steps=5")
    cache = f"frame_cache={folder / 'cache'}"
    trained(folder, "readers", "steps=3", READERS, cache)
    for media in folder.glob("clip*.mp4"):  # another content behind the same size and time: only the cache has the old
        about = media.stat()
        media.write_bytes(b"x" * about.st_size)
        os.utime(media, ns=(about.st_atime_ns, about.st_mtime_ns))
    readers = trained(folder, "readers", "steps=5", "resume=true", READERS, cache)
    assert [step["loss"] for step in readers] == [step["loss"] for step in plain]
    assert not any(step["dropped"] for step in readers), "each clip that it has read once is in the cache"
    kept = sum(file.stat().st_size for file in (folder / "cache").glob("*/*"))
    assert int((folder / "cache" / LOCK).read_text()) == kept > 0


def test_a_lost_process_ends_the_run_and_is_named(folder: Path) -> None:
    metrics = folder / "steps.jsonl"
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until and not killed:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= 2 and (found := workers()):
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    done = run_program("dhp.train", folder / "run.toml", "--metrics", metrics, "--set", READERS, "steps=3000")
    killer.join()
    assert done.returncode == 1, done.stderr
    first = done.stderr.splitlines()[0]
    assert f"data worker 1 (process {killed[0]}) was ended by signal SIGKILL while it read sample " in first
    assert "reading" in first and str(folder) in first, first
    assert not workers()


def test_a_cache_that_cannot_be_written_is_named_before_ranks_start(folder: Path) -> None:
    (folder / "file").write_text("x")
    done = run_program("dhp.train", folder / "run.toml", "--set", f"frame_cache={folder / 'file'}")
    assert done.returncode == 2
    assert done.stderr == (
        f"dhp: error: frame_cache: {folder / 'file'} cannot be written (File exists); give another folder\n"
    )
