"""The reader of `dhp.result/1` files, and what the report makes of mutated ones."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from dhp._core import InputError
from dhp.report import timeline
from dhp.report.page import figures
from dhp.report.summary import summarize
from dhp.watch.result import parse_result, read_result
from small_result import SMALL, changed, parsed


def test_reading_gives_back_what_was_written() -> None:
    result = parsed(SMALL)
    assert (result.kind, result.name, result.planner, result.ranks, result.clock) == (
        "simulated", "small", "free", 2, "simulated",
    )  # fmt: skip
    assert [step.seconds for step in result.steps] == [4.0, 6.0]
    assert result.steps[0].idle_s == SMALL["steps"][0]["idle_s"]
    assert result.tasks is not None and result.timeline is not None and result.memory is not None
    for key, column in result.tasks.items():
        assert column.tolist() == [task[key] for task in SMALL["tasks"]]
    assert result.timeline.spans["task"].tolist() == [0, 1, 0, 0, 0, -1, -1]
    assert result.memory.peak_bytes is not None and result.memory.peak_bytes.tolist() == [3.0, 2.0]
    assert result.lengths is not None and result.lengths.tolist() == [700, 100, 100, 100]


def test_whole_numbers_may_be_written_as_any_json_number() -> None:
    text = json.dumps(SMALL).replace('"tokens": 1000', '"tokens": 1e3').replace("[700,", "[7.0e2,")
    result = parse_result(text, "r.json")
    assert result.steps[0].tokens == 1000
    assert result.lengths is not None and result.lengths[0] == 700


@pytest.mark.parametrize("field", ["ranks_per_node", "tasks", "timeline", "memory", "lengths"])
def test_fields_that_a_writer_does_not_know_may_be_left_out(field: str) -> None:
    for document in (changed(SMALL, (field,), ...), changed(SMALL, (field,), None)):
        summarize([parsed(document)])


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), "dhp.plan/1", 'format: found "dhp.plan/1", expected "dhp.result/1"; this is another kind'),
        (("format",), ..., "format: missing, expected a text"),
        (("kind",), "guessed", 'kind: found "guessed", expected one of simulated, measured'),
        (("clock",), 3, "clock: found 3, expected one of simulated, emulated, wall"),
        (("name",), None, "name: found null, expected a text"),
        (("name",), "\ud800", 'name: found "?", expected a text'),
        (("ranks",), 0, "ranks: found 0, expected a whole number from 1 to 1000000"),
        (("ranks",), True, "ranks: found true, expected a whole number"),
        (("ranks",), 2.5, "ranks: found 2.5, expected a whole number"),
        (("steps",), [], "steps: found no step, expected at least one"),
        (("steps",), {}, "steps: found an object, expected a list of objects"),
        (("steps", 1), 7, "steps[1]: found 7, expected an object"),
        (("steps", 1, "seconds"), -1, "steps[1].seconds: found -1, expected a number from 0 to 1e+18"),
        (("steps", 1, "seconds"), ..., "steps[1].seconds: missing, expected a number from 0 to 1e+18"),
        (("steps", 1, "step"), 1, "steps[1].step: found 1 after 1, expected ascending numbers"),
        (("steps", 0, "idle_s", "peer"), "much", 'steps[0].idle_s.peer: found "much", expected a number'),
        (("steps", 0, "tokens"), 1.5, "steps[0].tokens: found 1.5, expected a whole number"),
        (("tasks", 0, "degree"), -1, "tasks[0].degree: found -1, expected a whole number from 1 to 2"),
        (("tasks", 1), None, "tasks[1]: found null, expected an object"),
        (("tasks", 1, "seconds"), -1.0, "tasks[1].seconds: found -1.0, expected a number from 0 to 1e+18"),
        (("tasks", 0, "degree"), 3, "tasks[0].degree: found 3, expected a whole number from 1 to 2"),
        (("timeline", "spans", 4, "rank"), 2, "timeline.spans[4].rank: found 2, expected a whole number from 0 to 1"),
        (("timeline", "spans", 0, "kind"), "nap", 'timeline.spans[0].kind: found "nap", expected one of compute, '),
        (("timeline", "spans", 1, "end_s"), -0.5, "timeline.spans[1].end_s: found -0.5, expected a number from 0"),
        (("timeline", "spans", 2, "end_s"), 1, "timeline.spans[2].end_s: found 1, expected at least start_s, 2.0"),
        (("memory", "peak_bytes"), [1], "memory.peak_bytes: found 1 numbers, expected one a rank: 2"),
        (("memory", "peak_bytes", 1), "x", 'memory.peak_bytes[1]: found "x", expected a number from 0 to 1e+18'),
        (("memory", "over_time", 1, "bytes"), [], "memory.over_time[1].bytes: found a list of 0, expected a number"),
        (("lengths", 2), -3, "lengths[2]: found -3, expected a whole number from 0"),
        (("lengths",), "many", 'lengths: found "many", expected a list of whole numbers'),
    ],
)  # fmt: skip
def test_bad_fields_are_named(path: tuple[str | int, ...], value: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parsed(changed(SMALL, path, value))
    assert str(caught.value).startswith(f"r.json: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "dhp.res', "line 1 column 12: not JSON: Unterminated string"),
        ("", "line 1 column 1: not JSON"),
        ("[]", "found a list of 0, expected an object"),
        ("[" * 100_000, "not a dhp.result/1 file: nested too deeply"),
        (json.dumps(SMALL).replace('"seconds": 4.0', '"seconds": 1e999'), "steps[0].seconds: found Infinity"),
        (json.dumps(SMALL).replace('"seconds": 4.0', '"seconds": NaN'), "steps[0].seconds: found NaN"),
        (json.dumps(SMALL).replace('"seconds": 4.0', '"seconds": ' + "9" * 400), "steps[0].seconds: found 999"),
        (json.dumps(SMALL).replace('"ranks": 2', '"ranks": ' + "9" * 5000), "not JSON that can be read"),
    ],
)
def test_texts_that_are_no_result(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_result(text, "r.json")
    assert str(caught.value).startswith(f"r.json: {message}")
    assert len(str(caught.value)) < 300


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b'{"name": "\xff"}')
    for file, message in (
        (tmp_path / "none.json", "cannot be read (No such file or directory)"),
        (tmp_path, "cannot be read (Is a directory)"),
        (tmp_path / "bytes.json", "byte 10: not UTF-8 text"),
    ):
        with pytest.raises(InputError) as caught:
            read_result(file)
        assert str(caught.value).startswith(f"{file}: {message}")


# --- mutations: either a page or an error that names the place

VALUES = [
    None,
    True,
    0,
    -1,
    1,
    2,
    1e308,
    -0.0,
    5e-324,
    2**63,
    10**30,
    "",
    "x",
    "compute",
    "<script>",
    [],
    {},
    [1],
    {"a": 1},
]


def mutated(document: Any, generator: random.Random) -> Any:
    """One random change at a random place: a value replaced, deleted, repeated or moved."""
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], (dict, list)):
                collect(value[key])

    collect(document)
    holder, key = generator.choice(places)
    way = generator.randrange(4)
    if way == 0:
        del holder[key]
    elif way == 1:
        holder[key] = copy.deepcopy(generator.choice(VALUES))
    elif way == 2:
        other, name = generator.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            holder[key] = copy.deepcopy(other[name])
    elif type(holder[key]) in (int, float):
        holder[key] = holder[key] * generator.choice([0, 0.5, -1, 2, 1e6, 1e300])
    return document


def test_mutated_results_give_a_page_or_an_error_with_a_place() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    pages = errors = 0
    for _ in range(1500):
        document = copy.deepcopy(SMALL)
        for _ in range(generator.choice([1, 1, 2, 4])):
            document = mutated(document, generator)
        text = json.dumps(document)
        if generator.random() < 0.1:  # bytes too, not only values
            at = generator.randrange(len(text))
            text = text[:at] + generator.choice(["", "0", '"', "}", "e9", "\\"]) + text[at + generator.randrange(3) :]
        try:
            result = parse_result(text, "r.json")
        except InputError as error:
            assert str(error).startswith("r.json: "), text
            errors += 1
            continue
        results = [result, parsed(SMALL)]
        summaries = summarize(results)
        json.dumps([summary.as_dict() for summary in summaries])
        drawn, left_out = figures(results, summaries)
        json.dumps([drawn, timeline.timelines(results, summaries)], allow_nan=False)
        assert len(drawn) + len(left_out) == 9
        pages += 1
    assert pages > 150 and errors > 150
