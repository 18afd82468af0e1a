"""`dhp train` on several files, gone on with in the middle of an epoch; epochs instead of steps."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dhp.data.indexing.index import load_index
from programs import run_program
from tiny_run import copied_run, metrics_of_run

MIXTURE = ("capacity_tokens=1000", "save_steps=2", "global_batch_size=4", "ranks=1")
STEADY = ("learning_rate=1e-3", "min_learning_rate=1e-3")  # whatever the number of steps


@pytest.fixture
def folder(mixed_data: Path, tmp_path: Path) -> Path:
    """Samples with pictures or clips in train.jsonl, without in text.jsonl."""
    copied_run(mixed_data, tmp_path, "*.index", ranks=2)
    rows = (tmp_path / "train.jsonl").read_text().splitlines(keepends=True)
    for name, has_media in (("train", True), ("text", False)):
        own = [row for row in rows if any(key in json.loads(row) for key in ("images", "videos")) == has_media]
        (tmp_path / f"{name}.jsonl").write_text("".join(own))
    return tmp_path


def trained(folder: Path, name: str, *settings: str) -> list[dict[str, Any]]:
    return metrics_of_run(folder, name, *MIXTURE, *settings)


def files(folder: Path, first: float, second: float) -> str:
    weights = {"train": first, "text": second}
    tables = ", ".join(f'{{path = "{folder / name}.jsonl", weight = {weights[name]}}}' for name in weights)
    return f"data=[{tables}]"


def test_a_mixture_goes_on_where_it_was_broken_off(folder: Path) -> None:
    data = files(folder, 0.75, 0.25)
    whole = trained(folder, "whole", data, "steps=4", *STEADY)
    trained(folder, "broken", data, "steps=2", *STEADY)
    resumed = trained(folder, "broken", data, "steps=4", "resume=true", *STEADY)
    assert [step["step"] for step in resumed] == [1, 2, 3, 4]
    assert [step["loss"] for step in resumed] == [step["loss"] for step in whole]
    assert (folder / "train.index").exists() and (folder / "text.index").exists()
    other = run_program("dhp.train", folder / "run.toml", "--resume", "--set", f"output_dir={folder / 'broken'}",
                        *MIXTURE, files(folder, 0.5, 0.5))  # fmt: skip
    assert other.returncode == 2 and "data: was [" in other.stderr, "other weights are another run"


def test_epochs_instead_of_steps(folder: Path) -> None:
    lines = sum(len((folder / f"{name}.jsonl").read_text().splitlines()) for name in ("train", "text"))
    both = f'data=["{folder / "train.jsonl"}", "{folder / "text.jsonl"}"]'
    steps = trained(folder, "epochs", both, "num_train_epochs=0.6")
    assert len(steps) == -(-6 * (lines // 4) // 10)
    assert steps[-1]["learning_rate"] < steps[0]["learning_rate"], "the cosine ends with the last step"


def test_tars_of_which_one_ends_badly(folder: Path) -> None:
    """Two shards in a folder, the second cut off within its last picture: what comes before is trained on."""
    shards = folder / "shards"
    shards.mkdir()
    pictures = sorted(folder.glob("picture*.png"))
    for name, copies in (("a", 2), ("b", 3)):
        with tarfile.open(shards / f"{name}.tar", "w") as tar:
            for number in range(copies * len(pictures)):
                tar.add(pictures[number % len(pictures)], f"{number:03}.png")
                (folder / "caption").write_text(f"Waves, {number}.")
                tar.add(folder / "caption", f"{number:03}.txt")
    (shards / "b.tar").write_bytes((shards / "b.tar").read_bytes()[:-30_000])
    steps = trained(folder, "tars", f"data={shards}", "steps=3", "on_malformed=skip", "seed=3")
    assert len(steps) == 3
    assert all(not step["dropped"] for step in steps)
    lost = load_index(shards / "b.tar.index").problems
    assert len(lost) == 1 and "the tar is damaged behind sample" in lost[0].message
    refused = run_program("dhp.train", folder / "run.toml", "--set", f"data={shards}", *MIXTURE)
    assert refused.returncode == 2 and "b.tar:" in refused.stderr and "the tar is damaged" in refused.stderr
