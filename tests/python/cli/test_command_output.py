"""What commands write and where: files, links, pipes and full disks; numbers that text and JSON share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from command_line import CASES, DHP, GOOD_CLUSTER, GOOD_COST, changed, dhp, inputs


def test_output_replaces_what_a_link_points_to(files: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    target.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(target)
    assert dhp("plan", *inputs(files), "-o", link).code == 0
    assert link.is_symlink()
    assert json.loads(target.read_text())["format"] == "dhp.plan/1"


def test_output_goes_into_a_pipe(files: dict[str, Path], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert dhp("plan", *inputs(files), "-o", pipe).code == 0
    reader.join(timeout=240)
    assert pipe.is_fifo()
    assert json.loads(read[0])["format"] == "dhp.plan/1"


def test_output_goes_to_standard_output(files: dict[str, Path]) -> None:
    words = ["--output-format", "json", "-o", "/proc/self/fd/1"]
    plan, summary = _documents(dhp("plan", *inputs(files), *words).out)
    assert plan["format"] == "dhp.plan/1"
    assert summary["tasks"] == len(plan["tasks"])


def _documents(text: str) -> list[Any]:
    decoder, documents = json.JSONDecoder(), []
    while text.strip():
        document, end = decoder.raw_decode(text.lstrip())
        documents.append(document)
        text = text.lstrip()[end:]
    return documents


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/plan.json", "there is no folder {0}/none; make it, or give another path"),
        ("", "it is a folder; add the name of a file"),
    ],
)
def test_output_that_cannot_be_written(files: dict[str, Path], tmp_path: Path, name: str, message: str) -> None:
    result = dhp("plan", *inputs(files), "-o", tmp_path / name)
    assert result.code == 2
    assert result.err == f"dhp: error: {tmp_path / name}: cannot be written: {message.format(tmp_path)}\n"


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full")
@pytest.mark.parametrize("command", ["plan", "compare"])
def test_a_full_disk_is_an_error(files: dict[str, Path], command: str) -> None:
    with Path("/dev/full").open("w") as full:
        words = [DHP, command, *map(str, inputs(files)), "--output-format", "json"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (2, "dhp: error: standard output cannot be written\n")
    assert Path("/dev/full").is_char_device()


def slow_network(files: dict[str, Path]) -> list[str]:
    """Inputs where the bounds differ."""
    cluster = CASES / "cluster_910b_8x8_slow_network.json"
    files["cluster"], files["cost"] = cluster, CASES / "cost_qwen3-vl-8b_4096.json"
    files["batch"] = CASES / "batch_internvid_512.json"
    return [str(word) for word in inputs(files)]


def test_every_command_states_the_same_bound(files: dict[str, Path]) -> None:
    words = slow_network(files)
    text = dhp("plan", *words, "-o", files["plan"]).out
    bound = json.loads(files["plan"].read_text())["predicted"]["lower_bound_s"]
    assert f"bound     {bound:.3f} s" in text
    assert dhp("plan", *words, "--output-format", "json").json()["predicted"]["lower_bound_s"] == bound
    assert dhp("explain", *words, "--plan", files["plan"], "--output-format", "json").json()["lower_bound_s"] == bound
    simulated = dhp("simulate", *words, "--plan", files["plan"], "--output-format", "json").json()
    assert simulated["lower_bound_s"] == bound
    compared = dhp("compare", *words, "--planners", "free", "--output-format", "json").json()
    assert compared["planners"][0]["lower_bound_s"] == bound


def test_where_no_bound_is_known(files: dict[str, Path]) -> None:
    words = [*inputs(files), "--planner", "ulysses:2"]
    predicted = dhp("plan", *words, "--output-format", "json").json()["predicted"]
    assert (predicted["lower_bound_s"], predicted["gap"]) == (None, None)
    summary = dhp("plan", *words, "-o", files["plan"], "--output-format", "json").json()
    assert (summary["lower_bound_s"], summary["gap"]) == (None, None)
    assert dhp("check", *inputs(files), "--plan", files["plan"]).code == 0
    compared = dhp("compare", *inputs(files), "--planners", "ulysses:2")
    assert "bound" not in compared.out.splitlines()[0]


def test_ranks_out_of_service_are_not_idle(files: dict[str, Path]) -> None:
    files["cluster"].write_text(json.dumps({**GOOD_CLUSTER, "rank_speed": [0, 1, 1, 1, 1, 1]}))
    dhp("plan", *inputs(files), "-o", files["plan"])
    explained = dhp("explain", *inputs(files), "--plan", files["plan"], "--output-format", "json").json()
    simulated = dhp("simulate", *inputs(files), "--plan", files["plan"], "--output-format", "json").json()
    exposed = explained["metrics"]["exposed_transfer_share"]
    assert explained["idle_share"] + exposed == pytest.approx(simulated["idle_share"], abs=1e-9)
    assert all(wait["rank"] != 0 for wait in explained["longest_waits"])


def test_a_plan_is_explained_with_other_costs(files: dict[str, Path]) -> None:
    """Its own predictions are of the costs that it was planned with."""
    files["cost"].write_text(json.dumps(changed(GOOD_COST, ("task_s",), 1.0)))
    explained = dhp("explain", *inputs(files), "--plan", files["plan"])
    assert explained.code == 0, explained.err
    checked = dhp("check", *inputs(files), "--plan", files["plan"])
    assert checked.code == 1
    assert "predicted.makespan_s" in checked.out


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("cost", ("task_s",), 1e308),
        ("cost", ("forward", "token_s"), 1e305),
        ("cost", ("backward", "ring_bytes_per_token"), 1e19),
        ("cost", ("token_bytes",), 1e300),
        ("cluster", ("intra_node", "bandwidth_bytes_per_s"), 1e-300),
        ("cluster", ("inter_node", "latency_s"), 1e7),
        ("cluster", ("memory_bytes",), 1e300),
    ],
)
def test_numbers_of_no_device_are_refused(
    files: dict[str, Path], name: str, place: tuple[str, ...], value: float
) -> None:
    files[name].write_text(json.dumps(changed({"cost": GOOD_COST, "cluster": GOOD_CLUSTER}[name], place, value)))
    result = dhp("plan", *inputs(files))
    assert result.code == 2
    assert re.match(
        rf"dhp: error: {files[name]}: {re.escape('.'.join(place))}: found \S+, expected a number from ", result.err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "--noise", "2"], "--noise: sequence: found 2, expected a number from 0 to 1"),
        (["compare", "--noise", "x"], '--noise: found "x", expected SEQ[,TASK[,RANK]], numbers from 0 to 1'),
        (
            ["compare", "--noise", "0.1", "--trials", "0"],
            "--trials: found 0, expected a whole number from 1 to 1000000",
        ),
        (["compare", "--noise", "0.1", "--seed", "-1"], "--seed: found -1, expected a whole number from 0 to "),
        (["simulate", "--planning-s", "-1"], "--planning-s: found -1, expected a number from 0 to "),
        (["cost", "--ranks", "0"], "--ranks: found 0, expected a whole number from 1 to "),
        (["cost", "--zero", "x"], "--zero: found x, expected a whole number from 0 to 3"),
        (["dataset", "--seed", "99999999999999999999"], "--seed: found 99999999999999999999, expected a whole number "),
    ],
)
def test_numbers_of_options(files: dict[str, Path], words: list[str], message: str) -> None:
    needed = {"cost": ["--model", "qwen3-vl-2b"], "dataset": ["--data", "uniform"]}
    result = dhp(*words, *needed.get(words[0], inputs(files)))
    assert result.code == 2
    assert result.err.startswith(f"dhp: error: {message}")


def test_models_and_devices_as_the_hub_and_people_write_them(tmp_path: Path) -> None:
    costs = [tmp_path / f"{i}.json" for i in range(2)]
    assert dhp("cost", "--model", "qwen3-vl-8b", "--device", "h100", "-o", costs[0]).code == 0
    assert dhp("cost", "--model", "Qwen/Qwen3-VL-8B-Instruct", "--device", "H100", "-o", costs[1]).code == 0
    assert costs[0].read_text() == costs[1].read_text()


def test_costs_say_what_stands_in_the_way() -> None:
    full = dhp("cost", "--model", "qwen3-vl-8b", "--device", "h100").out
    assert "note      h100 has 74.5 GiB, which the state fills: more --ranks or a higher --zero shard it\n" in full
    sharded = dhp("cost", "--model", "qwen3-vl-8b", "--device", "h100", "--ranks", "64", "--zero", "3").out
    assert "note      sharded parameters are gathered by all ranks at once: plan with --planner lockstep\n" in sharded
    assert "note" not in dhp("cost", "--model", "qwen3-vl-2b", "--device", "h100", "--ranks", "64").out


def test_options_of_media_say_nothing_about_tokens() -> None:
    result = dhp("dataset", "--data", "lognormal", "--fps", "2")
    assert result.code == 2
    assert result.err.startswith("dhp: error: lognormal: has lengths in tokens: --fps")
