"""Steps of real training runs: predicted by the plan (which `dhp simulate` repeats) against emulated.

    python bench/train_steps.py --cost cost.json [--config examples/demo.toml] [--schedules static paper free]

Trains with every schedule in turn, from the same start, with a cost file of `dhp calibrate` that the run fits anew to
its own tasks every `--recalibrate-every` steps (0: never), since tasks take more CPU time while other work shares the
caches.
Emulated is the plan replayed with the CPU seconds of its tasks (docs/training.md). The first steps warm up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

WARM_UP = 6


def steps_of(schedule: str, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    metrics = folder / f"{schedule}.jsonl"
    words = [str(Path(sys.executable).parent / "dhp"), "train", options.config, "--schedule", schedule]
    words += ["--steps", str(WARM_UP + options.steps), "--metrics", str(metrics), "--set", f"cost={options.cost}"]
    words += [f"recalibrate_every={options.recalibrate_every}", "save_steps=0", f"output_dir={folder / schedule}"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in metrics.read_text().splitlines()][WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cost", required=True, help="a dhp.cost/1 file of dhp calibrate")
    parser.add_argument("--config", default="examples/demo.toml")
    parser.add_argument("--schedules", nargs="+", default=["static", "paper", "free"])
    parser.add_argument("--steps", type=int, default=20, help="that count")
    parser.add_argument("--recalibrate-every", type=int, default=3)
    options = parser.parse_args()
    means: dict[str, tuple[float, float]] = {}
    print(f"{'schedule':<18}{'emulated':>10}{'predicted':>11}{'off':>8}{'off a step, mean':>18}{'most':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for schedule in options.schedules:
            steps = steps_of(schedule, options, Path(folder))
            emulated = fmean(step["emulated_step_s"] for step in steps)
            predicted = fmean(step["predicted_step_s"] for step in steps)
            off = [abs(step["predicted_step_s"] / step["emulated_step_s"] - 1.0) for step in steps]
            means[schedule] = emulated, predicted
            print(
                f"{schedule:<18}{emulated:>8.3f} s{predicted:>9.3f} s{predicted / emulated - 1.0:>+8.1%}"
                f"{fmean(off):>18.1%}{max(off):>8.1%}",
                flush=True,
            )
    for number, name in enumerate(("emulated", "predicted")):
        print(f"by {name} time, quickest first: {', '.join(sorted(means, key=lambda s: means[s][number]))}")


if __name__ == "__main__":
    main()
