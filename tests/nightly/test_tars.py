"""A long run over WebDataset tars of which one ends badly: every good sample once an epoch, and nothing grows."""

from __future__ import annotations

import collections
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from budget import nightly
from growth import check_no_growth
from quick import QuickStart, all_gone
from world import start_ranks, write_settings

from dhp import Dataset
from mixed_media import write_clip, write_picture
from tiny_run import make_tiny

STEPS, BATCH = 500, 4
SHARDS, EACH, LOST = 3, 36, 8  # samples of a shard, and of the last one those behind the damage
GOOD = SHARDS * EACH - LOST
EPOCHS = STEPS * BATCH // GOOD
BROKEN = ("0-05", "1-18")  # whose pictures no decoder reads, though their headers are right


def make_shards(folder: Path) -> set[str]:
    """shards/0.tar … with pictures and clips, the last cut off within a medium. The names of the samples before it."""
    (folder / "shards").mkdir()
    for number in range(6):
        write_picture(folder / f"{number}.png", 40 + 12 * number, 64, number)
    write_clip(folder / "6.mp4", 96, 64, 20, 10, 6)
    turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": "Waves."}]
    for shard in range(SHARDS):
        file = folder / "shards" / f"{shard}.tar"
        with tarfile.open(file, "w") as tar:
            for number in range(EACH):
                name, source = f"{shard}-{number:02}", number % 7
                content = (folder / (f"{source}.png" if source < 6 else "6.mp4")).read_bytes()
                if name in BROKEN:
                    middle = len(content) // 2
                    content = content[:middle] + b"broken" * 9 + content[middle + 54 :]
                turns[0]["content"] = ("<image>" if source < 6 else "<video>") + f"What is {name}?"
                if shard == SHARDS - 1 and number == EACH - LOST:
                    cut = tar.offset + 2 * 512 + len(content) // 3
                for ending, text in (("png" if source < 6 else "mp4", content), ("json", _row(turns))):
                    about = tarfile.TarInfo(f"{name}.{ending}")
                    about.size = len(text)
                    tar.addfile(about, io.BytesIO(text))
    file.write_bytes(file.read_bytes()[:cut])
    return {f"{shard}-{number:02}" for shard in range(SHARDS) for number in range(EACH)} - {
        f"{SHARDS - 1}-{number:02}" for number in range(EACH - LOST, EACH)
    }


def _row(turns: list[dict[str, str]]) -> bytes:
    return json.dumps({"messages": turns}).encode()


@nightly
@pytest.mark.parametrize("readers", [{}, {"data_workers": 1, "frame_cache": "cache"}], ids=["plain", "readers"])
def test_scale_five_hundred_steps_over_tars_with_a_corrupt_tail(
    tmp_path: Path, quick: QuickStart, readers: dict[str, Any]
) -> None:
    assert EPOCHS * GOOD == STEPS * BATCH and GOOD % BATCH == 0
    names = make_shards(tmp_path)
    make_tiny(tmp_path / "model")
    common: dict[str, Any] = {"data": "shards", "index": "", "global_batch_size": BATCH, "capacity_tokens": 160}
    refused = write_settings(tmp_path, "refused.toml", steps=STEPS, output_dir="refused", **common)
    ranks = start_ranks(quick, tmp_path, 2, [refused], "refused")
    assert quick.ended(*ranks, seconds=240) and all(rank.code for rank in ranks)
    damage = f"2.tar:{EACH - LOST + 1}: the tar is damaged behind sample {EACH - LOST}"
    assert any(damage in rank.said() for rank in ranks), "said by one of them"

    settings = write_settings(tmp_path, steps=STEPS, output_dir="out", on_malformed="skip", **common, **readers)
    ranks = start_ranks(quick, tmp_path, 2, [settings, "--metrics", "steps.jsonl"], "run")

    def pids() -> list[int]:
        children = [pid for rank in ranks for pid in children_of(rank.pid)]
        assert len(children) == 2 * readers.get("data_workers", 0)
        return [*(rank.pid for rank in ranks), *children]

    workers: list[int] = []

    def looked_at() -> list[int]:
        found = pids()
        workers.extend(found[2:])
        return found

    check_no_growth(quick, ranks, tmp_path / "steps.jsonl", STEPS, looked_at)
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].said()[-2000:]
    assert all_gone(workers, seconds=30)

    # What was drawn: each epoch every sample, by the names in their texts.
    with Dataset(str(tmp_path / "shards"), tmp_path / "model", on_error="skip") as data:
        for epoch in range(EPOCHS):
            steps = range(epoch * GOOD // BATCH, (epoch + 1) * GOOD // BATCH)
            drawn = [data.sample(s.id) for step in steps for s in data.batch(step, BATCH).sequences]
            texts = [str(sample.messages[0].parts[-1]).removeprefix("What is ")[:-1] for sample in drawn]
            assert sorted(texts) == sorted(names), epoch
    # What was read: those that cannot be are named once an epoch, by the rank that has them.
    said = re.findall(r"^dhp: sample \d+ of \S+\.tar: \S+\.tar: (\S+)\.png: cannot be decoded",
                      "\n".join(rank.said() for rank in ranks), re.M)  # fmt: skip
    assert collections.Counter(said) == dict.fromkeys(BROKEN, EPOCHS)
    steps_done = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [step["step"] for step in steps_done] == list(range(1, STEPS + 1))
    assert sum(len(step["dropped"]) for step in steps_done) == len(BROKEN) * EPOCHS
    assert sum(step["samples"] for step in steps_done) == EPOCHS * GOOD


def children_of(pid: int) -> list[int]:
    return sorted(
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    )
