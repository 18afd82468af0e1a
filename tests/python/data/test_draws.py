"""Which samples steps train on: epochs of one file and of several, mixtures, and going on in the middle."""

from __future__ import annotations

import collections
import json
import random
from pathlib import Path

import numpy as np
import pytest

from dhp._core import InputError
from dhp.data import sources
from dhp.data.draws import Draws
from dhp.data.indexing.index import Index
from dhp.data.indexing.index_file import open_index
from dhp.data.indexing.sample_list import Samples
from dhp.data.sources import PERIOD, Source, pattern_of, shares_of, sources_of
from made_index import RECORD, write_made_index


def index_of(folder: Path, name: str, count: int) -> Index:
    """`count` samples with every third line left out; tokens say which sample it is."""
    rows = [
        {"id": i + 1 + i // 2, "tokens": 1000 * (ord(name) - 96) + i + 1, "label_tokens": i + 1} for i in range(count)
    ]
    header = {"data": {"sha256": "x"}, "processor": "y"}
    file = open_index(write_made_index(folder / f"{name}.index", rows, [RECORD] * count, header), lambda: None)
    return Index(file.path, folder / f"{name}.jsonl", Samples(file, folder), file)


def draws_of(folder: Path, counts: dict[str, int], weights: dict[str, float] | None = None) -> Draws:
    given = tuple(Source(name, (weights or {}).get(name)) for name in counts)
    return Draws(given, [index_of(folder, name, count) for name, count in counts.items()])


def tokens(draws: Draws, steps: range, size: int, seed: int = 0) -> list[int]:
    """Of all samples of these steps, in order."""
    return [s.tokens for step in steps for s in draws.batch(step, size, seed).sequences]


# ---- epochs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [{"a": 23}, {"a": 9, "b": 1, "c": 13}])
def test_an_epoch_holds_each_sample_once_but_for_its_last_batch(tmp_path: Path, counts: dict[str, int]) -> None:
    draws = draws_of(tmp_path, counts)
    every = {t for part in draws.parts for t in part.samples.tokens.tolist()}
    left_out = []
    orders = []
    for epoch in range(30):
        drawn = tokens(draws, range(epoch * 5, epoch * 5 + 5), 4)
        assert len(set(drawn)) == 20
        left_out += sorted(every - set(drawn))
        orders.append(tuple(drawn))
    assert len(set(orders)) == 30
    assert len(set(left_out)) > 15, "others in each epoch"
    assert tokens(draws, range(5), 4, seed=1) != tokens(draws, range(5), 4)


def test_ids_are_the_lines_of_one_file_and_differ_among_several(tmp_path: Path) -> None:
    one = draws_of(tmp_path, {"a": 5})
    lines = {t: i for i, t in zip(one.parts[0].samples.ids.tolist(), one.parts[0].samples.tokens.tolist(), strict=True)}
    assert all(s.id == lines[s.tokens] for s in one.batch(0, 5, 0).sequences)
    assert one.name(4) == "sample 4"
    several = draws_of(tmp_path, {"a": 5, "b": 4, "c": 3})
    batch = several.batch(0, 12, 0)
    assert len({s.id for s in batch.sequences}) == 12
    for sequence in batch.sequences:
        sample = several.sample(sequence.id)
        assert sample.as_sequence() == sequence
        assert several.label_tokens([sequence.id]) == sample.label_tokens == sequence.tokens % 1000
        file, position = divmod(sequence.tokens, 1000)
        line = position + (position - 1) // 2
        assert several.name(sequence.id) == f"sample {line} of {tmp_path / 'abc'[file - 1]}.jsonl"
    assert several.label_tokens([s.id for s in batch.sequences]) == 15 + 10 + 6
    for unknown in (0, -1, 3, 6):  # lines that are not there
        with pytest.raises(KeyError):
            several.sample(unknown)


def test_too_few(tmp_path: Path) -> None:
    draws = draws_of(tmp_path, {"a": 3, "b": 2})
    with pytest.raises(InputError, match="global_batch_size: found 6, but the data has 5 samples"):
        draws.batch(0, 6, 0)
    draws.leave_out(1, [2])
    assert len(draws) == 4
    with pytest.raises(InputError):
        draws.batch(0, 5, 0)
    assert sorted(tokens(draws, range(1), 4)) == [1001, 1002, 1003, 2001]


def test_steps_of_epochs(tmp_path: Path) -> None:
    draws = draws_of(tmp_path, {"a": 23})
    assert [draws.steps(4, epochs) for epochs in (1, 3, 0.2, 0.01, 1.01)] == [5, 15, 1, 1, 6]
    assert draws_of(tmp_path, {"a": 5, "b": 9}, {"a": 1, "b": 1}).steps(4, 2) == 6


# ---- mixtures -------------------------------------------------------------------------------------------------------


def test_each_file_of_a_mixture_goes_through_its_own_epochs(tmp_path: Path) -> None:
    counts, weights = {"a": 17, "b": 40, "c": 3}, {"a": 0.5, "b": 0.3, "c": 0.2}
    draws = draws_of(tmp_path, counts, weights)
    drawn = tokens(draws, range(100), 12)
    for number, (name, count) in enumerate(counts.items(), start=1):
        own = [t for t in drawn if t // 1000 == number]
        assert abs(len(own) - weights[name] * len(drawn)) < 2
        epochs = [own[at : at + count] for at in range(0, len(own) - count + 1, count)]
        assert len(epochs) >= 5
        assert all(len(set(epoch)) == count for epoch in epochs), "each sample once an epoch"
        assert len(set(map(tuple, epochs))) > 2


def test_going_on_in_the_middle_of_a_mixture(tmp_path: Path) -> None:
    """Whatever steps are asked for, in any order and of another process: the same as in one go."""
    counts, weights = {"a": 17, "b": 40, "c": 3}, {"a": 2.0, "b": 1.0, "c": 1.0}
    whole = [draws_of(tmp_path, counts, weights).batch(step, 7, 3) for step in range(60)]
    resumed = draws_of(tmp_path, counts, weights)
    for step in [*range(41, 60), 0, 59, 7]:
        assert resumed.batch(step, 7, 3) == whole[step]
    far = 10**9 - 1
    assert resumed.batch(far, 7, 3) == draws_of(tmp_path, counts, weights).batch(far, 7, 3)


def test_ids_of_a_batch_differ_even_where_samples_repeat(tmp_path: Path) -> None:
    draws = draws_of(tmp_path, {"a": 2, "b": 50}, {"a": 3, "b": 1})
    batch = draws.batch(5, 20, 0)
    assert len({s.id for s in batch.sequences}) == 20
    met = collections.Counter(s.tokens for s in batch.sequences)
    assert met[1001] + met[1002] == 15
    for sequence in batch.sequences:
        assert draws.sample(sequence.id).id == sequence.id
        assert draws.sample(sequence.id).as_sequence() == sequence
    assert draws.label_tokens([s.id for s in batch.sequences]) == sum(s.tokens % 1000 for s in batch.sequences)


def test_a_file_of_a_mixture_has_samples_left(tmp_path: Path) -> None:
    draws = draws_of(tmp_path, {"a": 2, "b": 50}, {"a": 3, "b": 1})
    with pytest.raises(InputError, match=r"a\.jsonl: no samples left, all are left out as too long"):
        draws.leave_out(0, [1, 2])


def test_any_stretch_has_its_shares() -> None:
    """Against drawing one after the other: the file that is furthest behind its share."""
    seed = random.randrange(1000)
    generator = random.Random(seed)
    for _ in range(5):
        weights = tuple(generator.uniform(0.01, 1) for _ in range(generator.randint(1, 6)))
        pattern = pattern_of(weights)
        assert sum(pattern.shares) == PERIOD and len(pattern.source) == PERIOD
        for i, weight in enumerate(weights):
            assert abs(pattern.shares[i] - weight / sum(weights) * PERIOD) < 1.001, f"seed {seed}"
            own = np.flatnonzero(pattern.source == i)
            assert (pattern.number[own] == np.arange(pattern.shares[i])).all()
            gaps = np.diff(own)
            assert gaps.max() <= PERIOD / pattern.shares[i] + len(weights), f"seed {seed}"
        source, number = pattern.at(np.arange(PERIOD - 5, PERIOD + 5))
        assert source[5:].tolist() == pattern.source[:5].tolist()
        assert (number[5:] == pattern.number[:5] + np.array(pattern.shares)[pattern.source[:5]]).all()


def test_shares_of_tiny_weights() -> None:
    assert shares_of((1.0,)) == (PERIOD,)
    assert shares_of((1.0, 1e-9, 1e-9)) == (PERIOD - 2, 1, 1)
    assert shares_of((1.0, 1.0, 1.0)) == (33_334, 33_333, 33_333)
    assert sum(shares_of(tuple([1.0] * 999))) == PERIOD


# ---- the setting ----------------------------------------------------------------------------------------------------


def test_sources_of_the_setting() -> None:
    assert sources_of("a.jsonl", "i") == (Source("a.jsonl", None, "i"),)
    assert sources_of(["a.jsonl"], "i") == (Source("a.jsonl", None, "i"),)
    both = [{"path": "a", "weight": 3}, {"path": "b", "weight": 0.5, "index": "j"}]
    assert sources_of(both) == (Source("a", 3.0), Source("b", 0.5, "j"))
    assert sources.named(sources_of(both)) == "a and 1 more"


def test_a_folder_stands_for_its_data_files(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    assert sources_of(str(folder)) == (Source(str(folder)),), "which says that it is a folder when it is opened"
    for name in ("data-1.arrow", "data-0.arrow", "a.tar", "b.jsonl", "b.index", "state.json", "c.parquet"):
        (folder / name).touch()
    files = [Source(str(folder / name)) for name in ("a.tar", "b.jsonl", "c.parquet", "data-0.arrow", "data-1.arrow")]
    assert list(sources_of(str(folder))) == files
    assert list(sources_of(["x", str(folder)])) == [Source("x"), *files]
    with pytest.raises(InputError, match=r"data\[0\]: .*train is a folder, whose files have no weight"):
        sources_of([{"path": str(folder), "weight": 2}])


@pytest.mark.parametrize(
    ("data", "index", "message"),
    [
        ([], "", "data: expected a path, or a list of 1 to"),
        ({"path": "a"}, "", "data: expected a path, or a list of 1 to"),
        (["a", 3], "", r"data\[1\]: expected a path, or a table"),
        ([""], "", r"data\[0\].path: expected a path"),
        ([{"weight": 1}], "", r"data\[0\].path: expected a path"),
        ([{"path": "a", "wieght": 1}], "", r"data\[0\].wieght: unknown; expected path, weight, index"),
        ([{"path": "a", "weight": 0}], "", r"data\[0\].weight: expected a number above 0"),
        ([{"path": "a", "weight": True}], "", r"data\[0\].weight: expected a number above 0"),
        ([{"path": "a", "weight": float("nan")}], "", r"data\[0\].weight: expected a number above 0"),
        ([{"path": "a", "index": " "}], "", r"data\[0\].index: expected a path"),
        ([{"path": "a", "weight": 1}, "b"], "", r"data\[1\]: has no weight, and others have"),
        (["a", "b", "a"], "", r"data\[2\]: a is given twice"),
        (["a", "b"], "i", "index: there are several data files"),
        ([{"path": "a", "index": "j"}], "i", "index: given twice"),
    ],
)
def test_odd_settings(data: object, index: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sources_of(json.loads(json.dumps(data)) if isinstance(data, dict) else data, index)
