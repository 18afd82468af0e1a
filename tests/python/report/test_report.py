"""`dhp report`: the numbers of the page, worked out by hand, and the command."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dhp._core import InputError
from dhp.report import charts, cli, timeline
from dhp.report.summary import labels, left_out_of_labels, summarize
from dhp.watch.result import Result
from small_result import SMALL, changed, parsed


def test_summary_of_the_small_result() -> None:
    [summary] = summarize([parsed(SMALL)])
    assert (summary.steps, summary.warm_up_left_out) == (2, False)
    assert (summary.step_s, summary.step_least_s, summary.step_most_s) == (5.0, 4.0, 6.0)
    assert summary.lower_bound_s == 4.0
    assert (summary.predicted_s, summary.expected_s) == (4.25, None)
    steps = [step | {"expected_s": seconds} for step, seconds in zip(SMALL["steps"], (4.0, 5.0), strict=True)]
    [told] = summarize([parsed(SMALL | {"steps": steps})])
    assert (told.predicted_s, told.expected_s) == (4.25, 4.5)
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
    slow = SMALL | {"name": "slow", "planner": "static:2"}
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


def of_steps(numbers: range, **more: object) -> dict[str, object]:
    steps = [{"step": number, "seconds": 4.0, "tokens": 1000} for number in numbers]
    bare = {key: SMALL[key] for key in ("format", "kind", "name", "planner", "ranks", "clock")}
    return bare | {"steps": steps} | more


def test_simulations_of_one_batch_compare_however_often_they_repeat_it() -> None:
    short = of_steps(range(1, 11), name="short")
    long = of_steps(range(1, 101), name="long")
    long["steps"] = [step | {"seconds": 8.0} for step in long["steps"]]
    assert [s.speedup for s in summarize([parsed(short), parsed(long)])] == [2.0, 1.0]
    other = of_steps(range(1, 11), name="other")
    other["steps"] = [step | {"tokens": 999} for step in other["steps"]]
    assert [s.speedup for s in summarize([parsed(short), parsed(other)])] == [None, None]


def test_results_that_cannot_be_compared_say_why() -> None:
    def why(*documents: dict[str, object]) -> object:
        results = [parsed(document) for document in documents]
        summaries = summarize(results)
        assert all(s.speedup is None for s in summaries)
        return charts.speedup(results, summaries)

    measured = {"kind": "measured", "clock": "wall"}
    long = of_steps(range(1, 12), name="long", **measured)
    assert why(long) == "it takes two results with times of steps"
    said = 'no two results can be compared: "long" and "{}" differ in {}'
    # The first step of a measured run warms up.
    short = of_steps(range(1, 6), name="short", **measured)
    assert why(long, short) == said.format("short", "the steps that they hold (2 to 11, 2 to 5)")
    wide = of_steps(range(1, 12), name="wide", **measured, ranks=4)
    assert why(long, wide) == said.format("wide", "ranks (2 and 4)")
    simulated = of_steps(range(2, 12), name="simulated")
    ways = "kind (measured and simulated) and clock (wall and simulated)"
    assert why(long, simulated) == said.format("simulated", ways)
    later = of_steps(range(3, 14), name="later", **measured)
    later["steps"] = [step | {"tokens": step["step"]} for step in later["steps"]]
    assert why(long, later, simulated) == said.format("later", "batches")


def test_labels_leave_out_what_all_share_and_stay_unique() -> None:
    def named(*names: str) -> list[str]:
        return labels([parsed(SMALL | {"name": name}, f"{i}.json") for i, name in enumerate(names)])

    assert named("free, openvid, 64 ranks") == ["free, openvid, 64 ranks"]
    assert named("free, openvid, 64 ranks", "paper, openvid, 64 ranks") == ["free", "paper"]
    assert named("free, a, 8 ranks", "free, a, 16 ranks") == ["8 ranks", "16 ranks"]
    assert named("run", "run", "other") == ["run (0)", "run (1)", "other"]
    assert named("", "") == ["free (0)", "free (1)"]
    assert named("two\nlines,\t2 ranks") == ["two lines, 2 ranks"]
    assert named("x" * 10_000) == ["x" * 199 + "…"]
    measured = [
        parsed(SMALL | {"name": f"{name}, train, 4 ranks", "kind": "measured"}) for name in ("free", "static:4")
    ]
    sweep = [parsed(SMALL | {"name": f"{name}, msrvtt, h100-1x8, small"}) for name in ("free", "paper")]
    assert labels(sweep + measured) == ["free, simulated", "paper, simulated", "free, measured", "static:4, measured"]
    assert labels(sweep[1:] + measured) == ["paper, msrvtt, h100-1x8, small", "free", "static:4"]
    assert left_out_of_labels(sweep + measured, summarize(sweep + measured)) == (
        "Not in the names, since all share it: simulated: msrvtt, h100-1x8, small; measured: train, 4 ranks."
    )
    assert left_out_of_labels(sweep[:1], summarize(sweep[:1])) == ""
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
    bare = {key: SMALL[key] for key in ("format", "kind", "name", "planner", "ranks", "clock")}
    [summary] = summarize([parsed(bare | {"steps": [step]})])
    for text in words:
        assert text in summary.verdict
    assert summary.verdict.startswith("A step takes 10.0 s, ")


def test_spans_become_rows_without_gaps() -> None:
    """Rank 0: alone 0 to 2, in a group 2 to 3, transfer to 3.25, nothing to 3.5, gradients; in millionths of 4 s."""
    result = parsed(SMALL)
    [lines], note = timeline.timelines([result], summarize([result]))
    assert note == ""
    assert (lines["seconds"], lines["ranks"], lines["rows"], lines["every"]) == (4.0, 2, 2, 1)
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
    assert lines["tasks"][0] == "task 0, 2 ranks, 1 sequence, 700 tokens<br>predicted 1 s, was 1.25 s"


def test_of_too_many_rows_some_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MOST_BARS", 9)
    result = parsed(SMALL)
    [lines], note = timeline.timelines([result], summarize([result]))
    assert note == "Of small one in 2 ranks is shown: all have too many bars."
    assert set(lines["rank"]) == {0}
    assert (lines["ranks"], lines["rows"]) == (2, 1)


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


def test_scaling_needs_several_numbers_of_ranks_of_one_planner() -> None:
    def at(ranks: int, name: str, planner: str = "free") -> Result:
        document = changed(SMALL, ("memory",), ...) | {"ranks": ranks, "name": name, "planner": planner}
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
        [sys.executable, "-m", "dhp.report.cli", *map(str, words)], capture_output=True, text=True, timeout=240
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(SMALL)[:-9], "not JSON: .*; was the file cut off\\?"),
        ('{"format": ' + "[" * 100_000, "not a dhp.result/1 file: nested too deeply"),
        ('{"format": "dhp.result/1", "ranks": ' + "9" * 5000 + "}", "not JSON that can be read: .*"),
        (
            '{"format": "dhp.result/1", "ranks": 1e400}',
            "ranks: found Infinity, expected a whole number from 1 to 1000000",
        ),
        ("\xff\x00", "byte 0: not UTF-8 text; expected a dhp.result/1 file"),
        ("", "line 1 column 1: not JSON: .*"),
        ("[]", "found a list of 0, expected an object"),
        (
            '{"format": "dhp.plan/1"}',
            '.*found "dhp.plan/1", expected "dhp.result/1"; this is another kind of file of dhp',
        ),
    ],
)
def test_a_malformed_result_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "r.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=f"^{tmp_path / 'r.json'}: (.*: )?{message}$") as raised:
        cli.report([str(tmp_path / "r.json")])
    assert "\n" not in str(raised.value)


def test_a_result_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dhp.watch.result.MOST_BYTES", 3_000_000)
    with pytest.raises(InputError, match=r"^/dev/zero: more than 3 MB; expected a dhp\.result/1 file"):
        cli.report(["/dev/zero"])


def test_names_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.json").write_text(json.dumps(SMALL | {"name": "\x1b]0;title\x07\u202e"}))
    assert cli.main([str(tmp_path / "r.json"), "-o", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.startswith("\\x1b]0;title\\x07\\u202e: 5.00 s a step.")


def test_command_names_what_is_wrong(tmp_path: Path) -> None:
    good, bad = tmp_path / "r.json", tmp_path / "bad.json"
    good.write_text(json.dumps(SMALL))
    bad.write_text(json.dumps(changed(SMALL, ("ranks",), "two")))
    for words, message in (
        ([bad], f'{bad}: ranks: found "two", expected a whole number from 1 to 1000000'),
        ([good, tmp_path / "none.json"], f"{tmp_path / 'none.json'}: cannot be read"),
        ([good, "--baseline", "best"], '--baseline: found "best", expected a result or planner: "free", "small"'),
        ([good, "-o", good], f"-o: {good} is one of the results; give another path"),
        ([good, "-o", tmp_path / "no" / "page.html"], f"-o: {tmp_path / 'no' / 'page.html'} cannot be written"),
    ):
        done = run_report(*words)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"dhp: error: {message}")
        assert done.stderr.count("\n") == 1
