"""Ranks that no launcher of dhp watches die, hang, leave or do not come: nobody waits for ever, and the rank is named
with its host, never one that waited for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import dhp
from by_hand import Rank, all_said, causes, end_all, start_ranks, train, wait_until
from dhp.run import joining, launch, runtime
from dhp.step.sharded import _all_gather
from programs import run_program
from ranks import context
from tiny_run import as_toml

SIZE = 3
# Far above what it takes on an idle machine, far below any wait without an end.
SECONDS = 120.0


def loop(timeout_s: float, lasting: str) -> int:
    """A loop of one's own: shards in a ring, a sum, a step, and so on; rank 1 does what is asked for in the third."""
    run = launch.join(timeout_s)
    if isinstance(run, int):
        return run
    try:
        for step in range(10**6):
            with run.at(f"step {step}, task 0"):
                q = torch.randn(12, 4, 8, requires_grad=True)
                torch.ops.dhp.ring_attention(
                    q, q, q, [36], [0, 1, 2], run.traffic, 0.3, True, "ring", [0, 0, 0]
                ).sum().backward()
            if run.rank == 1 and step == 3:
                misbehave(run, lasting)
            with run.at(f"step {step}, gradients"):
                run.sum(torch.ones(3))
            print(f"step {step}", flush=True)
    except runtime.RankFailed as error:
        run.say_once(f"dhp: error: {error}")
        return 1
    return 0


def misbehave(run: dhp.Run, lasting: str) -> None:
    if lasting == "sleeps":
        print("asleep", flush=True)
        with run.at("step 3, reading"):
            time.sleep(10**6)
    if lasting == "leaves":
        sys.exit(0)
    if lasting == "fails":
        with run.at("step 3, reading"):
            raise OSError("No space left on device")


def check_named(ranks: list[Rank], lost: int, words: str) -> None:
    """The survivors have ended by themselves, with exit code 1 and `lost` as the cause in all that they say."""
    survivors = [rank for number, rank in enumerate(ranks) if number != lost]
    pid = ranks[lost].process.pid
    wait_until(lambda: all(rank.process.exitcode is not None for rank in survivors), SECONDS)
    codes = [rank.process.exitcode for rank in survivors]
    end_all(ranks)
    said = [text for text in causes(survivors) if text]
    assert codes == [1] * len(survivors), [rank.said() for rank in survivors]
    assert said, "nobody says why"
    for text in said:
        assert re.match(rf"rank {lost} \(host {re.escape(os.uname().nodename)}, pid {pid}\)", text), text
        assert re.search(words, text), text
    for rank in survivors:
        assert not re.search(r"Traceback|GLHF|\.cc:", rank.said()), rank.said()


@pytest.mark.parametrize(
    ("lost", "number", "words"),
    [
        (1, signal.SIGKILL, "was lost"),
        (0, signal.SIGKILL, "which hosted the store of the run, was lost"),
        (1, signal.SIGSTOP, "does not answer: it hangs, or its host is cut off"),
        (0, signal.SIGSTOP, "which hosts the store of the run, does not answer: it hangs, or is cut off"),
    ],
)
def test_a_rank_that_dies_or_freezes_is_named(lost: int, number: signal.Signals, words: str, tmp_path: Path) -> None:
    ranks = start_ranks(loop, SIZE, tmp_path, 6.0, "")
    all_said(ranks, "^step 2")
    ranks[lost].send(number)
    check_named(ranks, lost, words)


@pytest.mark.parametrize(
    ("lasting", "words"),
    [
        ("sleeps", r"keeps the others waiting, at step 3, reading, busy for \d+ s: rank \d "),
        ("leaves", "has left the run while others wait: "),
        ("fails", "at step 3, reading: No space left on device$"),
    ],
)
def test_a_rank_that_hangs_leaves_or_fails_in_python_is_named(lasting: str, words: str, tmp_path: Path) -> None:
    check_named(start_ranks(loop, SIZE, tmp_path, 6.0, lasting), 1, words)


def test_ctrl_c_ends_a_rank_that_waits_in_an_operation(tmp_path: Path) -> None:
    ranks = start_ranks(loop, SIZE, tmp_path, 600.0, "sleeps")
    all_said(ranks, "^step 2")
    all_said(ranks[1:2], "^asleep")
    ranks[2].send(signal.SIGINT)
    wait_until(lambda: ranks[0].process.exitcode is not None, SECONDS)
    ranks[1].process.kill()  # it sleeps, and would end when it comes to wait
    assert end_all(ranks, SECONDS) == [1, -signal.SIGKILL, 130]
    assert ranks[2].said().splitlines()[-1].startswith("step "), "it says nothing"
    assert re.match(r"rank 2 \(host .*\) was interrupted \(Ctrl-C\)", causes(ranks)[0]), causes(ranks)


def training(folder: Path, **settings: object) -> str:
    values = {
        "model": f"{folder}/model",
        "data": f"{folder}/train.jsonl",
        "index": f"{folder}/own.idx",
        "output_dir": f"{folder}/out",
        "global_batch_size": 6,
        "capacity_tokens": 56,
        "steps": 1000,
        "log_every": 1,
        **settings,
    }
    file = folder / "by_hand.toml"
    file.write_text(as_toml(values))
    return str(file)


def test_training_names_the_rank_that_was_lost_in_it(mixed_data: Path, tmp_path: Path) -> None:
    os.symlink(mixed_data / "model", tmp_path / "model")
    for file in mixed_data.iterdir():
        if file.name not in ("model", "own.idx"):
            os.symlink(file, tmp_path / file.name)
    ranks = start_ranks(train, 4, tmp_path / "log", training(tmp_path, timeout_s=60.0))
    all_said(ranks[:1], "^step +2/", 300)
    time.sleep(2)  # ranks tell where they are once a second
    ranks[2].send(signal.SIGKILL)
    check_named(ranks, 2, "was lost, last at step")


def die_before_a_collective(name: str) -> int:
    run = launch.join(600.0)  # it is not a time-out that tells
    if isinstance(run, int):
        return run
    some, all_of_them = torch.ones(4), torch.ones(4 * SIZE)
    start = {
        "all_gather": lambda: [_all_gather(all_of_them, some, group=run.group, async_op=True)],
        "all_reduce": lambda: [dist.all_reduce(some, group=run.group, async_op=True)],
    }[name]
    run.wait_for(name, start)
    if run.rank == 1:
        time.sleep(1)  # the others wait by then
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        with run.at("step 3, gradients"):
            run.wait_for(name, start)
    except runtime.RankFailed as error:
        run.say_once(f"dhp: error: {error}")
        return 1
    return 0


@pytest.mark.parametrize("name", ["all_gather", "all_reduce"])
def test_a_rank_lost_before_a_collective_ends_the_wait_in_it(name: str, tmp_path: Path) -> None:
    check_named(start_ranks(die_before_a_collective, SIZE, tmp_path, name), 1, "was lost")


FULL = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"WORLD_SIZE": "", "MASTER_ADDR": "", "MASTER_PORT": ""},
            "not WORLD_SIZE, MASTER_ADDR, MASTER_PORT: torchrun",
        ),
        ({"MASTER_PORT": ""}, "RANK is set (0), but not MASTER_PORT: torchrun"),
        ({"RANK": "first"}, "environment: RANK: found 'first', expected a whole number"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "environment: RANK: found 4, expected 0 to 3, as WORLD_SIZE is 4"),
        ({"WORLD_SIZE": "0"}, "environment: WORLD_SIZE: found 0, expected at least 1"),
        ({"MASTER_PORT": "70000"}, "environment: MASTER_PORT: found 70000, expected 1 to 65535"),
    ],
)
def test_a_wrong_environment_is_named_in_one_line(
    changes: dict[str, str], message: str, mixed_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**FULL, **changes}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "run.toml").write_text(
        f'model = "{mixed_data}/model"\ndata = "{mixed_data}/train.jsonl"\noutput_dir = "{tmp_path}/out"\n'
    )
    done = run_program("dhp.train", tmp_path / "run.toml")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def join_and_leave(timeout_s: float) -> int:
    run = launch.join(timeout_s)
    if isinstance(run, int):
        return run
    run.close()
    return 0


@pytest.mark.parametrize(
    ("changes", "timeout_s", "message"),
    [
        ({"WORLD_SIZE": "4"}, 15.0, "rank 3 of 4 did not come to 127.0.0.1:"),  # the others do, on a busy machine too
        ({"MASTER_ADDR": "nowhere.invalid"}, 4.0, "MASTER_ADDR: the host 'nowhere.invalid' is unknown"),
        ({"RANK": "0"}, 10.0, "RANK: a second process has come as rank 0|MASTER_PORT: rank 0 cannot host the store at"),
    ],
)
def test_ranks_that_cannot_meet_say_why_in_one_line(
    changes: dict[str, str], timeout_s: float, message: str, tmp_path: Path
) -> None:
    ranks = start_ranks(join_and_leave, SIZE, tmp_path, timeout_s, **changes)
    codes = end_all(ranks, SECONDS)
    assert set(codes) == {1}, [rank.said() for rank in ranks]
    assert any(re.search(message, text) for text in causes(ranks)), causes(ranks)


def die_in_joining(lost: int, stage: str, number: int) -> int:
    """`lost` gets the signal when it comes to a stage of dhp.init."""
    owner = {"meet_again": joining.Joining, "wait_for": runtime.Run}.get(stage, torch.distributed)
    function = getattr(owner, stage)

    def dying(*args: object, **options: object) -> object:
        if int(os.environ["RANK"]) == lost:
            os.kill(os.getpid(), number)
        return function(*args, **options)

    setattr(owner, stage, dying)
    return join_and_leave(600.0)  # it is not a time-out that tells


@pytest.mark.parametrize(
    ("lost", "stage", "number"),
    [
        (2, "new_group", signal.SIGKILL),
        (1, "new_group", signal.SIGSTOP),
        (0, "new_group", signal.SIGKILL),
        (1, "meet_again", signal.SIGKILL),
        (1, "wait_for", signal.SIGKILL),
    ],
)
def test_a_rank_lost_while_the_ranks_are_connected_is_named(lost: int, stage: str, number: int, tmp_path: Path) -> None:
    check_named(start_ranks(die_in_joining, SIZE, tmp_path, lost, stage, number), lost, "was lost")


def own_store_address(folder: str) -> int:
    run = launch.join(60.0)
    assert not isinstance(run, int)
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    port = f"{int(os.environ['MASTER_PORT']):04X}"
    found = {line.split()[1] for line in listening if line.split()[3] == "0A" and line.split()[1].endswith(f":{port}")}
    print(*found, flush=True)
    run.close()
    return 0


def test_the_store_listens_at_the_address_of_the_run_alone(tmp_path: Path) -> None:
    ranks = start_ranks(own_store_address, 2, tmp_path, str(tmp_path))
    assert end_all(ranks, SECONDS) == [0, 0], [rank.said() for rank in ranks]
    assert re.fullmatch(r"0100007F:[0-9A-F]{4}", ranks[1].said().strip()), ranks[1].said()


def run_beside_a_hung_rank(folder: str) -> int:
    """A launcher of two ranks, of which one is frozen."""

    def work() -> int:
        Path(folder, os.environ["RANK"]).touch()
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(10**6)
        return 0

    return launch.run_local(2, work)


def _launcher(folder: str) -> None:
    sys.exit(run_beside_a_hung_rank(folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_launcher_beside_a_hung_rank(number: signal.Signals, tmp_path: Path) -> None:
    process = context.Process(target=_launcher, args=(str(tmp_path),))
    process.start()
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, SECONDS)
    os.kill(process.pid, number)
    process.join(SECONDS)
    assert process.exitcode == 128 + number
    process.kill()


@pytest.mark.parametrize("delay", [0.1, 0.5])
def test_ctrl_c_while_a_command_is_being_imported_gives_no_traceback(delay: float, tmp_path: Path) -> None:
    code = "from dhp.run import commands; commands.end_on_interrupt(); print(flush=True); commands.train()"
    command = [sys.executable, "-c", code, str(tmp_path / "none.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, said) == (130, "")
