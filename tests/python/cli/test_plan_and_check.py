"""The command line: exit codes, messages and JSON of `dhp plan` and `dhp check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from command_line import GOOD_BATCH, GOOD_CLUSTER, GOOD_COST, changed, dhp, inputs

# --- plan


def test_plan_prints_a_summary_in_text(files: dict[str, Path]) -> None:
    result = dhp("plan", *inputs(files))
    assert result.code == 0
    assert result.err == ""
    assert result.out.startswith("free: ")
    for word in ("groups ", "makespan ", "bound ", "gap ", "idle ", "peers ", "×"):
        assert word in result.out


def test_plan_says_how_many_peers_a_rank_has(files: dict[str, Path], tmp_path: Path) -> None:
    words = [*inputs(files), "--max-tokens-per-rank", "900", "--max-peers", "4"]
    summary = dhp("plan", *words, "-o", tmp_path / "plan.json", "--output-format", "json").json()
    plan = json.loads((tmp_path / "plan.json").read_text())
    met: dict[int, set[int]] = {rank: set() for rank in range(6)}
    for task in plan["tasks"]:
        for rank in task["ranks"]:
            met[rank] |= set(task["ranks"]) - {rank}
    most = max(map(len, met.values()))
    assert most > 0
    assert summary["most_peers"] == plan["most_peers"] == most
    assert f"peers     {most} at most share tasks with one rank\n" in dhp("plan", *words).out
    assert dhp("check", *inputs(files), "--plan", tmp_path / "plan.json").code == 0
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"most_peers": most + 1}))
    wrong = dhp("check", *inputs(files), "--plan", tmp_path / "plan.json")
    assert (wrong.code, wrong.out) == (1, f"violation: most_peers is {most + 1}, expected {most}\n")


@pytest.mark.parametrize("planner", ["free", "lockstep", "paper", "static", "static:1", "static:2", "static:6"])
def test_plan_prints_the_plan_in_json(files: dict[str, Path], planner: str) -> None:
    result = dhp("plan", *inputs(files), "--planner", planner, "--output-format", "json")
    assert result.code == 0, result.err
    plan = result.json()
    assert plan["format"] == "dhp.plan/1"
    assert plan["schedule"] == ("lockstep" if planner in ("lockstep", "paper") else "free")
    assert plan["ranks"] == 6
    assert sorted(i for task in plan["tasks"] for i in task["sequences"]) == list(range(12))
    if ":" in planner:
        assert {len(task["ranks"]) for task in plan["tasks"]} == {int(planner.split(":")[1])}
        assert plan["planner"] == planner


def test_plan_file_and_standard_output_hold_the_same_plan(files: dict[str, Path]) -> None:
    assert dhp("plan", *inputs(files), "--output-format", "json").out == files["plan"].read_text()
    summary = dhp("plan", *inputs(files), "--output-format", "json", "-o", files["plan"]).json()
    plan = json.loads(files["plan"].read_text())
    assert summary["hash"] == plan["hash"]
    assert summary["makespan_s"] == plan["predicted"]["makespan_s"]
    assert summary["tasks"] == len(plan["tasks"])
    assert sum(summary["degrees"].values()) == len(plan["tasks"])


def test_csv_becomes_a_batch_by_dataset(files: dict[str, Path], tmp_path: Path) -> None:
    rows = ["tokens,patches"] + [f"{s['tokens']},0" for s in GOOD_BATCH["sequences"]]
    table = tmp_path / "batch.csv"
    table.write_text("\n".join(rows) + "\n")
    refused = dhp("plan", *inputs({**files, "batch": table}))
    assert refused.code == 2
    assert f"expected dhp.batch/1 JSON; dhp dataset --data {table} -o batch.json makes it" in refused.err
    assert dhp("dataset", "--data", table, "-o", files["batch"]).code == 0
    assert dhp("plan", *inputs(files), "--output-format", "json").out == files["plan"].read_text()


def test_plan_of_an_empty_batch_is_empty(files: dict[str, Path]) -> None:
    files["batch"].write_text(json.dumps({"format": "dhp.batch/1", "sequences": []}))
    result = dhp("plan", *inputs(files), "--output-format", "json")
    assert result.code == 0
    assert result.json()["tasks"] == []
    assert dhp("plan", *inputs(files)).code == 0


def test_output_is_written_whole_or_not_at_all(files: dict[str, Path], tmp_path: Path) -> None:
    before = files["plan"].read_text()
    missing = tmp_path / "no such folder" / "plan.json"
    result = dhp("plan", *inputs(files), "-o", missing)
    assert result.code == 2
    assert result.err.startswith(f"dhp: error: {missing}: cannot be written: ")
    files["batch"].write_text("[")
    assert dhp("plan", *inputs(files), "-o", files["plan"]).code == 2
    assert files["plan"].read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"batch.json", "cluster.json", "cost.json", "plan.json"}


def test_min_shard_tokens_limits_the_degree(files: dict[str, Path]) -> None:
    files["batch"].write_text(json.dumps({"format": "dhp.batch/1", "sequences": [{"id": 0, "tokens": 600}]}))

    def degree(min_shard_tokens: int) -> int:
        words = ["--min-shard-tokens", str(min_shard_tokens), "--output-format", "json"]
        return len(dhp("plan", *inputs(files), *words).json()["tasks"][0]["ranks"])

    assert degree(601) == 1
    assert degree(300) <= 2
    assert dhp("plan", *inputs(files), "--min-shard-tokens", "0").code == 2


def test_every_option_of_the_planner_is_a_flag(files: dict[str, Path]) -> None:
    words = [
        *("--max-degree", "6", "--degrees-divide", "12,6", "--max-tokens-per-rank", "100000", "--max-peers", "5"),
        *("--within-node", "--placement", "consecutive", "--exchanges", "ring,direct", "--effort", "fast"),
        *("--pipeline-stages", "1", "--min-shard-tokens", "64", "--no-idle-ranks"),
    ]
    result = dhp("plan", *inputs(files), *words, "--planner", "lockstep")
    assert result.code in (0, 1), result.err
    shown = dhp("plan", "--help").out
    assert all(word in shown for word in words if word.startswith("--"))
    one = dhp("plan", *inputs(files), "--max-degree", "1", "--max-tokens-per-rank", "3000")
    assert one.code == 1
    assert "sequence 11 has 3800 tokens; 1 rank offers 3000 under the cap on tokens a rank" in one.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-degree", "-1"], "--max-degree: found -1, expected at least 0"),
        (["--degrees-divide", "8,x"], '--degrees-divide: found "8,x", expected a whole number'),
        (["--placement", "near"], '--placement: found "near", expected any or consecutive'),
        (["--effort", "most"], '--effort: found "most", expected default, fast or a whole number'),
        (["--effort", "0"], "--effort: found 0, expected at least 1"),
        (["--pipeline-stages", "4"], "--pipeline-stages: is not used by free: leave it out, or take a planner that "),
        (["--planner", "static:2", "--effort", "fast"], "--effort: is not used by static: leave it out, or take a "),
        (["--exchanges", "all_to_all"], "--exchanges: found all_to_all, which ulysses uses without being told"),
    ],
)
def test_bad_options_are_named(files: dict[str, Path], words: list[str], message: str) -> None:
    result = dhp("plan", *inputs(files), *words)
    assert result.code == 2
    assert result.err.startswith(f"dhp: error: {message}")


# --- infeasible: an answer


@pytest.mark.parametrize("planner", ["free", "lockstep", "paper", "static"])
def test_infeasible_names_sequence_need_and_offer(files: dict[str, Path], planner: str) -> None:
    files["batch"].write_text(json.dumps(changed(GOOD_BATCH, ("sequences", 7, "tokens"), 131072)))
    text = dhp("plan", *inputs(files), "--planner", planner)
    assert text.code == 1
    reason = "sequence 7 needs 476.9 GiB; 6 ranks offer 178.9 GiB (the smallest degree that holds it is 16)"
    assert text.out == f"infeasible: {reason}\n"
    answer = dhp("plan", *inputs(files), "--planner", planner, "--output-format", "json")
    assert answer.code == 1
    infeasible = answer.json()["infeasible"]
    assert infeasible["reason"] == reason
    assert infeasible["sequence"] == 7
    assert infeasible["needed_ranks"] == 16
    assert infeasible["needed_bytes"] > infeasible["offered_bytes"]


def test_infeasible_writes_no_plan(files: dict[str, Path], tmp_path: Path) -> None:
    files["cost"].write_text(json.dumps(changed(GOOD_COST, ("state_bytes",), 1e12)))
    result = dhp("plan", *inputs(files), "-o", tmp_path / "new.json")
    assert result.code == 1
    assert "leaves nothing for activations" in result.out
    assert not (tmp_path / "new.json").exists()


# --- bad input


SEQUENCE = ("sequences", 3)


BAD_DOCUMENTS = [
    ("batch", changed(GOOD_BATCH, (*SEQUENCE, "tokens"), -5), "sequences[3].tokens: found -5"),
    ("batch", changed(GOOD_BATCH, (*SEQUENCE, "tokens"), 0), "sequences[3].tokens: found 0"),
    ("batch", changed(GOOD_BATCH, (*SEQUENCE, "tokens"), 10**30), "sequences[3].tokens: "),
    ("batch", changed(GOOD_BATCH, (*SEQUENCE, "tokens"), 2**41), "sequences[3].tokens: "),
    ("batch", changed(GOOD_BATCH, (*SEQUENCE, "tokens"), 1.5), "sequences[3].tokens: "),
    ("batch", changed(GOOD_BATCH, (*SEQUENCE, "tokens"), "many"), "sequences[3].tokens: "),
    ("batch", changed(GOOD_BATCH, (*SEQUENCE, "patches"), -1), "sequences[3].patches: found -1"),
    ("batch", changed(GOOD_BATCH, (*SEQUENCE, "id"), 2), "sequences[3].id: "),
    ("batch", changed(GOOD_BATCH, ("sequences",), {}), "sequences: "),
    ("batch", changed(GOOD_BATCH, ("format",), "dhp.plan/1"), "format: "),
    ("batch", [], ""),
    ("cluster", changed(GOOD_CLUSTER, ("nodes",), 0), "nodes: found 0"),
    ("cluster", changed(GOOD_CLUSTER, ("ranks_per_node",), 0), "ranks_per_node: found 0"),
    ("cluster", changed(GOOD_CLUSTER, ("intra_node", "bandwidth_bytes_per_s"), 0), "intra_node.bandwidth_bytes_per_s"),
    ("cost", changed(GOOD_COST, ("forward",), 3), "forward: "),
    ("cost", changed(GOOD_COST, ("backward", "token_s"), None), "backward.token_s: "),
]


@pytest.mark.parametrize(("name", "document", "place"), BAD_DOCUMENTS)
def test_bad_documents_are_named(files: dict[str, Path], name: str, document: Any, place: str) -> None:
    files[name].write_text(json.dumps(document))
    result = dhp("plan", *inputs(files))
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith(f"dhp: error: {files[name]}: {place}")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("name", ["batch", "cluster", "cost", "plan"])
def test_truncated_json(files: dict[str, Path], name: str) -> None:
    text = files[name].read_text()
    files[name].write_text(text[: len(text) // 2])
    result = dhp("check", *inputs(files), "--plan", files["plan"])
    assert result.code == 2
    assert result.err.startswith(f"dhp: error: {files[name]}: ")


@pytest.mark.parametrize("name", ["batch", "cluster", "cost", "plan"])
def test_missing_file_and_folder(files: dict[str, Path], name: str, tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        files[name] = path
        result = dhp("check", *inputs(files), "--plan", files["plan"])
        assert result.code == 2
        assert result.err.startswith(f"dhp: error: {path}: ")


def test_a_model_given_for_its_cost_file(files: dict[str, Path]) -> None:
    files["cost"] = Path("qwen3-vl-8b")
    result = dhp("plan", *inputs(files))
    assert result.code == 2
    assert (
        "qwen3-vl-8b: is a model, expected a cost file; qwen3-vl-8b@DEVICE counts one, and dhp cost --model qwen3-vl-8b"
        in result.err
    )


@pytest.mark.parametrize(
    ("planner", "message"),
    [
        ("static:4", 'found "static:4", but 4 does not divide the 6 ranks; choose one of 1, 2, 3, 6'),
        ("static:0", 'found "static:0", expected a whole number of at least 1 after static:'),
        ("static:two", 'found "static:two", expected a whole number of at least 1 after static:'),
        ("best", 'found "best", expected one of '),
    ],
)
def test_bad_planner(files: dict[str, Path], planner: str, message: str) -> None:
    result = dhp("plan", *inputs(files), "--planner", planner)
    assert result.code == 2
    assert result.err.startswith(f"dhp: error: --planner: {message}")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["plan"],
        ["plan", "--batch"],
        ["plan", "--no-such-option"],
        ["check", "--batch", "b", "--cluster", "c", "--cost", "k"],
        ["plan", "--batch", "b", "--cluster", "c", "--cost", "k", "--output-format", "yaml"],
        ["plan", "--batch", "b", "--cluster", "c", "--cost", "k", "--min-shard-tokens", "few"],
        ["cost", "--device", "h100"],
        ["--no-such-option"],
    ],
)
def test_wrong_options(words: list[str]) -> None:
    result = dhp(*words)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("dhp: error: ")


# --- check


def test_check_accepts_what_plan_makes(files: dict[str, Path]) -> None:
    text = dhp("check", *inputs(files), "--plan", files["plan"])
    assert (text.code, text.err) == (0, "")
    assert text.out.startswith("valid: ")
    assert dhp("check", *inputs(files), "--plan", files["plan"], "--output-format", "json").json() == {
        "valid": True,
        "violations": [],
    }


def test_check_names_the_options_that_a_plan_breaks(files: dict[str, Path]) -> None:
    assert dhp("plan", *inputs(files), "--max-tokens-per-rank", "900", "-o", files["plan"]).code == 0
    plan = json.loads(files["plan"].read_text())
    wide = [task["id"] for task in plan["tasks"] if len(task["ranks"]) > 1]
    assert wide
    broken = dhp("check", *inputs(files), "--plan", files["plan"], "--max-degree", "1")
    assert broken.code == 1
    assert [line.split()[1] for line in broken.out.splitlines()] == [f"tasks[{task}]" for task in wide]
    assert broken.out.count("more than the 1 of max_degree") == len(wide)
    assert dhp("check", *inputs(files), "--plan", files["plan"], "--max-degree", "6", "--max-peers", "5").code == 0
    # Shards are looked at where that is asked for alone: plans are made with other numbers, too.
    made = ["--min-shard-tokens", "1", "--degrees-divide", "6"]
    files["batch"].write_text(json.dumps({"format": "dhp.batch/1", "sequences": [{"id": 0, "tokens": 120}]}))
    plan = {"format": "dhp.plan/1", "schedule": "free", "ranks": 6, "tasks": [{"id": 0, "sequences": [0]}]}
    plan["tasks"][0]["ranks"] = [0, 1]
    files["plan"].write_text(json.dumps(plan))
    assert dhp("check", *inputs(files), "--plan", files["plan"], *made).code == 0
    assert dhp("check", *inputs(files), "--plan", files["plan"]).code == 0
    short = dhp("check", *inputs(files), "--plan", files["plan"], "--min-shard-tokens", "64")
    assert "below min_shard_tokens 64" in short.out
    assert dhp("check", *inputs(files), "--plan", files["plan"], "--effort", "fast").code == 2


def test_check_names_every_violation(files: dict[str, Path]) -> None:
    plan = json.loads(files["plan"].read_text())
    lost = plan["tasks"][0]["sequences"].pop()
    plan["tasks"][-1]["ranks"][0] = 99
    del plan["hash"], plan["predicted"]
    files["plan"].write_text(json.dumps(plan))
    text = dhp("check", *inputs(files), "--plan", files["plan"])
    assert text.code == 1
    lines = text.out.splitlines()
    assert all(line.startswith("violation: ") for line in lines)
    assert any(f"sequence {lost}" in line for line in lines)
    assert any("99" in line for line in lines)
    answer = dhp("check", *inputs(files), "--plan", files["plan"], "--output-format", "json")
    assert answer.code == 1
    assert answer.json() == {"valid": False, "violations": [line.removeprefix("violation: ") for line in lines]}


def test_a_plan_for_another_batch_is_not_valid(files: dict[str, Path]) -> None:
    files["batch"].write_text(json.dumps(changed(GOOD_BATCH, ("sequences", 0, "tokens"), 501)))
    assert dhp("check", *inputs(files), "--plan", files["plan"]).code == 1
    files["batch"].write_text(json.dumps(changed(GOOD_BATCH, ("sequences", 0, "id"), 77)))
    result = dhp("check", *inputs(files), "--plan", files["plan"])
    assert result.code == 1
    assert "77" in result.out
    explained = dhp("explain", *inputs(files), "--plan", files["plan"])
    assert explained.code == 1
    assert "is not a valid plan for this batch" in explained.err
    assert explained.out == ""
