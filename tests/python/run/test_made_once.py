"""The index of the data where ranks of several hosts start together: one rank a disk makes it, however long that takes,
and one that makes no progress is named with its host. A folder stands for the disk of a host."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dhp
from by_hand import Rank, causes, end_all, start_ranks, train, wait_until
from dhp._core import InputError
from dhp.run import launch, made_once, runtime
from tiny_run import as_toml

SECONDS = 120.0  # far above what anything takes, far below any wait without an end
LINES = 30


def at_its_host(folder: str, timeout_s: float, how: str) -> int:
    """Ranks 0 and 1 on host a, 2 and 3 on host b; the makers of the disks named in `how` misbehave after some lines."""
    host = "ab"[int(os.environ["RANK"]) // 2]
    made_once._machine = lambda: host  # type: ignore[assignment]
    shared = how == "shared"
    file = Path(folder, "shared" if shared else host, "data.index")
    run = launch.join(timeout_s)
    if isinstance(run, int):
        return run
    try:
        with run.at("start, making or reading the index"):
            found = made_once.made_once(run, file, lambda progress: make_or_read(run, file, host, how, progress))
        print(f"has {found}", flush=True)
        run.close()
    except InputError as error:
        run.say_once(f"dhp: error: {error}")
        return 2
    except runtime.RankFailed as error:
        run.say_once(f"dhp: error: {error}")
        return 1
    return 0


def make_or_read(run: dhp.Run, file: Path, host: str, how: str, progress: Callable[[int], None]) -> str:
    if file.exists():
        return file.read_text()
    print("makes it", flush=True)
    for line in range(100 * LINES if how == "long" else LINES):
        time.sleep(0.3 if host == "b" or how == "shared" else 0.05)
        progress(line + 1)
        if line == 9 and host == "b":
            misbehave(how)
    partial = file.with_name(f".{run.rank}")
    partial.write_text(f"what rank {run.rank} made")
    partial.rename(file)
    return file.read_text()


def misbehave(how: str) -> None:
    if how == "sleeps":
        threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()  # the process goes on living
        print("asleep", flush=True)
        time.sleep(10**6)
    if how == "fails":
        raise InputError("data: line 10 is wrong")
    if how in ("SIGSTOP", "SIGKILL"):
        os.kill(os.getpid(), getattr(signal, how))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "shared"):
        (tmp_path / name).mkdir()
    return tmp_path


def makers(ranks: list[Rank]) -> list[int]:
    return [number for number, rank in enumerate(ranks) if "makes it" in rank.said()]


def test_one_rank_a_disk_makes_it_and_all_wait_for_the_slowest(folder: Path) -> None:
    """It takes nine seconds on host b, and the ranks' patience with each other is six."""
    ranks = start_ranks(at_its_host, 4, folder / "log", str(folder), 6.0, "")
    assert end_all(ranks, SECONDS) == [0] * 4, [rank.said() for rank in ranks]
    first, second = makers(ranks)
    assert (first // 2, second // 2) == (0, 1)
    for number, rank in enumerate(ranks):
        assert f"has what rank {(first, second)[number // 2]} made" in rank.said()
    assert not list(folder.glob("?/.*")), "nothing else is left"


def test_hosts_that_share_a_disk_make_it_once(folder: Path) -> None:
    ranks = start_ranks(at_its_host, 4, folder / "log", str(folder), 6.0, "shared")
    assert end_all(ranks, SECONDS) == [0] * 4, [rank.said() for rank in ranks]
    (maker,) = makers(ranks)
    assert all(f"has what rank {maker} made" in rank.said() for rank in ranks)
    assert [file.name for file in (folder / "shared").iterdir()] == ["data.index"]


def test_where_one_disk_has_it_the_others_make_it(folder: Path) -> None:
    (folder / "a" / "data.index").write_text("what was there")
    ranks = start_ranks(at_its_host, 4, folder / "log", str(folder), 6.0, "")
    assert end_all(ranks, SECONDS) == [0] * 4, [rank.said() for rank in ranks]
    (maker,) = makers(ranks)
    assert maker in (2, 3)
    assert "has what was there" in ranks[0].said()
    assert "has what was there" in ranks[1].said()


@pytest.mark.parametrize(
    ("how", "timeout_s", "words"),
    [
        (
            "sleeps",
            6.0,
            r"keeps the others waiting, at .*/b/data\.index: no progress for 6 s \(timeout_s\), 10 lines so far",
        ),
        ("SIGSTOP", 600.0, "does not answer: it hangs, or its host is cut off"),
        ("SIGKILL", 600.0, "does not answer: it hangs, or its host is cut off"),
    ],
)
def test_a_maker_that_hangs_or_dies_is_named_and_nobody_waits_on(
    how: str, timeout_s: float, words: str, folder: Path
) -> None:
    """Also ranks of the other host, which have theirs."""
    ranks = start_ranks(at_its_host, 4, folder / "log", str(folder), timeout_s, how)
    try:
        assert wait_until(lambda: [rank.process.exitcode for rank in ranks].count(1) == 3, SECONDS)
    finally:
        codes = end_all(ranks)
    lost = next(number for number, code in enumerate(codes) if code != 1)
    assert lost in (2, 3), [rank.said() for rank in ranks]
    said = [text for text in causes(ranks) if text]
    assert said, "nobody says why"
    pid = ranks[lost].process.pid
    for text in said:
        assert re.match(rf"rank {lost} \(host {re.escape(os.uname().nodename)}, pid {pid}\) ({words})", text), text
    assert not any("Traceback" in rank.said() for rank in ranks)


def test_the_host_of_the_store_that_freezes_meanwhile_is_named(folder: Path) -> None:
    """Also by the maker, which stops: nobody would wait for what it makes."""
    ranks = start_ranks(at_its_host, 4, folder / "log", str(folder), 600.0, "long")
    try:
        assert wait_until(lambda: any("makes it" in rank.said() for rank in ranks[2:]), SECONDS)
        ranks[0].send(signal.SIGSTOP)
        others = ranks[1:]
        assert wait_until(lambda: [rank.process.exitcode for rank in others] == [1] * 3, SECONDS)
    finally:
        end_all(ranks)
    words = rf"rank 0 \(host .*, pid {ranks[0].process.pid}\), which hosts the store of the run, does not answer"
    assert all(re.match(words, text) for text in causes(others)), causes(others)


def test_what_a_maker_refuses_all_refuse_in_its_words(folder: Path) -> None:
    ranks = start_ranks(at_its_host, 4, folder / "log", str(folder), 60.0, "fails")
    assert end_all(ranks, SECONDS) == [2] * 4, [rank.said() for rank in ranks]
    assert [text for text in causes(ranks) if text] == ["data: line 10 is wrong"]


def test_ranks_that_torchrun_starts_on_two_hosts_make_an_index_each(mixed_data: Path, tmp_path: Path) -> None:
    """The whole of dhp train, on copies of the data; only what says which machine this is is made up."""
    for host in "ab":
        shutil.copytree(mixed_data, tmp_path / host, ignore=shutil.ignore_patterns("*.index", "*.idx", "run-*"))
    ranks = start_ranks(train_at_its_host, 4, tmp_path / "log", str(tmp_path))
    codes = end_all(ranks, 300)
    assert codes == [0] * 4, [rank.said() for rank in ranks]
    for host in "ab":
        assert (tmp_path / host / "train.index").exists()
    made = [number for number, rank in enumerate(ranks) if "builds the index" in rank.said()]
    assert [number // 2 for number in made] == [0, 1]


def test_hosts_with_other_data_than_each_other_are_told(mixed_data: Path, tmp_path: Path) -> None:
    """The same lengths, so that all would plan alike: only a letter of an answer is another one on host b."""
    for host in "ab":
        shutil.copytree(mixed_data, tmp_path / host, ignore=shutil.ignore_patterns("*.index", "*.idx", "run-*"))
    file = tmp_path / "b" / "train.jsonl"
    lines = file.read_text().splitlines()
    row = json.loads(lines[0])
    row["messages"][0]["content"] = row["messages"][0]["content"].replace("?", "!")
    changed = json.dumps(row)
    file.write_text("\n".join([changed, *lines[1:]]) + "\n")
    ranks = start_ranks(train_at_its_host, 4, tmp_path / "log", str(tmp_path))
    assert end_all(ranks, 300) == [2] * 4, [rank.said() for rank in ranks]
    (said,) = [text for text in causes(ranks) if text]
    assert re.fullmatch(
        r"train.jsonl: rank 0 \(.*\) and rank 2 \(.*\) differ in the contents of the data file; give all hosts .*",
        said,
    )


def train_at_its_host(folder: str) -> int:
    host = "ab"[int(os.environ["RANK"]) // 2]
    made_once._machine = lambda: host  # type: ignore[assignment]
    from dhp.data.indexing import index

    build = index.build_index

    def telling(*args: object, **options: object) -> object:
        print("builds the index", flush=True)
        return build(*args, **options)  # type: ignore[arg-type]

    index.build_index = telling  # type: ignore[assignment]
    os.chdir(Path(folder, host))
    values = {
        "model": "model",
        "data": "train.jsonl",
        "output_dir": f"{folder}/out",
        "global_batch_size": 6,
        "capacity_tokens": 1000,
        "steps": 1,
        "timeout_s": 120.0,
    }
    Path(f"run{os.environ['RANK']}.toml").write_text(as_toml(values))
    return train(f"run{os.environ['RANK']}.toml")
