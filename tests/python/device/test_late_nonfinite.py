"""A run on a device whose host reads once a step: a loss that is not finite is still that of a task and its samples,
and result and trace show when the device did what."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dhp.run.launch import run_local
from dhp.watch.result import read_result

ROOT = Path(__file__).parents[3]
BAD_STEP, STEPS = 2, 3


def train_with_a_bad_loss(folder: Path) -> int:
    """The last task of the second step has a loss that is not a number on its first rank; such steps are skipped."""
    sys.path.append(str(ROOT / "tests" / "device"))
    import torch

    import late
    from dhp import train
    from dhp.run import entry
    from dhp.settings.config import TrainConfig
    from dhp.watch.record import Recorder
    from dhp.watch.trace import Tracer

    torch.set_num_threads(1)
    late.arrange("lazy", "eager", seed=0)
    run = entry.init(timeout_s=120)
    plain_agree, plain_forward = train.runtime.agree_on, train.forward
    plans: list[Any] = []
    records: list[Any] = []

    def agree_on(plan: Any, run: Any) -> None:
        plans.append(plan)
        plain_agree(plan, run)

    def forward(adapter: Any, share: Any, task: Any, *others: Any) -> torch.Tensor:
        loss = plain_forward(adapter, share, task, *others)
        is_bad = len(plans) == BAD_STEP and task.id == plans[-1].tasks[-1].id and task.ranks[0] == run.rank
        return loss * float("nan") if is_bad else loss

    train.runtime.agree_on, train.forward = agree_on, forward
    settings = TrainConfig(
        model=str(folder / "model"),
        data=str(folder / "train.jsonl"),
        output_dir=str(folder / "run-nonfinite"),
        ranks=2,
        precision="fp32",
        steps=STEPS,
        global_batch_size=6,
        capacity_tokens=110,
        save_steps=0,
        on_nonfinite="skip",
        recalibrate_every=2,
    )
    reporter: Any = SimpleNamespace(step=records.append, say=lambda text: None) if run.rank == 0 else None
    recorder = Recorder(str(folder / "late-result.json"), run, settings)
    tracer = Tracer(folder / "late-trace.json", run)
    train.train(settings, run, reporter, tracer, recorder, None)
    recorder.write()
    tracer.write()
    if run.rank == 0:
        bad = plans[BAD_STEP - 1].tasks[-1]
        said = [(record.skipped, record.loss if record.loss == record.loss else None) for record in records]
        (folder / "nonfinite.json").write_text(json.dumps([bad.id, list(bad.sequences), said]))
    run.close()
    return 0


@pytest.fixture(scope="module")
def trained(mixed_data: Path) -> Path:
    done = subprocess.run([sys.executable, __file__, mixed_data], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return mixed_data


def test_the_task_and_its_samples_are_named(trained: Path) -> None:
    task, samples, said = json.loads((trained / "nonfinite.json").read_text())
    listed = ", ".join(map(str, samples))
    assert [skipped for skipped, _ in said] == [
        "",
        f"the loss of task {task} is not finite; its samples: {listed}",
        "",
    ]
    assert [loss is None for _, loss in said] == [False, True, False], "the next step goes on with whole weights"


def test_result_and_trace_show_what_the_device_did(trained: Path) -> None:
    result = read_result(trained / "late-result.json")
    assert (result.clock, len(result.steps)) == ("wall", STEPS)
    assert result.tasks is not None and result.tasks["seconds"].min() > 0.0
    assert result.timeline is not None and result.timeline.step == 2
    bars = [event for event in json.loads((trained / "late-trace.json").read_text())["traceEvents"] if "dur" in event]
    for rank in (0, 1):
        own = sorted((bar for bar in bars if bar["pid"] == rank and bar["cat"] != "data"), key=lambda bar: bar["ts"])
        assert [bar["cat"] for bar in own].count("reduce") == [bar["cat"] for bar in own].count("optimizer") == STEPS
        tasks = [bar for bar in own if bar["cat"] == "task"]
        for one, following in itertools.pairwise(tasks):
            assert 0.0 < one["dur"] <= following["ts"] - one["ts"] + 1.0, "microseconds: a stream runs them in order"


if __name__ == "__main__":
    sys.exit(run_local(2, lambda: train_with_a_bad_loss(Path(sys.argv[1]))))
