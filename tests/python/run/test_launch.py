"""What the launcher of local ranks says when one of them fails, and what it leaves to the rank and to its caller."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dhp.cost import calibrate
from dhp.run.launch import _end_with, run_local

ADVICE = "Ring the bell."


def end_by(number: signal.Signals) -> int:
    os.kill(os.getpid(), number)
    return 0


def second_of_two(code: int) -> int:
    return code if os.environ["RANK"] == "1" else 0


def test_nothing_is_said_where_all_ends_well(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_local(2, lambda: 0, advice=lambda: ADVICE) == 0
    assert capfd.readouterr().err == ""


def test_ranks_may_be_programs_of_their_own(capfd: pytest.CaptureFixture[str]) -> None:
    """As on devices: not `work`, which a fork would run, but a command line; watched and ended like any rank."""
    text = "import os, sys; sys.exit(os.environ['WORLD_SIZE'] + os.environ['RANK'] == '21')"
    command = [sys.executable, "-c", text]
    assert run_local(2, lambda: 0, advice=lambda: ADVICE, program=command) == 1
    assert capfd.readouterr().err == "dhp: rank 1 ended with exit code 1; the run ended. Ring the bell.\n"


@pytest.mark.parametrize(
    ("code", "advice", "said"),
    [
        (1, "", "dhp: rank 1 ended with exit code 1; the run ended.\n"),
        (3, ADVICE, "dhp: rank 1 ended with exit code 3; the run ended. Ring the bell.\n"),
        (2, ADVICE, ""),  # bad input: the rank has said what
    ],
)
def test_a_rank_that_ended_is_not_called_lost(
    code: int, advice: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_local(2, lambda: second_of_two(code), advice=lambda: advice) == code
    assert capfd.readouterr().err == said


def test_a_rank_that_a_signal_killed_was_lost(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_local(1, lambda: end_by(signal.SIGKILL), advice=lambda: ADVICE, explained=(1, 2)) == 1
    said = capfd.readouterr().err
    assert said == "dhp: rank 0 was lost: killed by signal 9 (SIGKILL); the run ended. Ring the bell.\n"


def test_what_is_no_rank_is_not_called_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_local(1, lambda: end_by(signal.SIGKILL), called="the look at the data") == 1
    assert (
        capfd.readouterr().err == "dhp: the look at the data was lost: killed by signal 9 (SIGKILL); the run ended.\n"
    )


def test_nothing_is_added_to_what_the_rank_has_explained(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_local(1, lambda: 1, advice=lambda: ADVICE, explained=(1,)) == 1
    assert capfd.readouterr().err == ""


def test_calibration_without_a_fit_has_said_why(
    mixed_data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibrate, "work", lambda options: second_of_two(calibrate.NO_FIT))
    assert calibrate.main(["--model", str(mixed_data / "model"), "--ranks", "2"]) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("parent", "code"), [(os.getppid, 0), (lambda: os.getppid() + 1, 128 + signal.SIGTERM)])
def test_a_rank_ends_whose_launcher_died_before_it_was_bound_to_it(parent: Callable[[], int], code: int) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            _end_with(parent())
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
