"""`dhp index --stats`: against the histogram of `dhp dataset`, media counted one by one, and `dhp simulate`."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import dhp
from dhp._core import InputError, read_cluster, read_cost_model, to_json
from dhp.data.dataset import Dataset
from dhp.data.indexing.freshness import identity
from dhp.data.indexing.index import Index, build_index, load_index
from dhp.stats.command import main
from dhp.stats.figures import Asked, stats_of
from dhp.stats.spread import spread_of
from dhp.stats.text import duration, text_of
from indexed_data import make
from made_index import write_made_index

CLUSTER, COST = "h100-1x8", "qwen3-vl-2b@h100"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.jsonl with seven samples, data.index, media/ and model/."""
    folder = make(tmp_path_factory.mktemp("data"))
    build_index(folder / "data.jsonl", folder / "model")
    return folder


def index_of(folder: Path, lengths: list[dict[str, int]], records: list[Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    data = folder / "data.jsonl"
    data.write_text("{}\n")
    facts = {"data": {"path": "data.jsonl", **identity(data, lambda: None)}, "processor": "x"}
    return write_made_index(folder / "data.index", lengths, records or [], facts)


def drawn_lengths(seed: int, count: int = 300) -> list[dict[str, int]]:
    draw = np.random.default_rng(seed)
    tokens = np.clip(draw.lognormal(6, 1.5, count), 1, 30_000).astype(int).tolist()
    return [{"tokens": int(t), "patches": 4 * (int(t) // 8), "frame_patches": 4 * (int(t) // 8)} for t in tokens]


def test_the_same_spread_as_the_program_counts(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30) if "DHP_TEST_SEED" not in os.environ else int(os.environ["DHP_TEST_SEED"])
    for number in range(5):
        print(f"seed {seed + number}")
        file = index_of(tmp_path, drawn_lengths(seed + number, count=1 + 99 * number))
        theirs = dhp("dataset", "--data", file, "--output-format", "json").json()["tokens"]
        ours = spread_of(load_index(file).samples.tokens.astype(np.int64))
        assert (ours.count, ours.least, ours.most) == (theirs["count"], theirs["min"], theirs["max"])
        assert ours.mean == pytest.approx(theirs["mean"]) and ours.percentiles == theirs["percentiles"]
        bins = [(one.least, one.end, one.count) for one in ours.bins]
        assert bins == [(one["from"], one["to"], one["count"]) for one in theirs["histogram"]]
        assert sum(one.total for one in ours.bins) == ours.total == sum(load_index(file).samples.tokens)


def test_shares_are_those_of_the_media(made: Path) -> None:
    """Seven samples, counted one by one."""
    index = load_index(made / "data.index")
    stats = stats_of([index], Asked(batch_size=2))
    held = {"image": 0, "video": 0}
    for sample in index.samples:
        for medium in sample.media:
            held[medium.kind] += medium.units * medium.unit_rows
    total = sum(sample.tokens for sample in index.samples)
    shares = {share.name: share for share in stats.shares}
    assert [shares[name].samples for name in ("text", "pictures", "clips")] == pytest.approx([1 / 7, 3 / 7, 4 / 7])
    assert shares["pictures"].tokens == pytest.approx(held["image"] / total)
    assert shares["clips"].tokens == pytest.approx(held["video"] / total)
    assert sum(share.tokens for share in stats.shares) == pytest.approx(1)
    assert stats.records == stats.samples == 7 and stats.tokens == total
    longest = sorted(index.samples, key=lambda sample: -sample.tokens)[:5]
    assert [one.name for one in stats.longest] == [f"{made / 'data.jsonl'}:{sample.id}" for sample in longest]
    assert stats.longest[0].media[0].endswith((".png", ".mp4"))


def test_batches_are_those_of_training(made: Path) -> None:
    stats = stats_of([load_index(made / "data.index")], Asked(batch_size=2, batches=100, seed=5))
    dataset = Dataset(made / "data.jsonl", made / "model")
    batches = [dataset.batch(step, 2, 5) for step in range(3)]  # an epoch
    assert stats.batches is not None and stats.batches.count == 3
    assert stats.batches.tokens_each == [sum(s.tokens for s in batch.sequences) for batch in batches]
    assert stats.batches.longest_each == [max(s.tokens for s in batch.sequences) for batch in batches]
    assert stats_of([load_index(made / "data.index")], Asked(batch_size=8)).batches is None


def test_how_uneven_batches_are(tmp_path: Path) -> None:
    """By hand: one sample of 1,100 tokens among nineteen of 100."""
    lengths = [{"tokens": 1100 if number == 3 else 100} for number in range(20)]
    index = load_index(index_of(tmp_path, lengths))
    batches = stats_of([index], Asked(batch_size=20)).batches
    assert batches is not None
    assert batches.longest_over_mean == pytest.approx(1100 / 150)
    assert batches.top == 2 and batches.top_share == pytest.approx(1200 / 3000)


def test_steps_are_those_of_simulate(tmp_path: Path) -> None:
    """The same batch, planned and simulated by the program."""
    index = load_index(index_of(tmp_path, drawn_lengths(3)))
    cluster = read_cluster(CLUSTER)
    cost = read_cost_model(COST, cluster)
    asked = Asked(
        batch_size=64, batches=1, cluster=cluster, cost=cost, cluster_name=CLUSTER, cost_name=COST, planner="lockstep"
    )
    steps = stats_of([index], asked).steps
    assert steps is not None and steps.planned == 1 and steps.left_out == 0 and steps.without_plan == {}
    from dhp.data.draws import Draws
    from dhp.data.sources import Source

    batch = Draws((Source("x"),), [index]).batch(0, 64, 0)
    (tmp_path / "batch.json").write_text(to_json(batch))
    files = ["--batch", str(tmp_path / "batch.json"), "--cluster", CLUSTER, "--cost", COST]
    dhp("plan", *files, "--planner", "lockstep", "-o", str(tmp_path / "plan.json"))
    options = ["--steps", "20", "--noise", "0.02,0.02,0.01", "--seed", "7", "--output-format", "json"]
    theirs = dhp("simulate", *files, "--plan", tmp_path / "plan.json", *options).json()
    assert steps.step_s == pytest.approx(theirs["mean_s"], rel=1e-6)
    assert steps.idle_share == pytest.approx(theirs["idle_share"], rel=0.01)
    assert steps.steps_per_s == pytest.approx(1 / steps.step_s)
    tokens = sum(sequence.tokens for sequence in batch.sequences)
    assert steps.tokens_per_s == pytest.approx(tokens / steps.step_s)
    assert steps.epoch_steps == 300 // 64 and steps.epoch_s == pytest.approx(4 * steps.step_s)


def test_samples_that_no_plan_holds(tmp_path: Path) -> None:
    lengths = [{"tokens": 1000} for _ in range(100)]
    lengths[7] = lengths[70] = {"tokens": 50_000_000}
    index = load_index(index_of(tmp_path, lengths))
    cluster = read_cluster("h100-1x8")
    asked = Asked(batch_size=10, cluster=cluster, cost=read_cost_model(COST, cluster), cluster_name="c", cost_name="d")
    steps = stats_of([index], asked).steps
    assert steps is not None and steps.left_out == 2 and steps.planned == 9
    assert "left out 2 samples that no plan holds" in text_of(stats_of([index], asked))


def test_many_records_are_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dhp.stats import figures

    monkeypatch.setattr(figures, "MOST_RECORDS", 50)
    stats = stats_of([load_index(index_of(tmp_path, drawn_lengths(1)))], Asked())
    assert stats.records == 50
    assert "(samples of text: of text alone; tokens: of 50 samples)" in text_of(stats)


def test_the_terminal(tmp_path: Path) -> None:
    index = load_index(index_of(tmp_path, [{"tokens": t, "label_tokens": 1} for t in (100, 120, 130, 400)]))
    assert text_of(stats_of([index], Asked(batch_size=4)), width=60).splitlines() == [
        f"{tmp_path}/data.jsonl: 4 samples, 750 tokens, 4 with a loss, 0 patches",
        "sample length",
        "  mean 188 tokens, min 100, p1 100, p5 100, p25 100, p50 120, p75 130, p90 400, p95 400, p99 400, max 400",
        "        tokens   share",
        "   96 to < 128  50.0 %  ██████████████████████████",
        "  128 to < 192  25.0 %  █████████████",
        "  192 to < 256   0.0 %",
        "  256 to < 384   0.0 %",
        "  384 to < 512  25.0 %  █████████████",
        "kinds (samples of text: of text alone)",
        "            of samples  of tokens",
        "  text         100.0 %    100.0 %",
        "  pictures       0.0 %      0.0 %",
        "  clips          0.0 %      0.0 %",
        "longest samples",
        f"  {tmp_path}/data.jsonl:4  400 tokens",
        f"  {tmp_path}/data.jsonl:3  130 tokens",
        f"  {tmp_path}/data.jsonl:2  120 tokens",
        f"  {tmp_path}/data.jsonl:1  100 tokens",
        "batches of 4 samples (1 drawn as training draws them)",
        "  tokens   750 (750 to 750)",
        "  longest  400 tokens (400 to 400), 2.1 times the mean; it holds 53.3 % of the tokens",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0421, "42.1 ms"), (0.9, "900 ms"), (1.329, "1.33 s"), (61.2, "61.2 s"), (600, "10.0 min"), (86400, "24.0 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# ---- the command ----------------------------------------------------------------------------------------------------


def test_over_an_index_without_building(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "data.index").stat().st_mtime_ns
    for data in ("data.jsonl", "data.index"):
        assert main([str(made / data), "--stats", "--batch-size", "2", "--output-format", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["samples"] == 7 and found["batches"]["size"] == 2 and "steps" not in found
    assert main([str(made / "data.jsonl"), "--stats"]) == 0
    assert "batches: fewer samples than one has" in capsys.readouterr().out
    assert (made / "data.index").stat().st_mtime_ns == before


def test_building_first(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(made / "data.jsonl"), "--model", str(made / "model"), "-o", str(tmp_path / "i.index"), "--stats"]
    assert main([*options, "--cluster", CLUSTER, "--cost", COST, "--batch-size", "3"]) == 0
    said = capsys.readouterr().out
    assert "7 samples" in said and f"steps on {CLUSTER}, 8 ranks, {COST}, planner free" in said
    assert isinstance(load_index(tmp_path / "i.index"), Index)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.jsonl"], "the following arguments are required: --model"),
        (["data.jsonl", "--batch-size", "2", "--model", "model"], "argument --batch-size: is for --stats"),
        (["data.jsonl", "--stats", "--cluster", CLUSTER], "--cluster and --cost belong together"),
        (["data.jsonl", "--stats", "--planner", "hope"], "invalid choice"),
        (["data.jsonl", "--stats", "--seed", "-1"], "must be a whole number from 0"),
        (["other.jsonl", "--stats"], "other.jsonl: has no index (other.index); give --model to build it, or -o"),
        (["data.jsonl", "--stats", "--page", "data.jsonl"], "is the data itself"),
        (["data.jsonl", "--stats", "--page", "data.index"], "is the index of data.jsonl itself"),
        (["data.jsonl", "--stats", "--cluster", "none.json", "--cost", COST], "none.json"),
        (["data.jsonl", "--stats", "--cluster", CLUSTER, "--cost", "none@h100"], "none"),
    ],
)
def test_bad_arguments(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(made)
    try:
        code: Any = main(arguments)
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_a_stale_index_is_refused(tmp_path: Path, made: Path) -> None:
    file = index_of(tmp_path, drawn_lengths(1))
    (tmp_path / "data.jsonl").write_text("{}\n{}\n")
    assert main([str(file), "--stats"]) == 2
    with pytest.raises(InputError, match="is stale"):
        load_index(file)
