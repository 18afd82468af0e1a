"""`dhp simulate`: figures, result file, traces, and what Holistic Trace Analysis makes of them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from command_line import GOOD_BATCH, GOOD_COST, changed, dhp, on_terminal
from dhp.report.summary import summarize
from dhp.watch.result import read_result

CLUSTER = {
    "format": "dhp.cluster/1",
    "nodes": 3,
    "ranks_per_node": 3,
    "memory_bytes": 68719476736,
    "intra_node": {"bandwidth_bytes_per_s": 1.8e10, "latency_s": 1e-5, "links": 2},
    "inter_node": {"bandwidth_bytes_per_s": 1e9, "latency_s": 3e-5},
    "node_bandwidth_bytes_per_s": 1e9,
    "rank_speed": [1, 1, 1, 1, 1, 1, 0.9, 1, 0],
}
COST = GOOD_COST | {"gradient_bytes": 2e9, "optimizer_s": 0.05}
BATCH = {
    "format": "dhp.batch/1",
    "sequences": [{"id": i, "tokens": 300 + 2000 * i, "patches": 400 * (i % 3)} for i in range(20)],
}


def write_inputs(folder: Path, **documents: dict[str, Any]) -> list[str | Path]:
    """Flags for files of these documents."""
    words: list[str | Path] = []
    for name, document in documents.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps(document))
        words += [f"--{name}", file]
    return words


@pytest.fixture
def inputs(tmp_path: Path) -> list[str | Path]:
    """Batch, cluster with a NIC a node, cost with a reduction, and a plan of groups over several nodes."""
    words = write_inputs(tmp_path, batch=BATCH, cluster=CLUSTER, cost=COST)
    planned = dhp("plan", *words, "--planner", "paper", "-o", tmp_path / "plan.json")
    assert planned.code == 0, planned.out
    return [*words, "--plan", tmp_path / "plan.json"]


# --- figures


def test_a_plan_takes_what_it_predicts_where_nothing_is_shared(tmp_path: Path) -> None:
    cluster = {k: v for k, v in CLUSTER.items() if k != "node_bandwidth_bytes_per_s"}
    words = write_inputs(tmp_path, batch=BATCH, cluster=cluster, cost=GOOD_COST)
    assert dhp("plan", *words, "-o", tmp_path / "plan.json").code == 0
    result = dhp("simulate", *words, "--plan", tmp_path / "plan.json", "--output-format", "json")
    assert result.code == 0
    assert result.json()["mean_s"] == pytest.approx(result.json()["predicted_s"], rel=1e-9)
    text = dhp("simulate", *words, "--plan", tmp_path / "plan.json").out
    assert text.startswith("step ")
    for word in ("plan predicted", "bound", "idle", "peer", "transfer", "no task", "memory"):
        assert word in text
    assert "reduction" not in text


def test_limits_that_tasks_share_reduction_and_planning_show(inputs: list[str | Path]) -> None:
    result = dhp("simulate", *inputs, "--planning-s", "0.25", "--output-format", "json").json()
    step = result["steps"][0]
    assert step["tasks_end_s"] > result["predicted_s"] * 1.001
    assert step["tasks_end_s"] < step["reduce_end_s"] < step["optimizer_end_s"] == step["seconds"]
    text = dhp("simulate", *inputs, "--planning-s", "0.25").out
    assert "gradient reduction" in text
    assert "hidden behind the step" in text
    late = dhp("simulate", *inputs, "--planning-s", "1000", "--output-format", "json").json()
    assert late["mean_s"] == 1000
    assert late["steps"][0]["idle_s"]["data"] == pytest.approx(8 * (1000 - step["seconds"]))  # one is out of service


def test_noise_is_seeded(inputs: list[str | Path]) -> None:
    words = ["simulate", *inputs, "--noise", "0.1", "--steps", "20", "--output-format", "json"]
    first = dhp(*words).json()
    assert dhp(*words).json() == first
    assert dhp(*words, "--seed", "8").json()["mean_s"] != first["mean_s"]
    assert first["least_s"] < first["mean_s"] < first["percentile95_s"] <= first["most_s"]
    assert len(first["steps"]) == 20
    text = dhp("simulate", *inputs, "--noise", "0.1", "--steps", "20").out
    assert "noise 0.1, seed 7" in text


def test_a_plan_for_another_network_is_predicted_anew(tmp_path: Path) -> None:
    words = write_inputs(tmp_path, batch=BATCH, cluster=CLUSTER, cost=COST)
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(changed(CLUSTER, ("inter_node", "bandwidth_bytes_per_s"), 1e8)))
    planned = ["--batch", tmp_path / "batch.json", "--cost", tmp_path / "cost.json", "--plan", tmp_path / "plan.json"]
    assert dhp("plan", *planned[:4], "--cluster", slow, "-o", tmp_path / "plan.json").code == 0
    ours = dhp("simulate", *words, "--plan", tmp_path / "plan.json", "--output-format", "json").json()
    theirs = dhp("simulate", *planned, "--cluster", slow, "--output-format", "json").json()
    assert theirs["predicted_s"] == json.loads((tmp_path / "plan.json").read_text())["predicted"]["makespan_s"]
    assert ours["predicted_s"] < theirs["predicted_s"]


def test_an_empty_batch_takes_no_time(tmp_path: Path) -> None:
    words = write_inputs(tmp_path, batch={"format": "dhp.batch/1", "sequences": []}, cluster=CLUSTER, cost=GOOD_COST)
    assert dhp("plan", *words, "-o", tmp_path / "plan.json").code == 0
    result = dhp("simulate", *words, "--plan", tmp_path / "plan.json", "--trace", tmp_path / "t.json")
    assert result.code == 0, result.err
    assert result.out.startswith("step 0.000 s")
    json.loads((tmp_path / "t.json").read_text())


# --- result file


def test_the_result_file_says_the_same(inputs: list[str | Path], tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    said = dhp(
        "simulate", *inputs, "--steps", "3", "--noise", "0.1", "--result", file, "--output-format", "json"
    ).json()
    result = json.loads(file.read_text())
    assert result["format"] == "dhp.result/1"
    assert (result["kind"], result["clock"], result["planner"]) == ("simulated", "simulated", "paper")
    assert (result["ranks"], result["ranks_per_node"]) == (9, 3)
    assert [step["seconds"] for step in result["steps"]] == [step["seconds"] for step in said["steps"]]
    assert [step["tasks_s"] for step in result["steps"]] == [step["tasks_end_s"] for step in said["steps"]]
    assert all(step["tokens"] == sum(s["tokens"] for s in BATCH["sequences"]) for step in result["steps"])
    assert all(step["lower_bound_s"] < step["predicted_s"] < step["expected_s"] for step in result["steps"])
    tasks = [task for task in result["tasks"] if task["step"] == 2]
    assert [task["id"] for task in tasks] == list(range(len(tasks)))
    assert sum(task["sequences"] for task in tasks) == len(BATCH["sequences"])
    assert sorted(result["lengths"]) == sorted(s["tokens"] for s in BATCH["sequences"])
    assert max(result["memory"]["peak_bytes"]) <= result["memory"]["budget_bytes"]
    assert {point["rank"] for point in result["memory"]["over_time"]} <= set(range(8))


def test_a_report_reads_what_was_simulated(inputs: list[str | Path], tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert dhp("simulate", *inputs, "--steps", "4", "--noise", "0.1", "--planning-s", "0.5", "--result", file).code == 0
    [summary] = summarize([read_result(str(file))])
    assert summary.planning_s == 0.5
    assert summary.step_errors is not None and summary.step_errors.count == 4
    assert summary.over_bound is not None
    assert 0 < summary.over_bound < summary.step_s / summary.lower_bound_s - 1, "the bound is of the tasks"


def test_spans_of_the_timeline_are_the_idle_time(inputs: list[str | Path], tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    assert dhp("simulate", *inputs, "--planning-s", "600", "--result", file).code == 0
    result = json.loads(file.read_text())
    step = result["steps"][0]
    spent: dict[str, float] = defaultdict(float)
    end = dict.fromkeys(range(8), 0.0)
    for span in result["timeline"]["spans"]:
        assert span["start_s"] >= end[span["rank"]] - 1e-9, "spans of a rank do not overlap"
        end[span["rank"]] = span["end_s"]
        spent[span["kind"]] += span["end_s"] - span["start_s"]
    assert set(spent) == {"compute", "transfer", "peer", "data", "reduce", "optimizer"}
    for cause in ("peer", "transfer", "data"):
        assert spent[cause] == pytest.approx(step["idle_s"][cause])
    assert 8 * step["seconds"] - sum(spent.values()) == pytest.approx(step["idle_s"]["no_task"])


# --- traces


def test_the_chrome_trace_is_well_formed(inputs: list[str | Path], tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    assert dhp("simulate", *inputs, "--steps", "2", "--noise", "0.1", "--trace", file).code == 0
    events = json.loads(file.read_text())["traceEvents"]
    slices: dict[tuple[int, int], list[tuple[float, float, str]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            assert event["pid"] == event["tid"] % 9 // 3, "processes are nodes"
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"], event["name"]))
    for thread in slices.values():
        open_ends: list[float] = []
        for start, end, name in sorted(thread, key=lambda one: (one[0], -one[1])):
            while open_ends and open_ends[-1] <= start + 5e-3:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + 5e-3, f"{name} reaches out of the slice that it begins in"
            open_ends.append(end)
    names = {name for thread in slices.values() for _, _, name in thread}
    assert {"task 0", "wait for peers", "gradient reduction", "optimizer", "shard 1 forward"} <= names
    arrows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            arrows[event["id"]].append(event)
            inside = slices[event["pid"], event["tid"]]
            assert any(start <= event["ts"] < end for start, end, _ in inside), "an arrow ends at a slice"
    assert arrows
    for start, end in arrows.values():
        assert (start["ph"], end["ph"]) == ("s", "f")
        assert start["ts"] <= end["ts"]
    counters = [event for event in events if event["ph"] == "C"]
    assert max(event["args"]["MiB"] for event in counters) > 0


@pytest.mark.parametrize("steps", [1, 3])
def test_holistic_trace_analysis_finds_the_same_idle_time_and_exposed_communication(
    inputs: list[str | Path], tmp_path: Path, steps: int
) -> None:
    from hta.trace_analysis import TraceAnalysis

    folder = tmp_path / "traces"
    words = ["--steps", str(steps), "--noise", "0.1", "--trace", f"{folder}/", "--output-format", "json"]
    ours = dhp("simulate", *inputs, "--planning-s", "120", *words).json()
    assert len(list(folder.iterdir())) == 8  # one is out of service
    analysis = TraceAnalysis(trace_dir=str(folder), include_last_profiler_step=True)
    breakdown = analysis.get_temporal_breakdown(visualize=False).set_index("rank")
    overlap = analysis.get_comm_comp_overlap(visualize=False).set_index("rank")
    assert sorted(breakdown.index) == list(range(8))
    seconds = sum(step["seconds"] for step in ours["steps"])
    exposed_somewhere = hidden_somewhere = False
    for rank, theirs in breakdown.iterrows():
        at = ours["rank_totals"][rank]
        idle_s = at["idle_s"]["peer"] + at["idle_s"]["data"] + at["idle_s"]["no_task"]
        assert theirs["kernel_time(us)"] == pytest.approx(seconds * 1e6, abs=1)
        # Whole microseconds in the traces: every kernel may be rounded by one.
        assert theirs["idle_time(us)"] == pytest.approx(idle_s * 1e6, abs=500)
        assert theirs["compute_time(us)"] == pytest.approx((at["compute_s"] + at["optimizer_s"]) * 1e6, abs=500)
        assert theirs["non_compute_time(us)"] == pytest.approx(at["exposed_communication_s"] * 1e6, abs=500)
        hidden = 1 - at["exposed_communication_s"] / at["communication_s"]
        assert overlap.loc[rank, "comp_comm_overlap_pctg"] == pytest.approx(100 * hidden, abs=0.02)
        exposed_somewhere |= at["idle_s"]["transfer"] > 1e-3
        hidden_somewhere |= hidden > 0.01
    assert exposed_somewhere
    assert hidden_somewhere


# --- sweep


def test_sweeping_plans_and_simulates_everything(tmp_path: Path) -> None:
    words = write_inputs(tmp_path, batch=BATCH, cluster=CLUSTER, cost=COST)
    other = tmp_path / "even.json"
    other.write_text(json.dumps(GOOD_BATCH))
    words += ["--batch", other, "--sweep", "--planners", "free,paper,lockstep", "--steps", "2"]
    result = dhp("simulate", *words, "--output-format", "json")
    assert result.code == 0, result.err
    assert result.err == ""
    runs = result.json()["runs"]
    assert [(run["batch"], run["planner"]) for run in runs] == [
        (batch, planner) for batch in ("batch", "even") for planner in ("free", "paper", "lockstep")
    ]
    for run in runs:
        assert run["mean_s"] > run["predicted_s"] > run["lower_bound_s"]
        del run["planning_s"]
    again = dhp("simulate", *words, "--output-format", "json").json()["runs"]
    for run in again:
        del run["planning_s"]
    assert again == runs
    lines = dhp("simulate", *words).out.splitlines()
    assert lines[0] == "6 runs of 2 steps"
    assert lines[1].split()[:3] == ["batch", "planner", "step"]
    assert len(lines) == 8


def test_a_sweep_writes_results_for_a_report(tmp_path: Path) -> None:
    words = write_inputs(tmp_path, batch=BATCH, cluster=CLUSTER, cost=COST)
    other = tmp_path / "even.json"
    other.write_text(json.dumps(GOOD_BATCH))
    words += ["--batch", other, "--sweep", "--planners", "free,static:3,static:5", "--steps", "2"]
    folder = tmp_path / "new" / "results"
    runs = dhp("simulate", *words, "--result", folder, "--output-format", "json").json()["runs"]
    planned = [run for run in runs if "reason" not in run]
    names = [f"{run['planner'].replace(':', '-')}_{run['batch']}_cluster_cost.json" for run in planned]
    assert {path.name for path in folder.iterdir()} == set(names)
    assert {"free_batch_cluster_cost.json", "free_even_cluster_cost.json", "static-3_even_cluster_cost.json"} <= set(
        names
    )
    assert len(planned) < len(runs), "static:5 has no plan for nine ranks"
    for name, run in zip(names, planned, strict=True):
        result = json.loads((folder / name).read_text())
        assert result["name"] == f"{run['planner']}, {run['batch']}, cluster, cost"
        assert result["planner"] == run["planner"]
        seconds = [step["seconds"] for step in result["steps"]]
        assert sum(seconds) / 2 == pytest.approx(run["mean_s"], rel=1e-12)
        assert all(step["planning_s"] == run["planning_s"] for step in result["steps"])
    summaries = summarize([read_result(str(folder / name)) for name in names])
    assert [summary.step_s for summary in summaries] == pytest.approx([run["mean_s"] for run in planned])


@pytest.mark.parametrize(
    ("result", "planners", "message"),
    [
        ("result.json", "free", "with --sweep it is a folder, with a file a run in it"),
        ("results", "free,free", "free_batch_cluster_cost.json: two runs would write it; name each planner once"),
        ("batch.json/results", "free", "cannot be made"),
    ],
)
def test_where_a_sweep_cannot_write_results(tmp_path: Path, result: str, planners: str, message: str) -> None:
    words = write_inputs(tmp_path, batch=BATCH, cluster=CLUSTER, cost=COST)
    said = dhp("simulate", *words, "--sweep", "--planners", planners, "--result", tmp_path / result)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_a_sweep_says_why_there_is_no_plan(tmp_path: Path) -> None:
    words = write_inputs(tmp_path, batch=BATCH, cluster=CLUSTER, cost=COST)
    result = dhp("simulate", *words, "--sweep", "--planners", "free,static:5")
    assert result.code == 0
    assert "static:5" in result.out
    assert "divide" in result.out
    assert dhp("simulate", *words, "--sweep", "--planners", "static:5").code == 1


def test_a_sweep_shows_its_progress_on_a_terminal(tmp_path: Path) -> None:
    words = write_inputs(tmp_path, batch=BATCH, cluster=CLUSTER, cost=COST)
    words = ["simulate", *words, "--sweep", "--planners", "free,paper"]
    shown, printed = on_terminal(*words, errors=True)
    assert "0/2 free, batch, cluster" in shown
    assert "1/2 paper" in shown
    assert shown.endswith("\r\x1b[K")
    assert printed.startswith("2 runs of 1 step")


# --- what is refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--noise", "2"], "--noise"),
        (["--steps", "0"], "--steps"),
        (["--planning-s", "-1"], "--planning-s"),
        (["--sweep"], "--plan"),
        (["--max-degree", "2"], "--max-degree: is for --sweep"),
        (["--planners", "free"], "--planners: is for --sweep"),
        (["--trace", "/proc/nowhere/t.json"], "/proc/nowhere/t.json"),
        (["--trace", "/proc/nowhere/"], "/proc/nowhere/"),
        (["--batch", "another.json"], "--batch"),
    ],
)
def test_bad_options_are_bad_input(inputs: list[str | Path], words: list[str], message: str) -> None:
    result = dhp("simulate", *inputs, *words)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_a_missing_plan_is_bad_input(inputs: list[str | Path]) -> None:
    result = dhp("simulate", *inputs[:-2])
    assert result.code == 2
    assert "--plan" in result.err


def test_a_plan_of_another_batch_is_no_valid_plan(inputs: list[str | Path], tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps(GOOD_BATCH))
    result = dhp("simulate", "--batch", other, *inputs[2:])
    assert result.code == 1
    assert "not a valid plan" in result.err


@pytest.mark.parametrize("name", ["node_bandwidth_bytes_per_s", "switch_bandwidth_bytes_per_s"])
def test_negative_limits_are_bad_input(inputs: list[str | Path], tmp_path: Path, name: str) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps(changed(CLUSTER, (name,), -1)))
    result = dhp("simulate", *inputs)
    assert result.code == 2
    assert name in result.err
