"""What DHP itself costs a training run: its own Python on the training thread, and planning that no step hid.

    make demo && python bench/own_time.py [--config examples/demo.toml] [--steps 20]

Trains as `dhp train` does, under cProfile with the CPU time of the training thread as clock. Own Python is what
functions of `dhp` take themselves, and what they call that is not torch's: the bindings, hashes, NumPy. The profiler's
own cost is in it. Planning that was not hidden is wall time (`plan_wait_s`). Shares are of all CPU seconds of the
ranks' processes, imports and reading threads included.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path

import dhp
from dhp import train
from dhp.models import import_family
from dhp.run.launch import run_local

PACKAGE = str(Path(dhp.__file__).parent)


def own_seconds(profile: cProfile.Profile) -> float:
    """Of functions of the package, and of compiled ones that they call; torch's are not ours."""
    total = 0.0
    for (file, _, name), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if file.startswith(PACKAGE):
            total += own
        elif file == "~" and "torch" not in name:
            total += sum(caller[2] for (caller_file, *_), caller in callers.items() if caller_file.startswith(PACKAGE))
    return total


def work(words: list[str], folder: Path) -> int:
    """One rank of `dhp train`, whose loop is profiled."""
    profile, loop = cProfile.Profile(time.thread_time), train.train

    def profiled(*arguments: object) -> None:
        profile.runcall(loop, *arguments)

    train.train = profiled  # type: ignore[assignment]
    code = train.main(words)
    seconds = {"own_s": own_seconds(profile), "cpu_s": time.process_time()}
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(seconds))
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(Path(__file__).parents[1] / "examples/demo.toml"))
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [options.config, "--steps", str(options.steps), "--quiet", "--metrics", str(folder / "metrics.jsonl")]
        words += ["--set", f"output_dir={folder / 'out'}"]
        import_family(train.settings_of(train.parser().parse_args([options.config])).model)
        ranks = train.settings_of(train.parser().parse_args(words)).ranks
        if code := run_local(ranks, lambda: work(words, folder)):
            return code
        rows = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
        steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    cpu_s, own_s = sum(row["cpu_s"] for row in rows), sum(row["own_s"] for row in rows)
    waits = [step["plan_wait_s"] for step in steps]
    waited_s = ranks * sum(waits)  # every rank waits; rank 0 has measured it
    print(f"{ranks} ranks, {len(steps)} steps, {cpu_s:.1f} CPU s")
    print(f"own Python            {own_s:6.2f} s  {own_s / cpu_s:6.2%}")
    print(f"planning not hidden   {waited_s:6.2f} s  {waited_s / cpu_s:6.2%}  (first step: {waits[0]:.3f} s a rank)")
    print(f"together              {own_s + waited_s:6.2f} s  {(own_s + waited_s) / cpu_s:6.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
