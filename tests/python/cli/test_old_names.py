"""Names of the release before this one: they still work, and say what is called how today."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pytest

from command_line import dhp, inputs
from dhp import _core as core
from dhp.base.old_flags import todays_flags
from dhp.cost import calibrate_options
from dhp.data.indexing import index_command
from dhp.loop.train_options import parser, settings_of
from dhp.run.planning import plan
from dhp.settings.config import read_config
from small_result import SMALL, parsed

DROPS = "the next release drops the old name\n"


# --- dhp plan, compare and simulate


@pytest.mark.parametrize("given", [["--schedule", "static:2"], ["--schedule=static:2"]])
def test_plan_takes_schedule(files: dict[str, Path], given: list[str]) -> None:
    words = ["plan", *inputs(files), "--output-format", "json"]
    old, new = dhp(*words, *given), dhp(*words, "--planner", "static:2")
    assert old.err == f"dhp: note: --schedule is now --planner; {DROPS}"
    assert (old.code, old.out, new.err) == (0, new.out, "")
    assert old.json()["planner"] == "static:2"


@pytest.mark.parametrize("command", [["compare"], ["simulate", "--sweep"]])
def test_compare_and_sweep_take_schedules(files: dict[str, Path], command: list[str]) -> None:
    old = dhp(*command, *inputs(files), "--schedules", "static:2,free", "--output-format", "json")
    assert (old.code, old.err) == (0, f"dhp: note: --schedules is now --planners; {DROPS}")
    answer = old.json()
    rows = answer["planners"] if command == ["compare"] else answer["runs"]
    assert {row["planner"] for row in rows} == {"static:2", "free"}


@pytest.mark.parametrize(("command", "old"), [("plan", "--schedule"), ("compare", "--schedules")])
def test_both_flags_are_refused(files: dict[str, Path], command: str, old: str) -> None:
    new = old.replace("schedule", "planner")
    result = dhp(command, *inputs(files), old, "free", new, "free")
    assert result.code == 2
    assert result.err == f"dhp: error: {old}: is the old name of {new}, which is given too; leave it out\n"


@pytest.mark.parametrize("command", ["check", "explain"])
def test_a_plan_is_taken_without_its_flag(files: dict[str, Path], command: str) -> None:
    words = [*inputs(files), "--max-degree", "6"]
    new = dhp(command, *words, "--plan", files["plan"])
    for old in (dhp(command, *words, files["plan"]), dhp(command, files["plan"], *words)):
        assert old.err == f"dhp: note: {files['plan']} is now --plan {files['plan']}; {DROPS}"
        assert (old.code, old.out, new.code, new.err) == (0, new.out, 0, "")
    both = dhp(command, *words, "--plan", files["plan"], files["plan"])
    assert (both.code, both.out) == (2, "")
    assert "The following argument was not expected" in both.err


def test_dataset_takes_name() -> None:
    old, new = (dhp("dataset", flag, "uniform", "--count", "5") for flag in ("--name", "--data"))
    assert old.err == f"dhp: note: --name is now --data; {DROPS}"
    assert (old.code, old.out, new.err) == (0, new.out, "")


def test_commands_that_never_had_it_refuse_it(files: dict[str, Path]) -> None:
    result = dhp("check", *inputs(files), "--schedule", "free")
    assert result.code == 2
    assert "note" not in result.err


# --- dhp index and calibrate


def test_flags_of_python_commands(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "m", "--memory-of=h100", "--device", "cpu", "--gradient-checkpointing"]
    today = ["--model", "m", "--device", "h100", "--torch-device", "cpu", "--recompute", "full"]
    assert todays_flags(words, calibrate_options.RENAMED) == today
    assert capsys.readouterr().err.splitlines() == [
        f"dhp: note: {then} is now {now}; {DROPS.strip()}"
        for then, now in (
            ("--memory-of", "--device"),
            ("--device cpu", "--torch-device cpu"),
            ("--gradient-checkpointing", "--recompute full"),
        )
    ]
    assert todays_flags(today, calibrate_options.RENAMED) == today
    assert todays_flags(["d", "--capacity-tokens-per-rank=8"], index_command.RENAMED) == ["d", "--capacity-tokens", "8"]
    capsys.readouterr()
    with pytest.raises(core.InputError, match=r"^--memory-of: is the old name of --device, which is given too"):
        todays_flags(["--memory-of", "h100", "--device=a100"], calibrate_options.RENAMED)


# --- settings


def options(*words: str) -> argparse.Namespace:
    return parser().parse_args([*words])


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "run.toml"
    file.write_text('model = "m"\ndata = "d.jsonl"\n')
    return file


def test_settings_files_take_schedule(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml.write_text(toml.read_text() + 'schedule = "paper"\n')
    assert read_config(toml).planner == "paper"
    assert capsys.readouterr().err == f"dhp: note: {toml}: schedule is now planner; {DROPS}"
    assert read_config(toml, ["planner=static:2"]).planner == "static:2", "what is said later wins"


@pytest.mark.parametrize("words", [["--set", "schedule=paper"], ["--schedule", "paper"]])
def test_the_command_line_of_train_takes_schedule(
    toml: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    toml.write_text(toml.read_text() + 'planner = "free"\n')
    assert settings_of(options(str(toml), *words)).planner == "paper"
    assert capsys.readouterr().err == f"dhp: note: command line: schedule is now planner; {DROPS}"


def test_rank_0_alone_says_so(toml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    assert read_config(toml, ["schedule=paper"]).planner == "paper"
    assert capsys.readouterr().err == ""


def test_both_names_of_a_setting_are_refused(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = "schedule: is the old name of planner, which is given too; leave it out"
    with pytest.raises(core.InputError, match=f"^command line: {refused}$"):
        settings_of(options(str(toml), "--planner", "free", "--set", "schedule=paper"))
    with pytest.raises(core.InputError, match=r"plan.schedule: not here; `planner` stands at the top"):
        read_config(toml, ["plan.schedule=paper"])
    toml.write_text(toml.read_text() + 'schedule = "paper"\nplanner = "paper"\n')
    with pytest.raises(core.InputError, match=f"run.toml: {refused}$"):
        read_config(toml)
    assert capsys.readouterr().err == ""


def test_the_device_of_counted_costs_was_called_device(toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml.write_text(toml.read_text() + 'device = "h100"\n')
    assert (read_config(toml).cost_device, read_config(toml).device) == ("h100", "auto")
    assert capsys.readouterr().err.splitlines()[0] == f"dhp: note: {toml}: device is now cost_device; {DROPS.strip()}"
    assert read_config(toml, ["device=cpu"]).device == "cpu", "what is said later wins"
    with pytest.raises(
        core.InputError, match="command line: device: is the old name of cost_device, which is given too"
    ):
        read_config(toml, ["device=a100", "cost_device=b200"])


# --- Python and result files


def test_the_keyword_schedule_works_and_warns(files: dict[str, Path]) -> None:
    case = (
        core.read_batch(str(files["batch"])),
        core.read_cluster(str(files["cluster"])),
        core.read_cost_model(str(files["cost"])),
    )
    for function in (core.try_plan, plan):
        with pytest.warns(FutureWarning, match="^schedule= is now planner=; the next release drops the old name$"):
            old = function(*case, schedule="static:2")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert function(*case, planner="static:2") == old
        with pytest.raises(core.InputError, match=r"^schedule: is the old name of planner, which is given too"):
            function(*case, schedule="static:2", planner="static:2")
    with pytest.warns(FutureWarning), pytest.raises(core.InputError, match=r'^--planner: found "best"'):
        core.infeasible_sequences(*case, schedule="best")


def test_results_of_before_are_read() -> None:
    old = {("schedule" if key == "planner" else key): value for key, value in SMALL.items()}
    assert parsed(old).planner == "free"
    assert parsed(old | {"planner": "paper"}).planner == "paper", "today's name wins"
    with pytest.raises(core.InputError, match="planner: "):
        parsed({key: value for key, value in SMALL.items() if key != "planner"})
