"""`dhp train` as its users run it: output, checkpoints, what happens when ranks die or files are bad."""

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from command_line import CASES
from dhp._core import InputError, read_cost_model
from dhp.cost.local import local_cluster
from dhp.loop.inputs import open_dataset
from dhp.run.launch import run_local
from dhp.settings.config import TrainConfig
from dhp.train import STOPPED
from dhp.watch.result import read_result
from programs import run_program
from tiny_run import as_toml, copied_run

FIELDS = {"step", "loss", "tokens", "degrees", "plan_s", "idle_share", "gap"}


@pytest.fixture
def folder(mixed_data: Path, tmp_path: Path) -> Path:
    """A copy of the data with a run.toml of 6 steps on 4 ranks."""
    copied_run(mixed_data, tmp_path, ranks=4, steps=6, capacity_tokens=56, learning_rate=1e-3)
    return tmp_path


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "dhp.train", str(folder / "run.toml"), *arguments]


def dhp_train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program("dhp.train", folder / "run.toml", *arguments)


def losses(file: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in map(json.loads, file.read_text().splitlines())}


def test_metrics_trace_checkpoint_and_no_line_with_quiet(folder: Path) -> None:
    watching = ["--metrics", str(folder / "m.jsonl"), "--trace", str(folder / "t.json")]
    watching += ["--set", "save_steps=2"]
    done = dhp_train(folder, *watching, "--result", str(folder / "r.json"), "--result-clock", "emulated", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    records = [json.loads(line) for line in (folder / "m.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    for record in records:
        assert record.keys() >= FIELDS
        assert record["samples"] == 6
        assert 0 <= record["idle_share"] < 1
        assert record["predicted_step_s"] >= record["lower_bound_s"] > 0
        assert record["gap"] == pytest.approx(record["predicted_step_s"] / record["lower_bound_s"] - 1, abs=1e-12)
    assert records[-1]["loss"] < records[0]["loss"]

    result = read_result(folder / "r.json")
    assert (result.kind, result.clock, result.name) == ("measured", "emulated", "free, train, 4 ranks")
    assert result.timeline is not None and result.timeline.step == 2
    assert result.memory is None, "capacity_tokens counts tokens, not bytes"
    for step, record in zip(result.steps, records, strict=True):
        assert step.tasks_s == pytest.approx(record["emulated_step_s"])
        assert step.seconds > record["emulated_step_s"]
        idle = (step.idle_s["peer"] + step.idle_s["no_task"]) / (4 * record["emulated_step_s"])
        assert idle == pytest.approx(record["idle_share"], abs=1e-9)

    events = json.loads((folder / "t.json").read_text())["traceEvents"]
    tasks = [e for e in events if e.get("cat") == "task"]
    assert {e["pid"] for e in tasks} == {0, 1, 2, 3}
    assert len(tasks) == sum(sum(r["degrees"]) for r in records), "one bar a task and member"
    assert all(e["dur"] > 0 for e in tasks)
    own = [e for e in events if e["pid"] == 0 and e["ph"] == "X"]
    begins = [e["ts"] for e in own if e["name"] == "wait for the plan"]
    updated = [e["ts"] + e["dur"] for e in own if e["name"] == "optimizer"]
    spent = sum(record["seconds"] for record in records) * 1e6
    assert spent >= updated[-1] - begins[0] - 1, "planning and saving are part of a step"
    assert sum(e["name"] == "save" for e in own) == 3

    from transformers import AutoModelForImageTextToText

    checkpoint = folder / "out" / "step-000006"
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    saved = load_file(checkpoint / "model.safetensors")
    start = load_file(folder / "model" / "model.safetensors")
    assert saved.keys() == start.keys()
    assert any(not torch.equal(saved[name], start[name]) for name in saved)
    assert sum(p.numel() for p in model.parameters()) > 0
    assert (checkpoint / "tokenizer.json").is_file()


def test_bf16_stays_near_fp32_on_any_number_of_ranks(folder: Path) -> None:
    runs = []
    kinds = [(1, 1000, "fp32"), (1, 1000, "bf16"), (3, 75, "bf16"), (1, 1000, "bf16_weights"), (3, 75, "bf16_weights")]
    for ranks, capacity, precision in kinds:
        metrics = folder / f"{ranks}-{precision}.jsonl"
        arguments = (
            "--ranks",
            str(ranks),
            "--steps",
            "3",
            "--metrics",
            str(metrics),
            "--set",
            f"precision={precision}",
        )
        done = dhp_train(folder, *arguments, "--set", f"capacity_tokens={capacity}", f"output_dir={metrics}.out")
        assert done.returncode == 0, done.stderr
        runs.append(list(losses(metrics).values()))
    assert runs[1] == pytest.approx(runs[0], rel=1e-2)
    assert runs[2] == pytest.approx(runs[0], rel=1e-2)
    assert runs[1] != runs[0]
    assert runs[3] == pytest.approx(runs[0], rel=2e-2)
    assert runs[4] == pytest.approx(runs[3], rel=2e-2)


def test_a_line_a_step_or_as_many_as_asked_for(folder: Path) -> None:
    arguments = ("--ranks", "2", "--steps", "4", "--set", "capacity_tokens=110")
    done = dhp_train(folder, *arguments)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["step"] * 4 + ["saved"], done.stderr
    done = dhp_train(folder, *arguments, "log_every=2", f"output_dir={folder}/other")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["step", "step", "saved"]
    assert "20 samples of 27 to 214 tokens | 2 ranks of 110 tokens | planner free" in lines[0]
    assert lines[1].startswith("step 2/4 | loss ")
    for part in (" tok/s | groups ", "×", " | idle ", " % | gap ", " % | plan ", " ms, waited "):
        assert part in lines[1]


def write_two_nodes(file: Path, capacity: int) -> None:
    """Four ranks, two a node, slow links between the nodes."""
    links = {name: {"bandwidth_bytes_per_s": b, "latency_s": 5e-5} for name, b in (("intra", 2e9), ("inter", 1e8))}
    cluster = {"format": "dhp.cluster/1", "nodes": 2, "ranks_per_node": 2, "memory_bytes": capacity}
    file.write_text(json.dumps(cluster | {f"{name}_node": link for name, link in links.items()}))


@pytest.mark.parametrize(
    ("planner", "options", "degrees", "exchange"),
    [
        (
            "free",
            {"degrees_divide": [4, 8], "exchanges": ["direct"], "effort": "fast", "max_tokens_per_rank": 56},
            {1, 2, 4},
            "direct",
        ),
        (
            "lockstep",
            {"within_node": True, "placement": "consecutive", "pipeline_stages": 2, "tighter_bound": True},
            {1, 2},
            "ring",
        ),
        ("paper", {"max_degree": 2, "min_shard_tokens": 8, "max_peers": 1}, {1, 2}, "ring"),
        ("megatron-hybrid", {"max_tokens_per_rank": 56}, {1, 2, 4}, "ring"),
    ],
)
def test_runs_follow_planner_and_plan_table(
    folder: Path, planner: str, options: dict, degrees: set[int], exchange: str
) -> None:
    write_two_nodes(folder / "cluster.json", 110)
    with (folder / "run.toml").open("a") as file:
        file.write(f"[plan]\n{as_toml(options)}")
    trace, metrics = folder / "t.json", folder / "m.jsonl"
    done = dhp_train(
        folder, "--planner", planner, "--steps", "2", "--set", f"cluster={folder}/cluster.json",
        "--trace", str(trace), "--metrics", str(metrics),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert losses(metrics).keys() == {1, 2}
    tasks = [e["args"] for e in json.loads(trace.read_text())["traceEvents"] if e.get("cat") == "task"]
    found = {len(task["ranks"]) for task in tasks}
    assert found <= degrees
    assert max(found) == max(degrees)
    assert {task["exchange"] for task in tasks if len(task["ranks"]) > 1} == {exchange}
    if "within_node" in options:
        assert all(len({rank // 2 for rank in task["ranks"]}) == 1 for task in tasks)


def test_killed_rank_ends_the_run_and_resume_continues_it_exactly(folder: Path) -> None:
    unbroken = dhp_train(folder, "--metrics", str(folder / "whole.jsonl"), "--set", f"output_dir={folder}/whole")
    assert unbroken.returncode == 0, unbroken.stderr

    arguments = ("--metrics", str(folder / "broken.jsonl"), "--set", "save_steps=2")
    with subprocess.Popen(command(folder, *arguments), stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 600
        while not (folder / "out" / "step-000002").exists():
            assert time.monotonic() < deadline, "no checkpoint after ten minutes"
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        victim = rank_process(process.pid, 2)
        victim.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, stderr = process.communicate(timeout=600)
        assert process.returncode != 0
        assert time.monotonic() - killed < 120, "far below timeout_s: nobody waited for it"
    advice = "the run ended. Continue from the last checkpoint with --resume."
    assert f"dhp: rank 2 was lost: killed by signal 9 (SIGKILL); {advice}\n" in stderr
    for survivor in (0, 1, 3):
        assert re.search(rf"rank {survivor} \(.*\) at step ", stderr), f"rank {survivor} says where it was:\n{stderr}"
    assert not list((folder / "out").glob(".*")), "no half-written checkpoint"

    resumed = dhp_train(folder, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    whole, broken = losses(folder / "whole.jsonl"), losses(folder / "broken.jsonl")
    assert broken == whole, "to the last bit"
    ends = [load_file(folder / name / "step-000006" / "model.safetensors") for name in ("whole", "out")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def train_with(folder: Path, patch: Callable[[Any], None], ranks: int, *words: str) -> int:
    """`dhp train` on local ranks of this very process, with parts of dhp.train replaced in each. Returns its code."""

    def work() -> int:
        import dhp.train

        patch(dhp.train)
        torch.set_num_threads(1)
        return dhp.train.main([str(folder / "run.toml"), "--set", f"ranks={ranks}", "capacity_tokens=110", *words])

    return run_local(ranks, work)


def test_a_skipped_step_leaves_weights_and_optimizer_as_they_were(folder: Path, capfd) -> None:
    def patch(train: Any) -> None:
        forward, seen = train.forward, []

        def bad_in_step_2(adapter, share, task, valid_tokens, settings, run):
            seen.append(id(share))
            loss = forward(adapter, share, task, valid_tokens, settings, run)
            return loss * math.inf if len(set(seen)) == 2 and task.id == 1 else loss

        train.forward = bad_in_step_2

    words = ["on_nonfinite=skip", "steps=3", "save_steps=1", "save_total_limit=0", "max_grad_norm=0"]
    assert train_with(folder, patch, 2, *words, "--metrics", str(folder / "m.jsonl")) == 0, capfd.readouterr().err
    records = [json.loads(line) for line in (folder / "m.jsonl").read_text().splitlines()]
    assert [record["loss"] is None for record in records] == [False, True, False]
    assert records[1]["skipped"].startswith("the loss of task 1 is not finite; its samples: ")
    states = [
        load_file(folder / "out" / f"step-{step:06d}" / name)
        for step in (1, 2, 3)
        for name in ("model.safetensors", "optimizer.safetensors")
    ]
    for one, two, three in (states[::2], states[1::2]):
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert not all(torch.equal(two[name], three[name]) for name in two)
    assert "step 2 is skipped: the loss of task 1 is not finite" in capfd.readouterr().err

    stopped = train_with(folder, patch, 2, "steps=3", f"output_dir={folder}/stop")
    assert stopped == STOPPED
    err = capfd.readouterr().err
    assert err.startswith("dhp: error: step 2: the loss of task 1 is not finite; its samples: ")
    assert "--resume" not in err, "nothing was saved"
    assert len([line for line in err.splitlines() if "is not finite" in line]) == 1


def test_a_rank_whose_weights_go_astray_is_named(folder: Path, capfd) -> None:
    def patch(train: Any) -> None:
        update = train.optimizer.update

        def astray(adamw, settings, step, norm):
            update(adamw, settings, step, norm)
            if step == 1 and os.environ["RANK"] == "1":
                embeddings = max(adamw.parameters, key=torch.numel)
                embeddings.data.view(torch.uint8)[-1, -1] ^= 1

        train.optimizer.update = astray

    assert train_with(folder, patch, 3, "check_weights_every=2", "steps=4", "save_steps=1") == 1
    err = capfd.readouterr().err
    assert "rank 1 differ from the other ranks', first in model.language_model.embed_tokens.weight: " in err
    assert not (folder / "out" / "step-000003").exists()
    assert "Traceback" not in err


def test_a_run_goes_on_when_a_checkpoint_cannot_be_written(folder: Path, capfd) -> None:
    def patch(train: Any) -> None:
        write, steps = train.checkpoint._write, []

        def full(target: Path, *rest: Any) -> None:
            steps.append(target.name)
            if target.name in ("step-000001", "step-000003"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(target, *rest)

        train.checkpoint._write = full

    out = folder / "out"
    assert train_with(folder, patch, 2, "steps=2", "save_steps=1") == 0
    err = capfd.readouterr().err
    assert f"step 1: {out}/step-000001 could not be saved (No space left on device); the run goes on and" in err
    assert "saves again after step 2" in err
    assert [path.name for path in out.glob("*step-*")] == ["step-000002"]
    assert train_with(folder, patch, 2, "steps=3", "--resume") == STOPPED
    err = capfd.readouterr().err
    assert f"dhp: error: step 3: {out}/step-000003 could not be saved (No space left on device). Continue from" in err


def test_a_fresh_run_leaves_an_older_ones_folder_alone(folder: Path) -> None:
    arguments = ("--ranks", "1", "--set", "capacity_tokens=1000", "save_steps=1")
    assert dhp_train(folder, *arguments, "--steps", "2").returncode == 0
    again = dhp_train(folder, *arguments, "--steps", "1")
    assert again.returncode == 2
    assert "holds checkpoints of an earlier run, up to step-000002; continue it with --resume" in again.stderr
    damaged = folder / "out" / "step-000002" / "optimizer.safetensors"
    os.truncate(damaged, 100)
    for ranks in ("1", "4"):
        resumed = dhp_train(folder, "--resume", "--ranks", ranks, "--set", "capacity_tokens=1000")
        assert resumed.returncode == 2
        assert resumed.stderr.startswith(f"dhp: error: {damaged}: is damaged: 100 bytes, ")
        assert resumed.stderr.endswith(f"; remove {damaged.parent} to continue from step-000001\n")
        assert len(resumed.stderr.splitlines()) == 1


def rank_process(launcher: int, rank: int) -> psutil.Process:
    children = sorted(psutil.Process(launcher).children(), key=lambda child: child.pid)
    assert len(children) == 4
    return children[rank]


def test_resume_without_a_checkpoint_starts_afresh_and_another_run_is_refused(folder: Path) -> None:
    first = dhp_train(folder, "--resume", "--steps", "2", "--ranks", "1", "--set", "capacity_tokens=1000")
    assert first.returncode == 0, first.stderr
    other = dhp_train(folder, "--resume", "--set", "seed=5", "--ranks", "1", "--set", "capacity_tokens=1000")
    assert other.returncode == 2
    assert "seed: was 0, is now 5" in other.stderr


def test_picture_that_vanishes_after_indexing_is_dropped_on_all_ranks(folder: Path) -> None:
    """The run with a lost picture equals one in which its samples have no loss, whatever the groups."""
    assert dhp_train(folder, "--steps", "1", "--set", f"output_dir={folder}/first").returncode == 0  # makes the index
    (folder / "picture1.png").unlink()
    (folder / "clip1.mp4").write_bytes(b"not a video")
    runs = {}
    for ranks, capacity in ((1, 10_000), (4, 56)):
        out = folder / f"out{ranks}"
        done = dhp_train(
            folder, "--ranks", str(ranks), "--metrics", f"{out}.jsonl",
            "--set", f"output_dir={out}", "--set", f"capacity_tokens={capacity}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "picture1.png" in done.stderr
        runs[ranks] = [json.loads(line) for line in Path(f"{out}.jsonl").read_text().splitlines()]
    assert any(r["dropped"] for r in runs[1])
    for one, four in zip(runs[1], runs[4], strict=True):
        assert one["dropped"] == four["dropped"]
        assert one["label_tokens"] == four["label_tokens"]
        assert one["loss"] == pytest.approx(four["loss"], rel=1e-4)

    fatal = dhp_train(folder, "--set", 'on_bad_media="fail"', "--set", f"output_dir={folder}/fatal")
    assert fatal.returncode == 2
    assert "cannot be read" in fatal.stderr
    assert "picture1.png" in fatal.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--planner", "static:3"], 2, "3"),
        (["--planner", "best"], 2, "best"),
        (["--set", "capacity_tokens=20"], 2, "do not fit on 4 ranks: sample"),
        (["--set", "global_batch_size=1000"], 2, "global_batch_size: found 1000, but the data has 20 samples"),
        (["--set", "data=nowhere.jsonl"], 2, "nowhere.jsonl"),
        (["--set", "model=nowhere"], 2, "nowhere/config.json: cannot be read"),
        (["--set", "cluster=nowhere.json"], 2, "nowhere.json"),
        (["--set", "planner=static:1"], 2, "do not fit on 4 ranks: sample"),
        (["--planner", "ulysses"], 2, "exchanges by all_to_all, which is there for comparing plans only"),
        (["--set", "plan.max_degree=-1"], 2, "plan.max_degree: found -1, expected at least 0"),
        (["--set", "plan.max_degree=2"], 2, "8 samples do not fit on 4 ranks: sample"),
        (["--set", "plan.max_degree=2", "on_too_long=skip", "capacity_tokens=10"], 2, "no samples left"),
        (["--set", "cluster=h100-2x8"], 2, "cluster: h100-2x8 has 16 ranks, the run has 4; take a cluster of as many"),
        (["--planner", "static:99"], 2, "99"),
        (["--set", "seed=-1"], 2, "seed: found -1, expected at least 0"),
        (["--steps", "0"], 2, "steps: found 0, expected at least 1"),
        (["--metrics", "/proc/m.jsonl"], 2, "--metrics: /proc/m.jsonl cannot be written"),
        (["--trace", "/proc/t.json"], 2, "--trace: /proc/t.json cannot be written"),
        (["--trace", "/proc/traces"], 2, "--trace: /proc/traces"),
        (["--set", "output_dir=/proc/out"], 2, "output_dir: /proc/out cannot be written"),
        (["--planner", "lockstep", "--set", "plan.no_idle_ranks=true"], 1, "no idle ranks: the sequences"),
    ],
)
def test_bad_input_is_named_once(folder: Path, arguments: list[str], code: int, message: str) -> None:
    done = dhp_train(folder, *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "--resume" not in done.stderr, "nothing was saved"
    assert "Traceback" not in done.stderr


STATE = "the model's state (parameters, gradients, optimizer, reserve) needs 6 GiB a rank; a rank has"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {},
            f"cost_device: local-cpu: {STATE} 4 GiB, which leaves nothing for activations; take more memory a rank, or "
            "more ranks, which share the optimizer's state, freeze_vit or freeze_llm, or count tokens: capacity_tokens",
        ),
        (
            {"cost": "c.json", "cluster": "x.json"},
            f"cluster: x.json: {STATE} 4 GiB, which leaves nothing for activations; take more memory a rank, or a cost "
            "file instead of c.json that counts more ranks or frozen parts",
        ),
        (
            {"cost": "c.json", "capacity_tokens": 512},
            "capacity_tokens: found 512, but c.json counts memory in bytes, 6,442,450,944 of them for the model's "
            "state; make it with dhp calibrate --capacity-tokens 512, or leave capacity_tokens out",
        ),
    ],
)
def test_state_that_leaves_no_room_is_named_with_both_numbers(settings: dict, message: str) -> None:
    """No number of ranks would do, whatever is skipped."""
    cost = read_cost_model(str(CASES / "cost_qwen3-vl-8b_8192.json"))
    cost.state_bytes = 6 * 2.0**30
    cluster = local_cluster(4, capacity_tokens=settings.get("capacity_tokens", 0))
    cluster.memory_bytes = min(cluster.memory_bytes, 4 * 2.0**30)
    config = TrainConfig("m", "d.jsonl", on_too_long="skip", **settings)
    with pytest.raises(InputError) as error:
        open_dataset(config, cluster, cost, None)
    assert str(error.value) == message


def test_unknown_family_is_refused(folder: Path) -> None:
    (folder / "model" / "config.json").write_text('{"model_type": "mamba"}')
    done = dhp_train(folder)
    assert done.returncode == 2
    assert 'model_type: found "mamba", supported: deepseek_v3, ' in done.stderr


def test_runs_under_torchrun(folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "dhp.train",
        str(folder / "run.toml"),
    ]
    done = subprocess.run(
        [sys.executable, *launch, "--steps", "2", "--set", "capacity_tokens=110", "--metrics", str(folder / "m.jsonl")],
        capture_output=True, text=True, timeout=600, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(folder / "m.jsonl").keys() == {1, 2}


def test_a_trace_folder_holds_a_file_a_rank_and_a_result_by_the_clock_on_the_wall(folder: Path) -> None:
    """The keys that Holistic Trace Analysis looks for; see dhp.watch.trace."""
    words = ["--trace", str(folder / "traces"), "--result", str(folder / "r.json"), "--result-clock", "wall"]
    arguments = [*words, "--ranks", "2", "--steps", "2", "--set", "capacity_tokens=110"]
    done = dhp_train(folder, *arguments)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        trace = json.loads((folder / "traces" / f"rank-{rank:05d}.json").read_text())
        assert trace["distributedInfo"] == {"backend": "gloo", "rank": rank, "world_size": 2}
        events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
        steps = [e for e in events if e["name"].startswith("ProfilerStep#")]
        assert [e["name"] for e in steps] == ["ProfilerStep#1", "ProfilerStep#2"]
        kernels = {e["args"]["correlation"]: e for e in events if e["cat"] == "kernel"}
        launches = {e["args"]["correlation"]: e for e in events if e["cat"] == "cuda_runtime"}
        assert kernels.keys() == launches.keys()
        assert len(kernels) == len([e for e in events if e["cat"] == "task"]) + 2 * 4  # gradients, optimizer, both ends
        assert all(any(s["ts"] <= e["ts"] < s["ts"] + s["dur"] for s in steps) for e in launches.values())
        assert [e["name"].startswith("nccl") for e in kernels.values()].count(True) == 2

    result = read_result(folder / "r.json")
    assert result.clock == "wall"
    for step in result.steps:
        assert step.tasks_s is not None and 0 < step.tasks_s < step.seconds
        assert 0 <= sum(step.idle_s.values()) < 2 * step.seconds

    again = dhp_train(folder, *arguments)
    assert again.returncode == 2
    assert "rank-00000.json already; give an empty or a new folder" in again.stderr
