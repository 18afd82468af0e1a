"""Checkpoints and the folder that holds them: whole or not there, of one run, and none that is damaged is taken up."""

import dataclasses
import json
import multiprocessing
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dhp._core import InputError
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.models.model_folder import load_weights
from dhp.save import checkpoint, run_folder
from dhp.save.checkpoint import NotSavedError, load_optimizer, read_checkpoint, save_checkpoint
from dhp.save.run_folder import checkpoints, claim, drop_old, newest_checkpoint
from dhp.settings.config import TrainConfig
from dhp.step.optimizer import make_optimizer, update
from thread_run import ThreadRun, on_threads


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny_checkpoint(folder, layers=1, hidden=64, vision_layers=1, vision_hidden=32, deepstack=(0,))
    return folder


class Trained:
    """A model that has taken some steps on made-up gradients, on one rank."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self.config = config
        self.model = load_weights(folder, torch.float32)
        self.optimizer = make_optimizer(self.model, config, self.run)

    @property
    def run(self) -> Any:
        return ThreadRun(0, 1, {"values": [None], "barrier": _NoBarrier()})

    def step(self, number: int) -> None:
        for place, parameter in enumerate(self.model.parameters()):
            if place % 7:  # one in seven never has a gradient
                random = torch.Generator().manual_seed(1000 * number + place)
                parameter.grad = torch.randn(parameter.shape, generator=random)
        _, norm = self.optimizer.reduce()
        update(self.optimizer, self.config, number, norm)

    def save(self, step: int) -> Path:
        return save_checkpoint(step, self.model, self.optimizer, self.config, self.run, {"kept": [0.1, step]})

    def bits(self) -> dict[str, torch.Tensor]:
        state = self.optimizer.gathered_state()
        moments = {f"{place}.{key}": value for place, values in state.items() for key, value in values.items()}
        return {**self.model.state_dict(), **moments}


class _NoBarrier:
    def wait(self, timeout: float) -> None:
        pass


@pytest.fixture
def config(tiny: Path, tmp_path: Path) -> TrainConfig:
    return TrainConfig(model=str(tiny), data="d.jsonl", output_dir=str(tmp_path / "out"), steps=10, save_total_limit=0)


@pytest.fixture
def trained(config: TrainConfig, tiny: Path) -> Trained:
    made = Trained(config, tiny)
    for number in range(2):
        made.step(number)
    return made


def test_what_is_saved_goes_on_to_the_last_bit(trained: Trained) -> None:
    folder = trained.save(2)
    assert folder.name == "step-000002"
    assert not list(folder.parent.glob(".*"))
    assert not [file for file in folder.rglob("*") if file.suffix in (".pt", ".bin", ".pkl")], "no pickle"
    saved = read_checkpoint(folder, trained.config, whole=True)
    assert (saved.step, saved.costs) == (2, {"kept": [0.1, 2]})
    again = Trained(trained.config, folder)
    load_optimizer(folder, again.model, again.optimizer)
    for run in (trained, again):
        run.step(2)
    one, two = trained.bits(), again.bits()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_rates_are_those_of_the_settings_not_of_the_checkpoint(trained: Trained) -> None:
    folder = trained.save(2)
    other = Trained(TrainConfig(**{**vars(trained.config), "weight_decay": 0.3, "adam_beta2": 0.5}), folder)
    load_optimizer(folder, other.model, other.optimizer)
    groups = other.optimizer._adamw.param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert groups[0]["betas"] == (0.9, 0.5)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", "half"),
        ("optimizer.safetensors", "empty"),
        ("optimizer.safetensors", "bit"),
        ("config.json", "half"),
        ("tokenizer.json", "gone"),
    ],
)
def test_damaged_files_are_named_and_an_older_checkpoint_offered(
    trained: Trained, name: str, damage: str, tmp_path: Path
) -> None:
    newest = trained.save(4)
    file = newest / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged: dict[str, Callable[[], object]] = {
        "half": lambda: os.truncate(file, len(content) // 2),
        "empty": lambda: os.truncate(file, 0),
        "gone": file.unlink,
        "bit": lambda: file.write_bytes(content),
    }
    damaged[damage]()
    for older in ("it is the only checkpoint: start afresh", f"remove {newest} to continue from step-000002"):
        with pytest.raises(InputError) as error:
            read_checkpoint(newest, trained.config, whole=True)
        assert str(error.value).startswith(f"{file}: ")
        assert older in str(error.value)
        assert "\n" not in str(error.value)
        shutil.copytree(newest, newest.with_name("step-000002"), dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a JSON object"),
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{}", 'found format "none", of another version of dhp; it is the only checkpoint'),
        ('{"format": "dhp.checkpoint/1"}', "is damaged (KeyError"),
        ('{"format": "dhp.checkpoint/1", "step": 2, "files": 3, "config": {}, "costs": {}}', "is damaged (TypeError"),
        ('{"format": "dhp.checkpoint/1", "step": 4}', "is not the state of step-000002"),
        ('{"format": "dhp.checkpoint/9", "step": 2}', "is not the state of step-000002"),
    ],
)
def test_a_damaged_state_is_named(trained: Trained, text: str, message: str) -> None:
    folder = trained.save(2)
    (folder / "trainer_state.json").write_text(text)
    with pytest.raises(InputError) as error:
        read_checkpoint(folder, trained.config, whole=True)
    assert str(error.value).startswith(f"{folder}/trainer_state.json: ")
    assert message in str(error.value)
    (folder / "trainer_state.json").unlink()
    assert newest_checkpoint(trained.config.output_dir) == folder, "a checkpoint without its state is no other run's"
    with pytest.raises(InputError, match=r"trainer_state\.json: cannot be read"):
        read_checkpoint(folder, trained.config, whole=True)


@pytest.mark.parametrize(("key", "value"), [("seed", 5), ("data", "e.jsonl"), ("freeze_vit", True)])
def test_another_runs_checkpoint_is_refused(trained: Trained, key: str, value: Any) -> None:
    folder = trained.save(2)
    with pytest.raises(InputError, match=f"{key}: was .*, is now {value!r}: that would be another run"):
        read_checkpoint(folder, TrainConfig(**{**vars(trained.config), key: value}), whole=True)


def test_no_room_leaves_nothing_and_earlier_ones_alone(trained: Trained) -> None:
    first = trained.save(2)
    before = {file.name: file.read_bytes() for file in first.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    weights = (first / "model.safetensors").stat().st_size
    for limit in (1_000, weights - 10_000, weights + 10_000):  # not even the tokenizer; the weights; the moments
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(NotSavedError, match=r"out/step-000004 could not be saved \(File too large\)"):
                trained.save(4)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert sorted(path.name for path in first.parent.iterdir()) == ["step-000002"]
    assert {file.name: file.read_bytes() for file in first.iterdir()} == before
    assert trained.save(4).is_dir()


def test_no_checkpoint_is_written_over(trained: Trained) -> None:
    folder = trained.save(2)
    state = (folder / "trainer_state.json").read_bytes()
    trained.step(2)
    with pytest.raises(NotSavedError, match="could not be saved"):
        trained.save(2)
    assert (folder / "trainer_state.json").read_bytes() == state


def test_files_and_folders_are_on_disk_before_the_name_is(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        real_sync(handle)

    def rename(old: Path, new: Path) -> None:
        assert {*map(str, old.iterdir()), str(old)} <= set(synced)
        synced.clear()
        real_rename(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "rename", rename)
    folder = trained.save(2)
    assert synced == [str(folder.parent)]


def test_one_whose_name_is_not_on_disk_is_saved_and_earlier_ones_stay(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.config = dataclasses.replace(trained.config, save_total_limit=1)
    first = trained.save(2)
    real_sync = checkpoint._sync_folder

    def sync(folder: Path) -> None:
        if folder == first.parent:
            raise OSError(5, os.strerror(5))
        real_sync(folder)

    monkeypatch.setattr(checkpoint, "_sync_folder", sync)
    second = trained.save(4)
    assert f"{second} is saved, but {first.parent} cannot be synced (Input/output error)" in capsys.readouterr().err
    assert checkpoints(first.parent) == [first, second]
    assert read_checkpoint(second, trained.config, whole=True).step == 4
    monkeypatch.undo()
    assert checkpoints(trained.save(6).parent) == [first.parent / "step-000006"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, name: t.pop(f"exp_avg_sq/{name}"), "has no exp_avg_sq/"),
        (lambda t, name: t.pop(f"step/{name}"), "has no step/"),
        (lambda t, name: t.update({f"exp_avg/{name}": torch.zeros(3)}), r"exp_avg/.*: found size \[3\], expected \["),
        (lambda t, name: t.update({f"exp_avg/{name}": t[f"exp_avg/{name}"].T.contiguous()}), "exp_avg/.*, expected"),
        (lambda t, name: t.update({f"momentum/{name}": torch.zeros(3)}), "momentum/.*: is no state of AdamW"),
    ],
)
def test_state_of_the_optimizer_that_does_not_fit_is_named(
    trained: Trained, change: Callable[[dict[str, torch.Tensor], str], object], said: str
) -> None:
    folder = trained.save(2)
    tensors = load_file(folder / "optimizer.safetensors")
    name = next(key for key, value in tensors.items() if key.startswith("exp_avg/") and len(set(value.shape)) > 1)
    change(tensors, name.removeprefix("exp_avg/"))
    save_file(tensors, folder / "optimizer.safetensors")
    with pytest.raises(InputError, match=rf"optimizer\.safetensors: {said}"):
        load_optimizer(folder, trained.model, trained.optimizer)


def test_all_ranks_learn_that_nothing_was_saved(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoint, "_write", full)
    c = trained.config
    errors = on_threads(3, lambda run: save_checkpoint(4, trained.model, trained.optimizer, c, run, {}))
    assert [str(error) for error in errors] == [
        f"{c.output_dir}/step-000004 could not be saved ({os.strerror(28)})"
    ] * 3


# ---- the folder -----------------------------------------------------------------------------------------------------


def make_steps(folder: Path, *steps: int) -> None:
    for step in steps:
        (folder / f"step-{step:06d}").mkdir(parents=True)


def test_checkpoints_are_in_the_order_of_steps(tmp_path: Path) -> None:
    """From step 1,000,000 on names have seven digits, and come before those of six as text."""
    make_steps(tmp_path, 999_500, 999_999, 1_000_000)
    (tmp_path / "step-2x").mkdir()
    (tmp_path / "step-3").write_text("a file")
    assert [path.name for path in checkpoints(tmp_path)] == ["step-999500", "step-999999", "step-1000000"]
    drop_old(tmp_path, 2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-999999", "step-1000000"]
    assert not list(tmp_path.glob(".*"))
    drop_old(tmp_path, 0)
    assert len(checkpoints(tmp_path)) == 2


def test_a_link_to_a_name_that_is_too_long_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "step-000001").symlink_to("n" * 300)
    assert newest_checkpoint(tmp_path) is None


def test_one_that_is_half_removed_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_steps(tmp_path, 1, 2)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed here
    drop_old(tmp_path, 1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002"]


@pytest.fixture
def held() -> Iterator[list[int]]:
    locks: list[int] = []
    yield locks
    for lock in locks:
        os.close(lock)


def settings(folder: Path, resume: bool = False) -> TrainConfig:
    return TrainConfig(model="m", data="d", output_dir=str(folder), resume=resume)


def test_what_dead_runs_left_is_removed_and_nothing_else(tmp_path: Path, held: list[int]) -> None:
    make_steps(tmp_path, 2)
    (tmp_path / ".step-000004.tmp").mkdir()
    (tmp_path / ".step-000004.tmp" / "model.safetensors").write_text("half")
    (tmp_path / ".mine.tmp").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".step-000006.tmp").symlink_to(tmp_path / "elsewhere")
    held.append(claim(settings(tmp_path, resume=True)))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".mine.tmp", ".step-000006.tmp", "elsewhere", "run.lock", "step-000002"]


def test_a_fresh_run_in_an_older_ones_folder_is_refused(tmp_path: Path, held: list[int]) -> None:
    make_steps(tmp_path, 4, 8)
    with pytest.raises(InputError) as error:
        claim(settings(tmp_path))
    assert str(error.value) == (
        f"output_dir: {tmp_path} holds checkpoints of an earlier run, up to step-000008; continue it with --resume, or "
        "give another output_dir"
    )
    assert len(checkpoints(tmp_path)) == 2
    held.append(claim(settings(tmp_path, resume=True)))


def test_a_folder_has_one_run(tmp_path: Path, held: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "WAIT_S", 0.1)
    folder = tmp_path / "new" / "out"
    held.append(claim(settings(folder)))
    with pytest.raises(InputError, match=rf"is in use by another run \(process {os.getpid()} on .*\); wait"):
        claim(settings(folder))
    os.close(held.pop())
    held.append(claim(settings(folder)))


def _hold(folder: Path, ready: Any) -> None:
    claim(settings(folder))
    if os.fork() == 0:  # a rank
        ready.send(os.getpid())
        signal.pause()
    signal.pause()


def test_the_lock_ends_with_the_last_of_its_processes(
    tmp_path: Path, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "WAIT_S", 0.1)
    ours, theirs = multiprocessing.Pipe(duplex=False)
    launcher = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path, theirs))
    launcher.start()
    rank = ours.recv()
    launcher.kill()
    launcher.join()
    with pytest.raises(InputError, match="in use by another run"):
        claim(settings(tmp_path))
    monkeypatch.setattr(run_folder, "WAIT_S", 240.0)
    threading.Timer(0.2, os.kill, (rank, signal.SIGKILL)).start()
    held.append(claim(settings(tmp_path)))


def test_folders_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(InputError, match=rf"output_dir: {wrong} cannot be written \(.*\); give another path"):
            claim(settings(wrong))


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, held: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(37, os.strerror(37))

    monkeypatch.setattr(run_folder.fcntl, "flock", no_locks)
    held.append(claim(settings(tmp_path)))
    assert "cannot be locked (No locks available): make sure that no other run uses it" in capsys.readouterr().err


def test_settings_of_the_run_are_kept(trained: Trained) -> None:
    state = json.loads((trained.save(2) / "trainer_state.json").read_text())
    assert state["config"] == vars(trained.config)
