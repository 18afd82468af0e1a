"""How long simulations of 1,024 ranks take: planners x clusters x 100 noisy steps, on one core.

    python bench/simulate_scale.py [--dhp build/release/dhp]

Lengths are drawn from the shared OpenVid-like and InternVid-like batches (bench/cases), 8,192 sequences on 128 nodes of
eight: free and the peers, with links of their own, with one 25 GB/s NIC a node, and with that behind a switch of a
fourth of all NICs. Prints the table of `dhp simulate --sweep` and the wall time of each sweep.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

CASES = Path(__file__).parents[1] / "bench" / "cases"
NODES = 128
SEQUENCES = 8192


def write_batch(source: str, file: Path) -> None:
    drawn = random.Random(7).choices(json.loads((CASES / source).read_text())["sequences"], k=SEQUENCES)
    sequences = [sequence | {"id": i} for i, sequence in enumerate(drawn)]
    file.write_text(json.dumps({"format": "dhp.batch/1", "sequences": sequences}))


def write_clusters(folder: Path) -> list[Path]:
    cluster = json.loads((CASES / "cluster_910b_8x8.json").read_text()) | {"nodes": NODES}
    nic = {"node_bandwidth_bytes_per_s": 2.5e10}
    kinds = {"own_links": {}, "nic": nic, "nic_and_switch": nic | {"switch_bandwidth_bytes_per_s": NODES * 2.5e10 / 4}}
    files = []
    for name, limits in kinds.items():
        files.append(folder / f"{name}.json")
        files[-1].write_text(json.dumps(cluster | limits))
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dhp", default="build/release/dhp")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--planners", default="free,lockstep,paper,balanced-static,static")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for cluster in write_clusters(folder):
            for source in ("openvid", "internvid"):
                batch = folder / f"{source}.json"
                write_batch(f"batch_{source}_512.json", batch)
                command = [args.dhp, "simulate", "--sweep", "--batch", batch, "--cluster", cluster]
                command += ["--cost", CASES / "cost_qwen3-vl-8b_8192.json", "--planners", args.planners]
                command += ["--steps", str(args.steps), "--noise", "0.08"]
                start = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                print(f"{source}, {cluster.stem}: {time.perf_counter() - start:.1f} s for {done.stdout}")


if __name__ == "__main__":
    main()
