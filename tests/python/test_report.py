"""`dhp report`: the reader of results, the numbers of the page, and the page in a real browser."""

import copy
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import Page, browser_page, find_browser
from dhp._core import InputError
from dhp.report import charts, cli, timeline
from dhp.report.page import figures
from dhp.report.page import page as make_page
from dhp.report.summary import labels, summarize
from dhp.result import Result, parse_result, read_result
from made_results import write_results

# A result small enough to work everything out by hand: two ranks, two steps.
SMALL: dict[str, Any] = {
    "format": "dhp.result/1",
    "kind": "simulated",
    "name": "small",
    "schedule": "free",
    "ranks": 2,
    "ranks_per_node": 2,
    "clock": "simulated",
    "steps": [
        {
            "step": 1, "seconds": 4.0, "tasks_s": 3.5, "predicted_s": 3.0, "lower_bound_s": 2.5, "tokens": 1000,
            "planning_s": 0.002, "idle_s": {"peer": 0.5, "transfer": 0.25, "data": 0.0, "no_task": 1.0},
        },
        {
            "step": 2, "seconds": 6.0, "tasks_s": 5.5, "predicted_s": 5.5, "lower_bound_s": 5.5, "tokens": 3000,
            "planning_s": 0.004, "idle_s": {"peer": 0.5, "transfer": 0.0, "data": 0.0, "no_task": 0.0},
        },
    ],
    "tasks": [
        {"step": 1, "id": 0, "degree": 2, "sequences": 1, "tokens": 700, "predicted_s": 1.0, "seconds": 1.25},
        {"step": 1, "id": 1, "degree": 1, "sequences": 3, "tokens": 300, "predicted_s": 2.2, "seconds": 2.0},
    ],
    "timeline": {
        "step": 1,
        "spans": [
            {"rank": 1, "kind": "peer", "start_s": 0.0, "end_s": 0.5, "task": 0},
            {"rank": 0, "kind": "compute", "start_s": 0.0, "end_s": 2.0, "task": 1},
            {"rank": 0, "kind": "compute", "start_s": 2.0, "end_s": 3.0, "task": 0},
            {"rank": 0, "kind": "transfer", "start_s": 3.0, "end_s": 3.25, "task": 0},
            {"rank": 1, "kind": "compute", "start_s": 2.0, "end_s": 3.25, "task": 0},
            {"rank": 0, "kind": "reduce", "start_s": 3.5, "end_s": 4.0},
            {"rank": 1, "kind": "reduce", "start_s": 3.5, "end_s": 4.0},
        ],
    },
    "memory": {
        "budget_bytes": 4.0,
        "peak_bytes": [3.0, 2.0],
        "over_time": [
            {"rank": 0, "time_s": 0.0, "bytes": 0.0},
            {"rank": 0, "time_s": 2.0, "bytes": 3.0},
            {"rank": 1, "time_s": 1.0, "bytes": 2.0},
            {"rank": 1, "time_s": 2.0, "bytes": 1.0},
        ],
    },
    "lengths": [700, 100, 100, 100],
}  # fmt: skip


def parsed(document: dict[str, Any], source: str = "r.json") -> Result:
    return parse_result(json.dumps(document), source)


def changed(document: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy with one value replaced; `...` deletes it."""
    result: Any = copy.deepcopy(document)
    at = result
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return result


# --- the reader


def test_reading_gives_back_what_was_written() -> None:
    result = parsed(SMALL)
    assert (result.kind, result.name, result.schedule, result.ranks, result.clock) == (
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


# --- numbers, worked out by hand


def test_summary_of_the_small_result() -> None:
    [summary] = summarize([parsed(SMALL)])
    assert (summary.steps, summary.warm_up_left_out) == (2, False)
    assert (summary.step_s, summary.step_least_s, summary.step_most_s) == (5.0, 4.0, 6.0)
    assert summary.lower_bound_s == 4.0
    assert summary.over_bound == pytest.approx(9 / 8 - 1), "the tasks' part of the steps"
    assert summary.verdict.startswith("A step takes 5.00 s, its tasks 4.50 s, 12 % above the bound")
    assert summary.idle_shares == {"peer": 1.0 / 20, "transfer": 0.25 / 20, "data": 0.0, "no_task": 1.0 / 20}
    assert summary.idle_share == pytest.approx(2.25 / 20)
    assert summary.other_work_share == pytest.approx(1.0 / 8)
    assert summary.tokens_per_s == 400.0
    assert summary.tokens_per_s_per_rank == 200.0
    assert (summary.planning_s, summary.planning_most_s) == (pytest.approx(0.003), 0.004)
    assert summary.peak_memory_share == 0.75
    tasks, steps = summary.task_errors, summary.step_errors
    assert tasks is not None and steps is not None
    assert (tasks.count, tasks.mean_absolute, tasks.bias) == (2, pytest.approx(0.15), pytest.approx(-0.05))
    assert tasks.percentile95 == pytest.approx(0.1 + 0.95 * 0.1)
    assert (steps.count, steps.bias) == (2, pytest.approx((3.0 / 3.5 - 1) / 2)), "against the tasks' part of the step"
    assert (summary.speedup, summary.baseline) == (None, None)


def test_the_first_step_of_a_measured_run_is_left_out() -> None:
    [summary] = summarize([parsed(SMALL | {"kind": "measured", "clock": "wall"})])
    assert (summary.steps, summary.warm_up_left_out, summary.step_s) == (1, True, 6.0)
    assert summary.task_errors is None, "all tasks are of step 1"
    alone = changed(SMALL, ("steps", 1), ...) | {"kind": "measured"}
    assert summarize([parsed(alone)])[0].steps == 1


def test_speedups_compare_the_same_batches_only() -> None:
    fast = SMALL | {"name": "fast"}
    slow = SMALL | {"name": "slow", "schedule": "static:2"}
    slow["steps"] = [step | {"seconds": 2 * step["seconds"]} for step in SMALL["steps"]]
    other = changed(SMALL, ("steps", 0, "tokens"), 7) | {"name": "other"}
    wide = changed(SMALL, ("memory",), ...) | {"name": "wide", "ranks": 4}
    results = [parsed(document) for document in (fast, other, slow, wide)]
    summaries = summarize(results)
    assert [s.speedup for s in summaries] == [2.0, None, 1.0, None]
    assert [s.baseline for s in summaries] == ["slow", None, "slow", None]
    for baseline in ("fast", "free"):
        assert [s.speedup for s in summarize(results, baseline)] == [1.0, None, 0.5, None]
    figure = charts.speedup(results, summaries)
    assert isinstance(figure, dict) and figure["data"][0]["x"] == [2.0, 1.0]


def test_labels_leave_out_what_all_share_and_stay_unique() -> None:
    def named(*names: str) -> list[str]:
        return labels([parsed(SMALL | {"name": name}, f"{i}.json") for i, name in enumerate(names)])

    assert named("free, openvid, 64 ranks") == ["free, openvid, 64 ranks"]
    assert named("free, openvid, 64 ranks", "paper, openvid, 64 ranks") == ["free", "paper"]
    assert named("free, a, 8 ranks", "free, a, 16 ranks") == ["8 ranks", "16 ranks"]
    assert named("run", "run", "other") == ["run (0)", "run (1)", "other"]
    assert named("", "") == ["free (0)", "free (1)"]
    same = labels([parsed(SMALL, "a/x.json"), parsed(SMALL, "b/x.json")])
    assert same == ["small (x) #1", "small (x) #2"]


@pytest.mark.parametrize(
    ("shares", "over", "words"),
    [
        ({"peer": 0.2, "no_task": 0.05}, 0.3, ["20 % of all rank time is lost waiting for a peer", "5.0 %"]),
        ({"transfer": 0.3, "peer": 0.1}, 0.5, ["30 % of all rank time is lost waiting for a transfer"]),
        ({"data": 0.4}, 0.7, ["40 % of all rank time is lost waiting for data: the input comes too late"]),
        ({"no_task": 0.1}, 0.12, ["10 % of all rank time is lost to ranks without a task"]),
        ({"peer": 0.01}, 0.02, ["Computing limits it: ranks wait 1.0 % of the time"]),
        ({"peer": 0.01}, 0.3, ["Tasks compute 29 % longer than the bound counts"]),
    ],
)
def test_verdicts_name_what_limits_a_run(shares: dict[str, float], over: float, words: list[str]) -> None:
    seconds = 10.0
    step = {"step": 1, "seconds": seconds, "lower_bound_s": seconds / (1 + over)}
    step["idle_s"] = {cause: share * seconds * 2 for cause, share in shares.items()}
    bare = {key: SMALL[key] for key in ("format", "kind", "name", "schedule", "ranks", "clock")}
    [summary] = summarize([parsed(bare | {"steps": [step]})])
    for text in words:
        assert text in summary.verdict
    assert summary.verdict.startswith("A step takes 10.0 s, ")


def test_spans_become_rows_without_gaps() -> None:
    """Rank 0: alone 0 to 2, in a group 2 to 3, transfer to 3.25, nothing to 3.5, gradients; in millionths of 4 s."""
    result = parsed(SMALL)
    [lines], note = timeline.timelines([result], summarize([result]))
    assert note == ""
    assert (lines["seconds"], lines["ranks"], lines["step"]) == (4.0, 2, 1)
    names = [kind["name"] for kind in timeline.KINDS]
    rows = list(zip(lines["rank"], [names[k] for k in lines["kind"]], lines["start"], lines["long"], strict=True))
    second = 250_000
    assert rows == [
        (0, "computing alone", 0, 2 * second),
        (0, "in groups of 2 to 3", 2 * second, second),
        (0, "waiting for a transfer", 3 * second, second // 4),
        (0, "no task", 3.25 * second, second // 4),
        (0, "gradients", 3.5 * second, second // 2),
        (1, "waiting for a peer", 0, second // 2),
        (1, "no task", second // 2, 1.5 * second),
        (1, "in groups of 2 to 3", 2 * second, 1.25 * second),
        (1, "no task", 3.25 * second, second // 4),
        (1, "gradients", 3.5 * second, second // 2),
    ]
    assert lines["tasks"]["0"] == [2, 1, 700, 1.0, 1.25]


def test_memory_over_time_is_linear_between_points() -> None:
    result = parsed(SMALL)
    assert result.memory is not None and result.memory.over_time is not None
    times, fullest, mean = charts.envelope(result.memory.over_time, 2)
    first = np.interp(times, [0, 2], [0, 3])
    second = np.where(times < 1, 2.0, 3.0 - times)
    assert mean == pytest.approx((first + second) / 2)
    assert fullest.max() == 3.0
    assert (fullest >= np.maximum(first, second) - 1e-12).all()


def test_lengths_hold_all_sequences_and_all_tokens() -> None:
    result = parsed(SMALL)
    figure = charts.lengths([result], summarize([result]))
    assert isinstance(figure, dict)
    sequences, tokens = figure["data"]
    assert [y for y in sequences["y"] if y] == [75.0, 25.0]
    assert [y for y in tokens["y"] if y] == pytest.approx([30.0, 70.0])
    assert sequences["customdata"][0] == "91 to 127 tokens"


def test_scaling_needs_several_numbers_of_ranks_of_one_schedule() -> None:
    def at(ranks: int, name: str, schedule: str = "free") -> Result:
        document = changed(SMALL, ("memory",), ...) | {"ranks": ranks, "name": name, "schedule": schedule}
        return parsed(document)

    results = [at(4, "free, a, 4 ranks"), at(2, "free, a, 2 ranks"), at(2, "free, b, 2 ranks"), at(2, "x", "paper")]
    figure = charts.scaling(results, summarize(results))
    assert isinstance(figure, dict)
    [series] = figure["data"]
    assert (series["name"], series["x"], series["y"]) == ("free, a", [2, 4], [200.0, 100.0])
    assert isinstance(charts.scaling(results[2:], summarize(results[2:])), str)
    unnamed = [at(2, "yesterday"), at(4, "today")]
    figure = charts.scaling(unnamed, summarize(unnamed))
    assert isinstance(figure, dict) and figure["data"][0]["name"] == "free"


# --- the command


def run_report(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dhp.report.cli", *map(str, words)], capture_output=True, text=True, timeout=120
    )


def test_command_writes_a_page_and_says_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(SMALL))
    done = run_report(tmp_path / "r.json", "-o", tmp_path / "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "small: 5.00 s a step."
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'page.html'}"
    text = (tmp_path / "page.html").read_text()
    assert text.count("plotly.js v") >= 1
    assert "src=" not in text.split("plotly.js v")[0], "nothing is loaded from elsewhere"

    done = run_report(tmp_path / "r.json", "--output-format", "json")
    answer = json.loads(done.stdout)
    assert answer["results"][0]["step_s"] == 5.0
    assert answer["results"][0]["task_errors"]["count"] == 2
    assert answer["left_out"].keys() == {"speedup", "scaling"}


def test_command_names_what_is_wrong(tmp_path: Path) -> None:
    good, bad = tmp_path / "r.json", tmp_path / "bad.json"
    good.write_text(json.dumps(SMALL))
    bad.write_text(json.dumps(changed(SMALL, ("ranks",), "two")))
    for words, message in (
        ([bad], f'{bad}: ranks: found "two", expected a whole number from 1 to 1000000'),
        ([good, tmp_path / "none.json"], f"{tmp_path / 'none.json'}: cannot be read"),
        ([good, "--baseline", "best"], '--baseline: found "best", expected a result or schedule: free, small'),
        ([good, "-o", tmp_path / "no" / "page.html"], f"{tmp_path / 'no' / 'page.html'}: cannot be written"),
    ):
        done = run_report(*words)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"dhp: error: {message}")
        assert done.stderr.count("\n") == 1


# --- the page


def test_figures_are_what_plotly_knows(tmp_path: Path) -> None:
    """plotly's Python classes know every attribute that plotly.js does, and refuse others."""
    graph_objects = pytest.importorskip("plotly.graph_objects")
    results = [read_result(file) for n in (8, 16) for file in write_results(tmp_path, n, ["free", "static:4"], steps=2)]
    drawn, left_out = figures(results, summarize(results))
    assert not left_out
    named = {"INK": "#000000", "QUIET": "#999999"}  # set by page.js
    for figure in drawn.values():
        text = json.dumps(figure)
        for name, colour in named.items():
            text = text.replace(f'"{name}"', f'"{colour}"')
        graph_objects.Figure(json.loads(text))


def test_names_cannot_break_out_of_the_page() -> None:
    name = "</script><script>alert(1)</script> & <b>"
    results = [parsed(SMALL | {"name": name}), parsed(SMALL | {"name": "{{DATA}}"})]
    text, _ = make_page(results, summarize(results))
    assert "alert(1)</script>" not in text
    assert text.count("{{DATA}}") > 0, "a name is no placeholder"


needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")

# Sections and the traces in each of them; checked against what the browser drew.
TRACES = """Object.fromEntries([...document.querySelectorAll("section .js-plotly-plot")].map((chart) => {
  const marks = chart.querySelectorAll(".scatterlayer .trace path, .barlayer .point path, .boxlayer path.box").length;
  const box = chart.querySelector(".plot, .bglayer").getBoundingClientRect();
  return [chart.closest("section").id, {traces: chart.data.length, marks, width: box.width, height: box.height}];
}))"""
OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll("header, section")].map((e) => e.getBoundingClientRect());
  const bad = [];
  for (const a of boxes) for (const b of boxes) {
    const across = a.left < b.right - 1 && b.left < a.right - 1;
    if (a !== b && across && a.top < b.bottom - 1 && b.top < a.bottom - 1) bad.push(a.top);
  }
  for (const chart of document.querySelectorAll(".js-plotly-plot")) {
    const id = chart.closest("section").id;
    const area = chart.querySelector(".nsewdrag").getBoundingClientRect();
    const legend = chart.querySelector("g.legend .bg");
    if (legend && legend.getBoundingClientRect().bottom > area.top + 1) bad.push(`${id}: legend over the chart`);
    if (chart.scrollHeight > chart.closest("section").clientHeight) bad.push(`${id}: higher than its section`);
    if (area.height < 40 || area.width < 100) bad.push(`${id}: no room`);
  }
  if (document.documentElement.scrollWidth > window.innerWidth) bad.push("wider than the window");
  return bad;
})()"""
AREA = """(() => { const box = document.querySelector("#timeline .nsewdrag").getBoundingClientRect();
  return [box.left, box.top, box.width, box.height]; })()"""


@pytest.fixture(scope="module")
def browser() -> Any:
    with browser_page() as page:
        yield page


@pytest.fixture(autouse=True)
def no_old_problems(request: pytest.FixtureRequest) -> None:
    if "browser" in request.fixturenames:
        request.getfixturevalue("browser").problems.clear()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """many.html: five schedules on 64 ranks, two on 16 and 32; wide.html: 1,024 ranks; small.html; bare.html."""
    folder = tmp_path_factory.mktemp("pages")
    files = write_results(folder, 64, ["free", "lockstep", "paper", "balanced-static:4", "static:4"])
    files += write_results(folder, 16, ["free", "static:4"]) + write_results(folder, 32, ["free", "static:4"])
    cli.report([str(file) for file in files], str(folder / "many.html"))
    wide = write_results(folder, 1024, ["free", "static:8"], steps=2)
    cli.report([str(file) for file in wide], str(folder / "wide.html"))
    (folder / "small.json").write_text(json.dumps(SMALL | {"name": "</script><i>small</i>"}))
    cli.report([str(folder / "small.json")], str(folder / "small.html"))
    bare = {key: SMALL[key] for key in ("format", "kind", "name", "schedule", "ranks", "clock")}
    (folder / "bare.json").write_text(json.dumps(bare | {"steps": [{"step": 1, "seconds": 2.0}]}))
    cli.report([str(folder / "bare.json")], str(folder / "bare.html"))
    return folder


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_chart_is_drawn(browser: Page, pages: Path, width: int, dark: bool) -> None:
    browser.open(pages / "many.html", width=width, dark=dark)
    drawn = browser.value(TRACES)
    assert {key: chart["traces"] for key, chart in drawn.items() if key != "timeline"} == {
        "idle": 4,
        "speedup": 1,
        "scaling": 2,
        "tasks": 1 + 9,
        "steps": 1 + 9,
        "planning": 9,
        "lengths": 3,
        "memory": 9,
        "memory_over_time": 9,
    }
    for key, chart in drawn.items():
        assert chart["marks"] >= chart["traces"] - 1, key  # an empty cause of idleness has no bars
        assert chart["width"] > 100 and chart["height"] > 40, key
    kinds = set(browser.value("document.querySelector('#timeline .chart').data.map((trace) => trace.name)"))
    assert kinds >= {"computing alone", "in groups of 2 to 3", "of 4 to 7", "waiting for a transfer", "no task"}
    assert browser.value(OVERLAPS) == []
    assert browser.value("document.querySelector('#left-out')") is None
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper.removeprefix("rgb(").rstrip(")").split(","))) < 384) == dark
    ink = browser.value("document.querySelector('#idle .chart').layout.font.color")
    assert ink == ("#e6e9ef" if dark else "#1d2330")
    assert browser.problems == []


@needs_browser
@pytest.mark.parametrize("name", ["many", "wide"])
def test_the_timeline_zooms_to_what_was_dragged_over(browser: Page, pages: Path, name: str) -> None:
    browser.open(pages / f"{name}.html")
    chart = "document.querySelector('#timeline .chart')"
    full = browser.value(f"{chart}.layout.xaxis.range")
    full_ranks = browser.value(f"{chart}.layout.yaxis.range")
    browser.value("window.scrollTo(0, document.querySelector('#timeline').offsetTop)")
    left, top, width, height = browser.value(AREA)
    browser.drag((left + 0.2 * width, top + 0.25 * height), (left + 0.6 * width, top + 0.75 * height))
    browser.wait(f"{chart}.layout.xaxis.range[0] > 0.1")
    span = full[1] - full[0]
    assert browser.value(f"{chart}.layout.xaxis.range") == pytest.approx(
        [full[0] + 0.2 * span, full[0] + 0.6 * span], abs=0.02 * span
    )
    rows = full_ranks[0] - full_ranks[1]
    assert browser.value(f"{chart}.layout.yaxis.range") == pytest.approx(
        [full_ranks[1] + 0.75 * rows, full_ranks[1] + 0.25 * rows], abs=0.04 * rows
    )
    # Only what is in view is drawn: nothing ends before it.
    ends = f"Math.min(...{chart}.data.flatMap((t) => t.x.filter((_, i) => i % 5 === 1)))"
    browser.wait(f"{ends} > {full[0] + 0.15 * span}")

    browser.value(f"Plotly.relayout({chart}, {{'xaxis.range': [1, 2]}}).then(() => 1)")
    browser.wait(f"{chart}._fullLayout.xaxis.range[1] === 2")
    browser.value(f"Plotly.relayout({chart}, {{'xaxis.autorange': true}}).then(() => 1)")
    browser.wait(f"{chart}.layout.xaxis.range[1] === {full[1]}")
    assert browser.problems == []


@needs_browser
def test_pointing_at_a_bar_names_its_task(browser: Page, pages: Path) -> None:
    browser.open(pages / "small.html")
    browser.value("window.scrollTo(0, document.querySelector('#timeline').offsetTop)")
    left, top, width, height = browser.value(AREA)

    def tip(rank: int, time_s: float) -> str:
        browser.move((left + time_s / 4.0 * width, top + (rank + 0.5) / 2 * height))
        return browser.value("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")

    assert tip(0, 1.0) == (
        "rank 0: computing alone\n2 s, from 0 s\ntask 1, 1 rank, 3 sequences, 300 tokens\npredicted 2.2 s, was 2 s"
    )
    assert tip(1, 2.6).startswith("rank 1: in groups of 2 to 3\n1.25 s, from 2 s\ntask 0, 2 ranks")
    assert tip(1, 0.25).startswith("rank 1: waiting for a peer")
    assert tip(1, 1.0) == "rank 1: no task\n1.5 s, from 0.5 s"
    assert browser.value("document.querySelector('header').innerText").startswith("</script><i>small</i>: 5.00 s")
    assert browser.problems == []


@needs_browser
def test_another_result_can_be_chosen(browser: Page, pages: Path) -> None:
    browser.open(pages / "many.html")
    chart = "document.querySelector('#timeline .chart')"
    shown = f"{chart}.layout.annotations.map((note) => note.text)"
    assert browser.value(shown) == ["free, 64 ranks", "static:4, 64 ranks"]
    choose = """((n, label) => { const select = document.querySelectorAll('#timeline select')[n];
      select.value = [...select.options].find((option) => option.text === label).value;
      select.dispatchEvent(new Event('change')); })"""
    browser.value(f"{choose}(0, 'static:4, 16 ranks')")
    browser.wait(f"{shown}[0] === 'static:4, 16 ranks'")
    browser.value(f"{choose}(1, 'nothing')")
    browser.wait(f"{shown}.length === 0")
    assert browser.value(f"{chart}.layout.yaxis.range") == [15.5, -0.5]
    assert browser.problems == []


@needs_browser
def test_a_bare_result_says_what_is_not_shown(browser: Page, pages: Path) -> None:
    browser.open(pages / "bare.html")
    assert browser.value("document.querySelectorAll('.js-plotly-plot').length") == 0
    assert browser.value("document.querySelectorAll('#left-out li').length") == 10
    assert browser.problems == []


@needs_browser
def test_the_theme_follows_the_system(browser: Page, pages: Path) -> None:
    browser.open(pages / "small.html", dark=False)
    browser.theme(dark=True)
    browser.wait("document.querySelector('#idle .chart').layout.font.color === '#e6e9ef'")
    assert browser.problems == []


def test_big_results_stay_readable(tmp_path: Path) -> None:
    """The page of 1,024 ranks is not much larger than plotly.js itself, and no trace is one span."""
    from plotly.offline import get_plotlyjs

    files = write_results(tmp_path, 1024, ["free"], steps=1)
    results = [read_result(file) for file in files]
    text, _ = make_page(results, summarize(results))
    spans = results[0].timeline.spans["rank"].size if results[0].timeline else 0
    assert spans > 8000
    assert len(text) - len(get_plotlyjs()) < 100 * spans
    assert math.isclose(sum(results[0].lengths), results[0].steps[0].tokens)  # type: ignore[arg-type]
