"""Where groups of any size do not pay: equal sequences, most at the cap, short texts. Is `free` behind a static mesh?

    python bench/flat_batches.py [--trials 200]

Plans of `free` and of the meshes (static, balanced-static) for 64 ranks, replayed with errors of estimates as `free`
expects them: 2 % a sequence, 2 % a task, 1 % a rank. Prints mean steps in seconds, and free over the best mesh.
"""

from __future__ import annotations

import argparse
import random
import statistics

from dhp import _core as core

CAP = 8192
SEED = 11


def equal(_: random.Random) -> list[int]:
    return [4096] * 512


def one_more(_: random.Random) -> list[int]:
    return [4096] * 513


def at_the_cap(draw: random.Random) -> list[int]:
    return [CAP if draw.random() < 0.9 else draw.randint(200, CAP) for _ in range(512)]


def long_at_the_cap(draw: random.Random) -> list[int]:
    return [4 * CAP if draw.random() < 0.9 else draw.randint(200, 4 * CAP) for _ in range(256)]


def short_texts(draw: random.Random) -> list[int]:
    return [min(512, max(20, round(draw.lognormvariate(5, 0.6)))) for _ in range(4096)]


BATCHES = {
    "equal": equal,
    "equal, one more": one_more,
    "9 of 10 at the cap": at_the_cap,
    "the same, 32 K tokens": long_at_the_cap,
    "short texts": short_texts,
}
MACHINES = (("ascend-910b-8x8", "qwen3-vl-8b@ascend-910b"), ("h100-8x8", "qwen3-vl-8b@h100"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    errors = core.ErrorSizes()
    print(f"{'':16} {'':22} {'free':>9} {'best mesh':>9}  {'':18} {'free over it':>12}")
    for machine, model in MACHINES:
        cluster = core.read_cluster(machine)
        cost = core.read_cost_model(model, cluster)
        for name, lengths in BATCHES.items():
            batch = core.Batch([core.Sequence(i, n) for i, n in enumerate(lengths(random.Random(SEED)))])
            steps = {}
            for planner in ("free", "static", "balanced-static"):
                plan = core.try_plan(batch, cluster, cost, planner=planner)
                if isinstance(plan, core.Infeasible):
                    continue
                noisy = core.noisy_makespans(plan, batch, cluster, cost, errors, options.trials, SEED)
                steps[plan.planner] = statistics.fmean(noisy)
            free_s = steps.pop("free")
            mesh = min(steps, key=lambda planner: steps[planner])
            print(
                f"{machine:16} {name:22} {free_s:7.3f} s {steps[mesh]:7.3f} s  {mesh:18} {free_s / steps[mesh]:12.3f}"
            )


if __name__ == "__main__":
    main()
