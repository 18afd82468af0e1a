"""Ranks that srun starts: SLURM's variables, and a run of two such ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from by_hand import free_port
from dhp._core import InputError
from dhp.run.slurm import adopt, first_host
from tiny_run import copied_run

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "20",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2),4",
    "SLURM_STEP_NODELIST": "gpu[07-09]",
    "SLURM_PROCID": "17",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
}


def test_a_task_of_a_step_is_a_rank() -> None:
    found = dict(STEP)
    adopt(found)
    assert {name: found[name] for name in found.keys() - STEP.keys()} == {
        "RANK": "17",
        "WORLD_SIZE": "20",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "24713",
    }
    assert 1024 < int(found["MASTER_PORT"]) < 65536


def test_what_is_set_stays() -> None:
    found = {**STEP, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
    adopt(found)
    assert (found["MASTER_ADDR"], found["MASTER_PORT"], found["RANK"]) == ("10.0.0.1", "1234", "17")
    by_torchrun = {**STEP, "RANK": "3"}
    adopt(by_torchrun)
    assert by_torchrun == {**STEP, "RANK": "3"}


@pytest.mark.parametrize("absent", [{"SLURM_STEP_NUM_TASKS"}, set(STEP)])
def test_outside_a_step_of_several_tasks_there_is_no_rank(absent: set[str]) -> None:
    found = {name: value for name, value in STEP.items() if name not in absent}
    adopt(found)
    assert "RANK" not in found
    one = {**STEP, "SLURM_STEP_NUM_TASKS": "1"}
    adopt(one)
    assert "RANK" not in one


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SLURM_PROCID", "", "SLURM_PROCID: found '' in a step of several tasks"),
        ("SLURM_LOCALID", "one", "SLURM_LOCALID: found 'one'"),
        ("SLURM_NODEID", "2x", "SLURM_NODEID: found '2x' in a step of several tasks"),
        ("SLURM_JOB_ID", "", "SLURM_JOB_ID: found '' in a step of several tasks"),
        ("SLURM_STEP_NODELIST", "", "SLURM_STEP_NODELIST: found ''"),
        ("SLURM_STEP_NODELIST", "]", r"SLURM_STEP_NODELIST: found '\]', expected a list of hosts"),
        ("SLURM_STEP_TASKS_PER_NODE", "8x2", "SLURM_STEP_TASKS_PER_NODE: found '8x2', expected like 8"),
        ("SLURM_NODEID", "3", "SLURM_NODEID: found 3, but SLURM_STEP_TASKS_PER_NODE has 3"),
    ],
)
def test_a_variable_that_is_odd_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(InputError, match=f"environment: {message}"):
        adopt({**STEP, name: value})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("login", "login"),
        ("a1,a2", "a1"),
        ("node[01-04,07]", "node01"),
        ("node[3,5]", "node3"),
        ("rack[1-2]n[03,07-09],login", "rack1n03"),
        ("n[0-1].cluster,n9", "n0.cluster"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_two_tasks_train(mixed_data: Path, tmp_path: Path) -> None:
    config = copied_run(mixed_data, tmp_path / "run", steps=2, capacity_tokens=512, precision="fp32")
    metrics = tmp_path / "metrics.jsonl"
    ranks = []
    port = str(free_port())
    for rank in ("0", "1"):
        own = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": "0", "MASTER_PORT": port}
        step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "localhost"}
        environment = os.environ | STEP | step | own | {"GLOO_SOCKET_IFNAME": "lo"}
        command = [sys.executable, "-m", "dhp.train", config, "--metrics", metrics]
        ranks.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    said = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [step["step"] for step in steps] == [1, 2]
