"""What it gains that `free` and `lockstep` plan for links that ranks share: 16 cases with few NICs or a slow switch.

    python bench/shared_links.py [--dhp build/release/dhp]

Each batch is planned twice, by a cluster file that leaves shared links out and by the whole one. Both are simulated
with shared links. Prints the simulated makespans in seconds, the gain, and the time to plan.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "paper"))
from dhp_command import Dhp

CASES = Path(__file__).parents[1] / "bench" / "cases"
LIMITS = {  # of 8 ranks a node with a link of 25 GB/s each
    "a NIC a node": {"node_bandwidth_bytes_per_s": 2.5e10},
    "two NICs a node": {"node_bandwidth_bytes_per_s": 5e10},
    "switch of 1/4": {"switch_bandwidth_bytes_per_s": 8 * 8 * 2.5e10 / 4},
    "a NIC, switch of 1/2": {"node_bandwidth_bytes_per_s": 2.5e10, "switch_bandwidth_bytes_per_s": 8 * 2.5e10 / 2},
}
BATCHES = ("internvid", "lognormal")  # the others hardly cross nodes
CAPACITIES = (4096, 8192)  # tokens a rank


def planned_s(dhp: Dhp, planner: str, inputs: tuple[str | Path, ...], seen: Path, real: Path) -> tuple[float, float]:
    """Simulated makespan on the cluster `real` of a plan made for the cluster `seen`, and seconds to plan it."""
    plan = dhp.folder / "plan.json"
    start = time.perf_counter()
    dhp.json("plan", *inputs, "--cluster", seen, "--planner", planner, "-o", plan)
    took_s = time.perf_counter() - start
    return dhp.json("simulate", *inputs, "--cluster", real, "--plan", plan)["mean_s"], took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dhp", type=Path, default=Path("build/release/dhp"))
    args = parser.parse_args()
    print(f"{'':21} {'':10} {'':6} {'':9} {'before':>8} {'now':>8} {'gain':>7} {'plan before':>12} {'now':>7}")
    with tempfile.TemporaryDirectory() as name:
        dhp = Dhp(args.dhp, Path(name))
        cluster = json.loads((CASES / "cluster_910b_8x8.json").read_text())
        own, shared = dhp.folder / "own.json", dhp.folder / "shared.json"
        own.write_text(json.dumps(cluster))
        for links, limits in LIMITS.items():
            shared.write_text(json.dumps(cluster | limits))
            for source, capacity, planner in itertools.product(BATCHES, CAPACITIES, ("free", "lockstep")):
                batch, cost = CASES / f"batch_{source}_512.json", CASES / f"cost_qwen3-vl-8b_{capacity}.json"
                inputs = ("--batch", batch, "--cost", cost)
                before_s, plain_s = planned_s(dhp, planner, inputs, own, shared)
                now_s, took_s = planned_s(dhp, planner, inputs, shared, shared)
                print(
                    f"{links:21} {source:10} {capacity:6} {planner:9} {before_s:8.3f} {now_s:8.3f}"
                    f" {before_s / now_s - 1:7.2%} {plain_s * 1e3:9.0f} ms {took_s * 1e3:4.0f} ms"
                )


if __name__ == "__main__":
    main()
