"""Media decoded by processes: the same as without them, in order, bounded; each of their ends is named, and none is
left."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from dhp._core import Batch, Cluster, Link, Plan, read_cost_model, try_plan
from dhp.data.dataset import Dataset, Share
from dhp.data.decoding import media_pool
from dhp.data.decoding.media_pool import WorkerError
from indexed_data import ROWS, row, write

SUPPORT = Path(__file__).parents[2] / "support"
CASES = Path(__file__).parents[3] / "bench" / "cases"
LINK = Link(bandwidth_bytes_per_s=2e9, latency_s=5e-5)
CLUSTER = Cluster(nodes=1, ranks_per_node=2, memory_bytes=6.4e10, intra_node=LINK, inter_node=LINK)
SOME = [one for one in ROWS if "images" in one or "videos" in one]


def plan_of(batch: Batch) -> Plan:
    """For two ranks, with groups of both: so each reads a part of clips."""
    cost = read_cost_model(str(CASES / "cost_qwen3-vl-2b.json"))
    plan = try_plan(batch, CLUSTER, cost, planner="static:2", tighter_bound=False)
    assert isinstance(plan, Plan)
    return plan


def opened(folder: Path, rows: list[dict[str, Any]] = SOME, **options: Any) -> Dataset:
    data = folder / "d.jsonl"
    if not data.exists():
        write(data, rows)
    return Dataset(data, folder / "model", on_error="skip", **options)


def check_equal(ours: Share, theirs: Share) -> None:
    assert ours.failed == theirs.failed
    assert list(ours.inputs) == list(theirs.inputs)
    for task, one in ours.inputs.items():
        other = theirs.inputs[task]
        assert (
            torch.equal(one.pixels, other.pixels)
            and one.layout.shares == other.layout.shares
            and one.media == other.media
        )
        for a, b in zip(one.encoded, other.encoded, strict=True):
            assert (a.input_ids == b.input_ids).all() and (a.labels == b.labels).all()


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(media_pool, "WORKER", "odd_media_worker")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    yield


def with_odd(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Rows before and after ones with pictures of these names."""
    for name in names:
        shutil.copy(folder / "media" / "small.png", folder / "media" / f"{name}.png")
    return [SOME[0], *(row("<image>?", images=[f"media/{name}.png"]) for name in names), *SOME[1:]]


def children() -> list[int]:
    """Processes that decode for this one."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for file in found for pid in file.read_text().split()]
    return [pid for pid in pids if "media_worker" in Path(f"/proc/{pid}/cmdline").read_text()]


# ---- the same -------------------------------------------------------------------------------------------------------


def test_the_same_tensors_in_order(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "media" / "gone.png").write_bytes((folder / "media" / "small.png").read_bytes())
    rows = [*SOME, row("<image>?", images=["media/gone.png"]), row("<image>?", images=["media/small.png"])]
    with (
        opened(folder, rows) as plain,
        opened(folder, rows, data_workers=2) as pooled,
        opened(folder, rows, data_workers=1, frame_cache=tmp_path / "cache") as cached,
    ):
        (folder / "media" / "gone.png").write_bytes(b"words")
        for step in range(3):
            plan = plan_of(plain.batch(step, 4, seed=3))
            monkeypatch.setattr(media_pool, "AHEAD_BYTES", (media_pool.AHEAD_BYTES, 1, 500_000)[step])
            for rank in (0, 1):
                expected = plain.read_share(plan, rank)
                assert any(len(one.pixels) for one in expected.inputs.values())
                check_equal(pooled.read_ahead(plan, rank).result(120), expected)
                check_equal(cached.read_ahead(plan, rank).result(120), expected)
                for task in plan.tasks:
                    one = pooled.read(task, rank, {})
                    assert torch.equal(one.pixels, expected.inputs[task.id].pixels)
        assert children()


def test_without_work_no_process_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_pool.worker_process, "start", lambda *_: pytest.fail("started"))
    pool = media_pool.MediaPool(media_pool.Setup(str(folder / "model"), (), None, "", 0), 2, 10.0)
    assert list(pool.decode([])) == []
    pool.close()


def test_what_is_under_way_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes what is decoded: after a while, no more works are taken."""
    with opened(folder, data_workers=2) as data:
        pool = data._pool
        assert pool
        medium = data.samples[0].media[0]
        work = media_pool.work_of("a sample", medium, 0, 1, data._pixels.processor)
        assert work.bytes == 3 * 16**2 * medium.patches
        for most, expected in ((10 * work.bytes, 10), (work.bytes - 1, 1)):
            monkeypatch.setattr(media_pool, "AHEAD_BYTES", most)
            taken = 0

            def works(count: int = 200) -> Iterator[media_pool.Work]:
                nonlocal taken
                for _ in range(count):
                    taken += 1
                    yield work

            decoded = pool.decode(works())
            for given in range(1, 201):
                next(decoded)
                assert given <= taken <= given + expected
            assert next(decoded, None) is None


def test_a_medium_that_cannot_be_read_is_raised_without_a_place_for_it(folder: Path) -> None:
    with opened(folder, data_workers=1) as data:
        plan = plan_of(data.batch(0, 4))
        (folder / "media" / "small.png").unlink()
        (folder / "media" / "large.png").unlink()
        from dhp.data.errors import MediumError

        with pytest.raises(MediumError, match=r"(small|large)\.png: no such file"):
            for task in plan.tasks:
                data.read(task, 0)
                data.read(task, 1)
        assert not children(), "who does not wait for all leaves nothing behind"
        assert data.read_share(plan, 0).failed or data.read_share(plan, 1).failed


# ---- ends -----------------------------------------------------------------------------------------------------------


def read_whole(data: Dataset) -> None:
    plan = plan_of(data.batch(0, len(data)))
    shares: list[Future[Share]] = [data.read_ahead(plan, rank) for rank in (0, 1)]
    for share in shares:
        share.result(120)


@pytest.mark.parametrize(
    ("name", "how"), [("odd-kills", "signal SIGSEGV"), ("odd-exits", "exit code 3")]
)  # fmt: skip
def test_one_that_ends_is_named_with_its_sample_and_medium(folder: Path, odd: None, name: str, how: str) -> None:
    with opened(folder, with_odd(folder, name), data_workers=2) as data:
        with pytest.raises(WorkerError) as caught:
            read_whole(data)
        assert re.fullmatch(
            rf"data worker [12] \(process \d+\) was ended by {how} while it read sample 2, .*media/{name}\.png; look "
            "at the medium, and at whether memory has run out",
            str(caught.value),
        )
        assert not children()


def test_one_that_hangs_is_named(folder: Path, odd: None) -> None:
    with opened(folder, with_odd(folder, "odd-hangs"), data_workers=2, timeout_s=10.0) as data:
        with pytest.raises(WorkerError) as caught:
            read_whole(data)
        assert re.fullmatch(
            r"data worker [12] \(process \d+\) has been reading sample 2, .*media/odd-hangs\.png for \d+ s, longer "
            "than 5 s: .*; raise timeout_s, or take it out of the data",
            str(caught.value),
        )
        assert not children()


def test_what_else_is_raised_is_raised_here(folder: Path, odd: None) -> None:
    with opened(folder, with_odd(folder, "odd-raises"), data_workers=1) as data:
        with pytest.raises(RuntimeError, match=r"LookupError: what is this\?") as caught:
            read_whole(data)
        assert "sample 2" in caught.value.__notes__[0] and "odd-raises.png" in caught.value.__notes__[0]


def test_processes_that_cannot_start_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, opened(folder, data_workers=1) as data:
        patch.setattr(media_pool, "WORKER", "no_such_module")
        with pytest.raises(WorkerError, match=r"data worker 1 .* was ended by exit code 1 before its first medium"):
            read_whole(data)
    with opened(folder, data_workers=1) as data:
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(WorkerError, match=r"no process can be started .*; data_workers = 0 needs none"):
            read_whole(data)


# ---- nothing is left ------------------------------------------------------------------------------------------------


def state() -> tuple[set[str], int, int]:
    """Threads that read, open files, children."""
    threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("dhp-")}
    return threads, len(os.listdir("/proc/self/fd")), len(children())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_closed_dataset_leaves_nothing(folder: Path, workers: int) -> None:
    opened(folder).close()  # what is made once a process
    gc.collect()
    before = state()
    for _ in range(2):
        with opened(folder, data_workers=workers) as data:
            read_whole(data)
        index = data.index
        data.close()
        del data, index
        gc.collect()
        until = time.monotonic() + 20
        while state() != before and time.monotonic() < until:
            time.sleep(0.05)
        assert state() == before


def test_closing_does_not_wait_for_a_share(folder: Path, odd: None) -> None:
    data = opened(folder, with_odd(folder, "odd-hangs"), data_workers=2)
    plan = plan_of(data.batch(0, len(data)))
    shares = [data.read_ahead(plan, rank) for rank in (0, 1)]
    until = time.monotonic() + 60
    while len(children()) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    began = time.monotonic()
    data.close()
    assert time.monotonic() - began < 30 and not children()
    for share in shares:
        assert share.cancelled() or isinstance(share.exception(30), WorkerError)
    with pytest.raises(WorkerError, match="closed"):
        data.read_share(plan, 0)


PROGRAM = """
import os, sys, time
sys.path.insert(0, {support!r})
from pathlib import Path
from dhp.data.decoding import media_pool
from dhp.run.commands import end_on_interrupt
end_on_interrupt()
media_pool.WORKER = "odd_media_worker"
from test_media_pool import opened, plan_of, SOME
data = opened(Path({folder!r}), data_workers=2)
plan = plan_of(data.batch(0, len(data)))
import socket
sockets = [socket.create_server(("127.0.0.1", 0)), socket.socketpair()]
for rank in (0, 1):
    data.read_ahead(plan, rank)
while len(os.listdir(f"/proc/{{os.getpid()}}/task")) < 2:
    time.sleep(0.01)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_who_started_them(folder: Path, how: signal.Signals) -> None:
    """Also one that hangs in the middle of a medium. And they hold none of its sockets."""
    write(folder / "d.jsonl", with_odd(folder, "odd-hangs"))
    code = PROGRAM.format(support=str(SUPPORT), folder=str(folder))
    environment = {**os.environ, "PYTHONPATH": f"{SUPPORT}:{Path(__file__).parent}"}
    program = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    found: dict[int, str] = {}
    while len(found) < 2 and time.monotonic() < until:
        assert program.poll() is None
        time.sleep(0.1)
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                status = file.with_name("status").read_text()
                if f"PPid:\t{program.pid}\n" in status and "odd_media_worker" in file.read_text():
                    found[int(file.parent.name)] = status
            except OSError:
                continue
    assert len(found) == 2
    time.sleep(3)
    for pid in found:
        links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        assert sum(link.startswith("socket:") for link in links) == 1, links
    program.send_signal(how)
    program.wait(60)
    while any(Path(f"/proc/{pid}/stat").exists() for pid in found) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}/stat").exists() for pid in found)
