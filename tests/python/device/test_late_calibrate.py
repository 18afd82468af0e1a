"""`dhp calibrate` on a device: one process by mirror, and two ranks with real groups and links. What seconds the late
device makes up says nothing; that all of them are found, and where they go, does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dhp._core import read_cluster, read_cost_model
from dhp.cost import calibrate
from dhp.run import launch

ROOT = Path(__file__).parents[3]
FEW = ["--samples", "16", "--left-out", "3", "--repeats", "1", "--max-tokens", "200", "--unit", "4x4"]


def main(arguments: list[str]) -> int:
    """As the command does, with the device in every rank, as a driver would bring it."""
    plain = calibrate.join

    def join(*arguments: object) -> object:
        sys.path.append(str(ROOT / "tests" / "device"))
        import late

        late.arrange("eager", "eager")
        run = plain(*arguments)  # type: ignore[arg-type]
        torch.ops.dhp.use_kernel("cuda_flash")
        return run

    calibrate.join = join  # type: ignore[assignment]
    return calibrate.main(arguments)


@pytest.mark.parametrize("ranks", [1, 2])
def test_calibration_on_a_device(mixed_data: Path, tmp_path: Path, ranks: int) -> None:
    cost, cluster = tmp_path / "cost.json", tmp_path / "cluster.json"
    words = ["--model", mixed_data / "model", *FEW, "--ranks", ranks, "--device", "h100", "--precision", "bf16"]
    words += ["-o", cost]
    words += ["--max-degree", 4] if ranks == 1 else ["--cluster-output", cluster]
    # In a process of its own: autograd knows the devices that there were when it was first used.
    command = [sys.executable, __file__, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    model, fit = read_cost_model(str(cost)), json.loads(cost.read_text())["fit"]
    forward = model.forward  # what its seconds are spent on is this device's chance
    assert forward.token_s + forward.pair_s + forward.step_s + forward.sequence_step_s > 0.0
    assert (fit["clock"], fit["device"], fit["ranks"]) == ("events of the device", "late", ranks)
    assert fit["degrees"] == ([1, 2, 4] if ranks == 1 else [1, 2])
    if ranks == 2:
        link = read_cluster(str(cluster)).intra_node
        assert 0.0 < link.latency_s < 0.1 < 1e6 < link.bandwidth_bytes_per_s
        assert fit["links"]["inside_node"]["latency_s"] == pytest.approx(link.latency_s)


def test_a_device_that_is_not_there_is_refused_by_its_flag(mixed_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert calibrate.main(["--model", str(mixed_data / "model"), "--torch-device", "npu"]) == launch.BAD_INPUT
    assert "--torch-device: found 'npu', but torch" in capfd.readouterr().err


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
