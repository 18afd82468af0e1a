"""What is looked at before a run begins, where something else than dhp's launcher has started the ranks."""

from pathlib import Path
from typing import Any

import pytest

from dhp import train
from dhp._core import InputError
from dhp.base.output import check_apart
from dhp.loop import start
from dhp.loop.start import begin, together
from dhp.save import run_folder
from dhp.save.checkpoint import Saved
from dhp.settings.config import TrainConfig
from thread_run import ThreadRun, on_threads


def test_what_one_rank_refuses_all_refuse_in_its_words() -> None:
    def work(run: Any) -> str:
        def check() -> str:
            if run.rank in (1, 2):
                raise InputError(f"file {run.rank}: wrong")
            return f"rank {run.rank}"

        return together(run, check)

    errors = on_threads(4, work)
    assert [str(error) for error in errors] == ["file 1: wrong"] * 4
    assert all(isinstance(error, InputError) for error in errors)
    assert on_threads(3, lambda run: together(run, lambda: run.rank)) == [0, 1, 2]


@pytest.fixture
def by_others(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ranks that torchrun has started; returns the folders whose weights were looked at."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("DHP_LAUNCHER", raising=False)
    monkeypatch.setattr(run_folder, "WAIT_S", 0.1)
    folders: list[str] = []
    monkeypatch.setattr(start, "check_model_folder", lambda folder: folders.append(str(folder)))
    return folders


def test_one_rank_takes_the_folder_and_all_are_told_when_it_is_taken(tmp_path: Path, by_others: list[str]) -> None:
    settings = TrainConfig(model="m", data="d", output_dir=str(tmp_path / "out"))
    assert on_threads(2, lambda run: begin(settings, run)) == [None, None]
    assert by_others == ["m", "m"]
    errors = on_threads(2, lambda run: begin(settings, run))
    assert len({str(error) for error in errors}) == 1
    assert all("is in use by another run" in str(error) for error in errors)


def test_rank_0_alone_decides_where_to_go_on(
    tmp_path: Path, by_others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainConfig(model="m", data="d", output_dir=str(tmp_path), resume=True)
    (tmp_path / "step-000004").mkdir()
    (tmp_path / "step-000006").mkdir()
    seen: list[str] = []

    def newest(folder: str) -> Path:
        seen.append(folder)
        return tmp_path / "step-000006"

    monkeypatch.setattr(start, "newest_checkpoint", newest)
    monkeypatch.setattr(start, "read_checkpoint", lambda folder, config, *, whole: Saved(folder, 6, {"whole": whole}))
    found = on_threads(3, lambda run: begin(settings, run))
    assert found == [Saved(tmp_path / "step-000006", 6, {"whole": True})] * 3
    assert len(seen) == 1
    assert by_others == [str(tmp_path / "step-000006")] * 3


def test_a_rank_that_has_not_the_checkpoint_is_named(
    tmp_path: Path, by_others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreadRun, "from_rank_0", lambda self, value: Path("/elsewhere/step-000006"))
    settings = TrainConfig(model="m", data="d", output_dir=str(tmp_path), resume=True)
    for error in on_threads(2, lambda run: begin(settings, run)):
        assert isinstance(error, InputError)
        assert str(error).startswith("/elsewhere/step-000006: rank 0 continues from it, but on ")


@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_a_wrong_setting_is_said_once_a_machine(
    tmp_path: Path, local_rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text('model = "m"\ndata = "d"\nseed = -1\n')
    monkeypatch.setenv("RANK", local_rank)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert train.main([str(tmp_path / "run.toml")]) == 2
    assert capsys.readouterr().err.count("seed: found -1") == (1 if local_rank == "0" else 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--metrics train.jsonl", "--metrics: train.jsonl is the data itself"),
        ("--result link", "--result: link is the data itself"),
        ("--result run.toml", "--result: run.toml is the settings file itself"),
        ("--metrics train.index", "--metrics: train.index is the index itself"),
        ("--set index=train.jsonl", "index: train.jsonl is the data itself"),
        ("--set index=x --metrics ./x", "--metrics: ./x is the file of index itself"),
        ("--result r.json --trace r.json", "--result: r.json is the file of --trace itself"),
        ("--trace r.json --set cost=r.json", "--trace: r.json is the cost file itself"),
        ("--result r.json --set cluster=r.json", "--result: r.json is the cluster file itself"),
        ("--result model/config.json", "--result: model/config.json lies in the model's folder"),
        ("--set index=model/tokenizer.json", "index: model/tokenizer.json lies in the model's folder"),
        ("--trace model/traces", "--trace: model/traces lies in the model's folder"),
        ("--metrics out --set output_dir=./out", "--metrics: out is output_dir or a folder above it"),
        ("--result runs --set output_dir=runs/1", "--result: runs is output_dir or a folder above it"),
        ("--trace t.json --set output_dir=t.json", "--trace: t.json is output_dir or a folder above it"),
        ("--set index=runs output_dir=runs/1/2", "index: runs is output_dir or a folder above it"),
    ],
)
def test_what_is_read_is_not_written_over(
    tmp_path: Path, arguments: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "family_of", str)
    monkeypatch.setattr(start, "check_processor", str)
    (tmp_path / "run.toml").write_text('model = "model"\ndata = "train.jsonl"\n')
    (tmp_path / "model").mkdir()
    for name in ("train.jsonl", "model/config.json"):
        (tmp_path / name).write_text("kept")
    (tmp_path / "link").symlink_to("train.jsonl")
    before = sorted(tmp_path.rglob("*"))
    assert train.main(["run.toml", *arguments.split()]) == 2
    assert capsys.readouterr().err.startswith(f"dhp: error: {said}")
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "train.jsonl").read_text() == "kept"


def test_devices_may_be_written_twice() -> None:
    check_apart({"--metrics": "/dev/null", "--result": "/dev/null", "--trace": ""}, {"the data": "d"}, "m")


@pytest.mark.parametrize("model", ["m" * 300, "run.toml", "a/" * 3000])
def test_a_model_that_is_no_folder_is_refused_in_a_line(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(f'model = "{model}"\ndata = "d"\n')
    assert train.main(["run.toml"]) == 2
    assert "config.json: cannot be read" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.toml"], "nothing is made before it"
