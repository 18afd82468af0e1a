"""A loss that is not finite on a device, where losses are read once a step: its task and samples are still named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dhp.run.launch import run_local

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
    )
    reporter: Any = SimpleNamespace(step=records.append, say=lambda text: None) if run.rank == 0 else None
    train.train(settings, run, reporter, Tracer(None, run), Recorder("", run, settings), None)
    if run.rank == 0:
        bad = plans[BAD_STEP - 1].tasks[-1]
        said = [(record.skipped, record.loss if record.loss == record.loss else None) for record in records]
        (folder / "nonfinite.json").write_text(json.dumps([bad.id, list(bad.sequences), said]))
    run.close()
    return 0


def test_the_task_and_its_samples_are_named(mixed_data: Path) -> None:
    done = subprocess.run([sys.executable, __file__, mixed_data], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    task, samples, said = json.loads((mixed_data / "nonfinite.json").read_text())
    listed = ", ".join(map(str, samples))
    assert [skipped for skipped, _ in said] == [
        "",
        f"the loss of task {task} is not finite; its samples: {listed}",
        "",
    ]
    assert [loss is None for _, loss in said] == [False, True, False], "the next step goes on with whole weights"


if __name__ == "__main__":
    sys.exit(run_local(2, lambda: train_with_a_bad_loss(Path(sys.argv[1]))))
