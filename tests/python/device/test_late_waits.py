"""How often a step makes the host wait for the device: what costs time on an accelerator, and can be counted without
one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.run.launch import run_local

ROOT = Path(__file__).parents[3]
STEPS = 3


def count(folder: Path, recompute: bool) -> int:
    """Three steps on one of two ranks; the waits of each part, and of all else, by operator, go to waits-RANK.json."""
    sys.path.append(str(ROOT / "tests" / "device"))
    import torch

    import late
    from dhp import train
    from dhp.run import entry
    from dhp.settings.config import TrainConfig
    from dhp.step.sharded import ShardedAdamW
    from dhp.watch.record import Recorder
    from dhp.watch.trace import Tracer

    torch.set_num_threads(1)
    late.arrange("lazy", "eager", seed=0)
    parts: dict[str, list[dict[str, int]]] = {"forward": [], "backward": [], "reduce": [], "update": [], "else": []}

    def counting(part: str, function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            parts["else"].append(late.device.take_counts())
            result = function(*arguments, **named)
            parts[part].append(late.device.take_counts())
            return result

        return call

    plain, first = train.forward, []

    def forward(adapter: Any, share: Any, task: Any, *others: Any) -> Any:
        first[:] = first or [share]  # it was read before there was a model
        one = share.inputs[task.id]
        assert share is first[0] or one.made, "the thread that reads has made nothing of it"
        assert share is first[0] or one.pixels.is_pinned() or not len(one.pixels)
        return plain(adapter, share, task, *others)

    train.forward = counting("forward", forward)
    torch.Tensor.backward = counting("backward", torch.Tensor.backward)
    ShardedAdamW.reduce = counting("reduce", ShardedAdamW.reduce)
    train.optimizer.update = counting("update", train.optimizer.update)
    run = entry.init(timeout_s=120)
    settings = TrainConfig(
        model=str(folder / "model"),
        data=str(folder / "train.jsonl"),
        output_dir=str(folder / f"run-{recompute}"),
        ranks=2,
        planner="free",
        precision="fp32",
        steps=STEPS,
        global_batch_size=6,
        capacity_tokens=110,
        gradient_checkpointing=recompute,
        save_steps=0,
    )
    train.train(settings, run, None, Tracer(None, run), Recorder("", run, settings), None)
    (folder / f"waits-{run.rank}.json").write_text(json.dumps(parts))
    run.close()
    return 0


@pytest.fixture(scope="module")
def folders(mixed_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data and a checkpoint of each family."""
    from mixed_media import write_mixed_data  # on the path of pytest alone

    made = {"qwen3_vl": mixed_data}
    for family in ("qwen2_5_vl", "internvl"):
        made[family] = tmp_path_factory.mktemp(family)
        write_mixed_data(made[family])
        sizes = {"layers": 2, "hidden": 64, "vision_layers": 2, "vision_hidden": 32, "vision_intermediate": 64}
        make_tiny_checkpoint(made[family] / "model", family=family, **sizes, tile=56, max_tiles=4, fps=1.0)
    return made


@pytest.mark.parametrize(
    ("family", "recompute"), [("qwen3_vl", False), ("qwen3_vl", True), ("qwen2_5_vl", False), ("internvl", False)]
)
def test_waits_of_a_step(folders: dict[str, Path], family: str, recompute: bool) -> None:
    from drawn import skip_most_in_ci  # not where this file is a program

    skip_most_in_ci(keep=0.5)
    mixed_data = folders[family]
    # In a process of its own: autograd knows the devices that there were when it was first used.
    command = [sys.executable, __file__, mixed_data, str(int(recompute))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for rank in range(2):
        parts = json.loads((mixed_data / f"waits-{rank}.json").read_text())
        tasks = len(parts["forward"])
        assert tasks > STEPS, "several tasks a step"
        assert parts["forward"] == parts["backward"] == [{}] * tasks
        assert sum(sum(waits.values()) for waits in parts["else"][1:]) == 0
        # One a step: the losses of all tasks, the norm, and whether gradients are finite. Times of tasks come with it.
        assert parts["reduce"] == [{"download": 1}] * STEPS
        assert parts["update"] == [{}] * STEPS


if __name__ == "__main__":
    sys.exit(run_local(2, lambda: count(Path(sys.argv[1]), sys.argv[2] == "1")))
