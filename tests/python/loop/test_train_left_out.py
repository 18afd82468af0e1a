"""What `dhp train` says of lines that it does not train on: at each start, however it is started."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dhp import Dataset
from dhp._core import InputError
from programs import run_program
from tiny_run import copied_run


@pytest.fixture
def folder(mixed_data: Path, tmp_path: Path) -> Path:
    """A copy of the data with five lines more, four of which cannot be used, and a run.toml of a step."""
    copied_run(mixed_data, tmp_path, "*.index", ranks=2, steps=1, capacity_tokens=1000)
    turns = [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "A."}]
    with open(tmp_path / "train.jsonl", "a") as file:
        file.write(json.dumps({"messages": turns, "images": ["none.png"]}) + "\n")
        file.write(json.dumps({"messages": turns}) + "\n")
        file.write(json.dumps({"messages": turns, "images": ["picture0.png"], "label": True}) + "\n")
        file.write("not json\n")
        file.write(
            json.dumps(
                {
                    "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "A.", "t": 1}],
                    "id": 1,
                }
            )
            + "\n"
        )
    return tmp_path


def test_malformed_lines_end_a_run_before_it_starts(folder: Path) -> None:
    done = run_program("dhp.train", folder / "run.toml")
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert first.startswith(f"dhp: error: {folder}/train.jsonl:22: images: 0 listed, but")
    assert rest[0].startswith(f"{folder}/train.jsonl:23: label: found true; not supported")
    assert rest[1].startswith(f"{folder}/train.jsonl:24: not valid JSON")
    assert 'dhp train on_malformed = "skip"' in rest[1]
    assert len(rest) == 2, "a missing picture is left out by default"
    assert not list((folder / "out").glob("step-*"))


@pytest.mark.parametrize("ranks", ["1", "2"])
def test_lines_left_out_are_named_at_each_start(folder: Path, ranks: str) -> None:
    skip = ("--ranks", ranks, "--set", 'on_malformed="skip"')
    for arguments in (skip, ("--resume", "--steps", "2", *skip)):
        done = run_program("dhp.train", folder / "run.toml", *arguments)
        assert done.returncode == 0, done.stderr
        lines = done.stderr.splitlines()
        assert lines[0] == f"dhp: {folder}/train.jsonl: 4 left out (3 malformed, 1 media):"
        assert [line.split(": ")[0] for line in lines[1:5]] == [f"{folder}/train.jsonl:{n}" for n in (21, 22, 23, 24)]
        assert "none.png: no such file" in lines[1]
        ignored = "keys that mean nothing here, and their lines: id (1), messages.t (1)"
        assert lines[5].startswith(f"found when {folder}/train.index was built")
        assert lines[6:] == [f"dhp: {folder}/train.jsonl: {ignored}"]


def test_a_loop_of_ones_own_is_told_too(folder: Path) -> None:
    data, model = folder / "train.jsonl", folder / "model"
    with pytest.raises(InputError, match=r"train\.jsonl:21: .*none\.png: no such file"):
        Dataset(data, model)
    with pytest.raises(InputError, match=r"train\.jsonl:22: images: 0 listed"):
        Dataset(data, model, on_error="skip", on_malformed="fail")
    loaded = Dataset(data, model, on_error="skip")
    assert len(loaded.samples) == 21
    assert [p.id for p in loaded.index.problems] == [21, 22, 23, 24]
    assert loaded.index.left_out().splitlines()[0] == f"{data}: 4 left out (3 malformed, 1 media):"


def test_media_roots_of_a_run(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    skip = ("--ranks", "1", "--set", 'on_malformed="skip"', f'media_roots=["{folder / "elsewhere"}"]')
    done = run_program("dhp.train", folder / "run.toml", *skip, "global_batch_size=4")
    assert done.returncode == 0, done.stderr
    assert f"dhp: {folder}/train.jsonl: 20 left out (3 malformed, 17 media):" in done.stderr
    assert "picture0.png: lies outside media_roots; add its folder" in done.stderr
    done = run_program("dhp.train", folder / "run.toml", *skip, 'on_bad_media="fail"', f'output_dir="{folder / "b"}"')
    assert done.returncode == 2
    assert "lies outside media_roots" in done.stderr


def only_pictures(folder: Path, *, kept: int) -> Path:
    """Eight samples with a picture each, indexed; then all but the first `kept` pictures are gone."""
    row = {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "A."}]}
    with open(folder / "pictures.jsonl", "w") as file:
        for number in range(8):
            shutil.copy(folder / "picture0.png", folder / f"own{number}.png")
            file.write(json.dumps({**row, "images": [f"own{number}.png"]}) + "\n")
    Dataset(folder / "pictures.jsonl", folder / "model")
    for number in range(kept, 8):
        (folder / f"own{number}.png").unlink()
    return folder / "pictures.jsonl"


@pytest.mark.parametrize(
    ("kept", "share", "size", "reason"),
    [
        (0, "1.0", 4, "step 1: all 4 samples of the batch were dropped: nothing to train on"),
        (
            7,
            "0.0",
            8,
            "step 1: 1 of the last 8 samples were dropped, more than max_dropped_share = 0 of them; "
            "make their media readable, or raise it",
        ),
    ],
)
def test_a_run_ends_where_too_many_samples_are_lost(
    folder: Path, kept: int, share: str, size: int, reason: str
) -> None:
    """Media that were there when the index was built. Both ranks come to it; it is said once, in a line."""
    data = only_pictures(folder, kept=kept)
    settings = (f'data="{data}"', f"global_batch_size={size}", f"max_dropped_share={share}", "steps=3")
    done = run_program("dhp.train", folder / "run.toml", "--set", *settings)
    assert done.returncode == 1, done.stderr
    *named, last = done.stderr.splitlines()
    assert last == f"dhp: error: {reason}"
    assert len(named) == size - kept * (size == 8)
    assert all(line.startswith("dhp: sample ") and "no such file" in line for line in named), named
    assert not list((folder / "out").glob("step-*")), "nothing is learned from nothing"
