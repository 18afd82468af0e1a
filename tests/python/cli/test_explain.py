"""The command line: what `dhp explain` and `dhp compare` say of plans."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from command_line import GOOD_BATCH, GOOD_CLUSTER, GOOD_COST, dhp, inputs, on_terminal


def test_explain(files: dict[str, Path]) -> None:
    text = dhp("explain", *inputs(files), "--plan", files["plan"])
    assert text.code == 0, text.err
    # The verdict, then waits, chart, reasons, and what would help.
    places = [text.out.index(word) for word in ("step ", "waits", "ranks and time", "why each task", "one change")]
    assert places == sorted(places)
    assert places[0] == 0
    for word in ("bound ", "gap ", "limited by ", "groups ", "idle ", "transfer ", "memory ", "peers "):
        assert word in text.out
    answer = dhp("explain", *inputs(files), "--plan", files["plan"], "--output-format", "json").json()
    plan = json.loads(files["plan"].read_text())
    assert answer["makespan_s"] == pytest.approx(plan["predicted"]["makespan_s"], rel=1e-12)
    assert answer["lower_bound_s"] >= plan["predicted"]["lower_bound_s"] * (1 - 1e-12)
    assert answer["gap"] == pytest.approx(answer["makespan_s"] / answer["lower_bound_s"] - 1, abs=1e-12)
    assert 0.0 <= answer["idle_share"] < 1.0
    waits = [wait["seconds"] for wait in answer["longest_waits"]]
    assert len(waits) <= 3
    assert waits == sorted(waits, reverse=True)
    assert [task["task"] for task in answer["tasks"]] == [task["id"] for task in plan["tasks"]]
    assert [task["start_s"] for task in answer["tasks"]] == [task["start_s"] for task in plan["tasks"]]
    assert all(task["degree_reason"] and task["start_reason"] for task in answer["tasks"])
    assert len(answer["metrics"]["peers"]) == 6
    assert answer["what_if"]["method"] == f"planned again by {plan['planner']}"
    changes = {change["what"]: change for change in answer["what_if"]["changes"]}
    assert {"one rank more", "10 % more memory a rank", "twice the bandwidth"} <= changes.keys()
    assert changes["one rank more"]["from_s"] == answer["makespan_s"]


def test_explain_names_the_options_that_a_plan_breaks(files: dict[str, Path]) -> None:
    assert dhp("plan", *inputs(files), "--max-tokens-per-rank", "900", "-o", files["plan"]).code == 0
    plan = json.loads(files["plan"].read_text())
    wide = sum(len(task["ranks"]) > 1 for task in plan["tasks"])
    # One rank holds no 3,800 tokens under this cap, so that planning again has no answer.
    words = ["--max-degree", "1", "--max-tokens-per-rank", "3000"]
    text = dhp("explain", *inputs(files), "--plan", files["plan"], *words)
    assert text.code == 0, text.err
    assert "\nbreaks    tasks[0] has " in text.out
    reason = "sequence 11 has 3800 tokens; 1 rank offers 3000 under the cap on tokens a rank"
    assert f"planned again by free, which as it is gives no answer: {reason})" in text.out
    assert "0.000 s" not in text.out[text.out.index("what one change") :]
    answer = dhp("explain", *inputs(files), "--plan", files["plan"], *words, "--output-format", "json").json()
    degrees = [one for one in answer["broken_options"] if "max_degree" in one]
    assert len(degrees) == wide
    assert (answer["what_if"]["from_s"], answer["what_if"]["no_answer"]) == (None, reason)
    kept = dhp("explain", *inputs(files), "--plan", files["plan"], "--output-format", "json").json()
    assert kept["broken_options"] == []
    assert kept["what_if"]["no_answer"] is None


def test_explain_gives_reasons_by_the_options(files: dict[str, Path]) -> None:
    words = [*inputs(files), "--max-tokens-per-rank", "700"]
    assert dhp("plan", *words, "-o", files["plan"]).code == 0
    reasons = dhp("explain", *words, "--plan", files["plan"], "--output-format", "json").json()["tasks"]
    plan = json.loads(files["plan"].read_text())
    forced = 0
    for task, reason in zip(plan["tasks"], reasons, strict=True):
        if len(task["ranks"]) > 1 and reason["tokens"] > 700 * (len(task["ranks"]) - 1):
            assert reason["degree_reason"].startswith(f"tokens: {len(task['ranks'])} ranks are the fewest that hold it")
            forced += 1
    assert forced > 0


def test_explain_in_a_pipe_has_no_colours_and_a_hundred_columns(files: dict[str, Path]) -> None:
    out = dhp("explain", *inputs(files), "--plan", files["plan"]).out
    assert "\x1b" not in out
    chart = out[out.index("ranks and time") :].splitlines()[1:7]
    assert [line[0] for line in chart] == list("012345")
    assert {len(line) for line in chart} == {100}


def test_explain_on_a_terminal(files: dict[str, Path]) -> None:
    words = ["explain", *inputs(files), "--plan", files["plan"]]
    assert "\x1b[38;5;" in on_terminal(*words, NO_COLOR="")[0]
    assert "\x1b" not in on_terminal(*words, NO_COLOR="1")[0]


def test_explain_of_a_plan_by_hand_uses_bounds(files: dict[str, Path]) -> None:
    plan = json.loads(files["plan"].read_text())
    plan["planner"] = "me"
    files["plan"].write_text(json.dumps(plan))
    answer = dhp("explain", *inputs(files), "--plan", files["plan"], "--output-format", "json").json()
    assert answer["what_if"]["method"] == "lower bounds"
    assert answer["what_if"]["from_s"] == answer["lower_bound_s"]
    assert dhp("explain", *inputs(files), "--plan", files["plan"], "--all").code == 0


# --- compare


def test_pipelines_are_shown_by_plan_and_compare(files: dict[str, Path], tmp_path: Path) -> None:
    words = [*inputs(files), "--pipeline-stages", "4"]
    answer = dhp("plan", *words, "--planner", "lockstep", "-o", tmp_path / "p.json", "--output-format", "json").json()
    slowest: dict[int, float] = {}
    for task in json.loads((tmp_path / "p.json").read_text())["tasks"]:
        batch = task["micro_batch"]
        slowest[batch] = max(slowest.get(batch, 0.0), task["end_s"] - task["start_s"])
    expected = sum(slowest.values()) + 3 * max(slowest.values())
    assert answer["pipeline_s"] == pytest.approx(expected, rel=1e-9)
    text = dhp("plan", *words, "--planner", "lockstep").out
    assert f"pipeline  {expected:.3f} s with 4 stages, the slowest micro-batch {max(slowest.values()):.3f} s" in text
    compared = {one["planner"]: one for one in dhp("compare", *words, "--output-format", "json").json()["planners"]}
    assert compared["lockstep"]["pipeline_s"] == pytest.approx(expected, rel=1e-9)
    assert compared["free"]["pipeline_s"] is None
    assert " 4 stages" in dhp("compare", *words).out.splitlines()[1]
    assert "pipeline_s" not in dhp("plan", *inputs(files), "--output-format", "json", "-o", tmp_path / "q.json").json()


def test_compare_sorts_all_planners_by_makespan(files: dict[str, Path]) -> None:
    result = dhp("compare", *inputs(files))
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].startswith("12 sequences on 6 ranks, bound ")
    assert lines[1].split()[0] == "planner"
    answer = dhp("compare", *inputs(files), "--output-format", "json").json()["planners"]
    names = [entry["planner"] for entry in answer]
    assert {"free", "lockstep", "paper"} <= set(names)
    assert any(re.fullmatch(r"static:\d", name) for name in names), "the degree that it has chosen"
    assert names == [line.split()[0] for line in lines[2 : 2 + len(names)]]
    planned = [entry for entry in answer if "reason" not in entry]
    assert answer[: len(planned)] == planned
    makespans = [entry["makespan_s"] for entry in planned]
    assert makespans == sorted(makespans)
    for entry in planned:
        assert entry["planning_s"] > 0.0
        assert entry["ratio_to_bound"] is None or entry["ratio_to_bound"] >= 1.0
        assert 0.0 <= entry["exposed_transfer_share"] <= 1.0
        assert 0.0 < entry["peak_memory_share"] <= 1.0
        assert 0 <= entry["most_peers"] < 6
    free = next(entry for entry in planned if entry["planner"] == "free")
    assert free["makespan_s"] == json.loads(files["plan"].read_text())["predicted"]["makespan_s"]


def test_compare_says_where_a_static_mesh_is_as_good(tmp_path: Path) -> None:
    machine = (
        "--cluster",
        "ascend-910b-2x8",
        "--cost",
        "qwen3-vl-8b@ascend-910b",
        "--planners",
        "free,balanced-static",
    )

    def said_of(lengths: list[int]) -> str:
        batch = tmp_path / "batch.json"
        sequences = [{"id": i, "tokens": tokens} for i, tokens in enumerate(lengths)]
        batch.write_text(json.dumps({"format": "dhp.batch/1", "sequences": sequences}))
        result = dhp("compare", "--batch", batch, *machine)
        assert result.code == 0, result.err
        return result.out.splitlines()[-1]

    as_good = r"balanced-static:\d+ is as good here, at [01]\.\d{3} times the step of free: "
    assert re.fullmatch(as_good + "all sequences are about equally long", said_of([4096] * 64))
    why = "no sequence needs more than one rank, and whole sequences level the ranks"
    assert re.fullmatch(as_good + why, said_of([3000 + i * 37 % 2000 for i in range(256)]))
    own = "degrees of one's own save no more than they cost"
    assert re.fullmatch(as_good + own, said_of([30_000 + i * 371 % 20_000 for i in range(64)]))
    # One long sequence among short ones: a mesh makes them all wide, or the long one slow.
    assert said_of([120_000] + [1000] * 60).startswith("expected: ")


def test_compare_gives_the_reason_where_there_is_no_plan(files: dict[str, Path]) -> None:
    words = ["--planners", "static:4,paper", "--output-format", "json"]
    answer = dhp("compare", *inputs(files), *words).json()["planners"]
    assert [entry["planner"] for entry in answer] == ["paper", "static:4"]
    assert "4 does not divide the 6 ranks" in answer[1]["reason"]
    none = dhp("compare", *inputs(files), "--max-degree", "1", "--max-tokens-per-rank", "3000")
    assert none.code == 1
    assert "under the cap on tokens a rank" in none.out


def test_compare_with_noise_is_the_same_every_time(files: dict[str, Path]) -> None:
    words = ["--noise", "0.1", "--trials", "50", "--planners", "paper", "--output-format", "json"]

    def noisy(*more: str) -> tuple[float, float, float]:
        entry = dhp("compare", *inputs(files), *words, *more).json()["planners"][0]
        return entry["makespan_s"], entry["expected_s"], entry["expected_percentile95_s"]

    makespan, mean, high = noisy()
    assert makespan < mean < high
    assert noisy() == (makespan, mean, high)
    assert noisy("--seed", "8") != (makespan, mean, high)
    text = dhp("compare", *inputs(files), "--noise", "0.1").out
    assert "expected: mean of 200 steps with errors of 0.1 (each sequence, task, rank of a task), seed 7" in text
    assert "expected: " not in dhp("compare", *inputs(files), "--noise", "0").out


def test_compare_ranks_by_the_expected_step(files: dict[str, Path]) -> None:
    def answer(*more: str) -> dict[str, Any]:
        return dhp("compare", *inputs(files), *more, "--output-format", "json").json()

    def planned(entries: list[dict[str, Any]], key: str) -> list[float]:
        return [entry[key] for entry in entries if "reason" not in entry]

    usual = answer()
    assert usual["noise"]["sizes"] == {"sequence": 0.02, "task": 0.02, "rank": 0.01}
    expected = planned(usual["planners"], "expected_s")
    assert expected == sorted(expected)
    exact = answer("--noise", "0")
    assert "noise" not in exact
    makespans = planned(exact["planners"], "makespan_s")
    assert makespans == sorted(makespans)
    large = answer("--noise", "0.3,0.3,0.3")["planners"]
    assert planned(large, "expected_s") == sorted(planned(large, "expected_s"))
    assert planned(large, "makespan_s") != sorted(planned(large, "makespan_s"))
    cost = json.loads(files["cost"].read_text()) | {"expected_error": {"task": 0.3}}
    files["cost"].write_text(json.dumps(cost))
    assert answer()["noise"]["sizes"] == {"sequence": 0, "task": 0.3, "rank": 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--planners", "paper,best"],
            '--planners: found "best", which is no planner; expected some of free, lockstep, ',
        ),
        (["--noise", "2"], "--noise: sequence: found 2"),
        (["--noise", "0.1", "--trials", "0"], "--trials"),
        (["--max-degree", "-1"], "--max-degree: found -1, expected at least 0"),
    ],
)
def test_compare_refuses_bad_options(files: dict[str, Path], words: list[str], message: str) -> None:
    result = dhp("compare", *inputs(files), *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"dhp: error: {message}")


# --- notes: what is not counted


def test_notes_of_frames_that_are_not_known(files: dict[str, Path]) -> None:
    files["cost"].write_text(json.dumps(GOOD_COST | {"patch_pair_s": 1e-12}))
    commands = [
        ["plan"],
        ["compare", "--planners", "free"],
        ["explain", "--plan", files["plan"]],
        ["simulate", "--plan", files["plan"]],
    ]
    sequences = [sequence | {"patches": 400} for sequence in GOOD_BATCH["sequences"]]
    framed = [sequence | {"frame_patches": 400} for sequence in sequences]
    for batch, noted in ((sequences, True), (framed, False), (GOOD_BATCH["sequences"], False)):
        files["batch"].write_text(json.dumps({"format": "dhp.batch/1", "sequences": batch}))
        assert dhp("plan", *inputs(files), "-o", files["plan"]).code == 0
        for command, *more in commands:
            result = dhp(command, *inputs(files), *more)
            assert result.code == 0, result.err
            assert result.err == (
                f"dhp: note: {files['batch']} has patches and no frame_patches: attention of the vision tower is not "
                "counted; dhp dataset writes them\n"
                if noted
                else ""
            )


@pytest.mark.parametrize("name", ["node_bandwidth_bytes_per_s", "switch_bandwidth_bytes_per_s"])
def test_notes_of_links_that_times_leave_out(files: dict[str, Path], name: str) -> None:
    files["cluster"].write_text(json.dumps(GOOD_CLUSTER | {"nodes": 2, "ranks_per_node": 3, name: 1e10}))
    note = f"dhp: note: {files['cluster']}: times leave out {name}; free and lockstep plan for it, "
    for command in (["plan"], ["compare", "--planners", "free"]):
        result = dhp(*command, *inputs(files))
        assert result.code == 0
        assert result.err.startswith(note)
        assert result.err.count("\n") == 1
        assert dhp(*command, *inputs(files), "--max-peers", "2").err == ""
    files["cluster"].write_text(json.dumps(GOOD_CLUSTER | {name: 1e10}))
    assert dhp("plan", *inputs(files)).err == ""
