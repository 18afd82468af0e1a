"""What the steps run on: the device at hand and what differs between kinds of it, sizes, models and data."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.run import entry, ops
from dhp.run.runtime import Run

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sizes:
    """Of what is run. `SMALL` tries the steps in seconds."""

    head_sizes: tuple[int, ...] = (64, 128, 256)
    lengths: tuple[int, ...] = (1, 17, 128, 4097)
    ring_tokens: int = 4096
    short: tuple[int, int] = (100, 64)  # sequences and tokens of each, packed
    alone_tokens: tuple[int, ...] = (4096, 16384, 65536)
    alone_degrees: tuple[int, ...] = (1, 2, 4, 8)
    repeats: int = 10
    model: tuple[tuple[str, int], ...] = (
        ("layers", 8),
        ("hidden", 1024),
        ("heads", 16),
        ("kv_heads", 8),
        ("head_dim", 128),
        ("intermediate", 3072),
        ("vision_layers", 8),
        ("vision_hidden", 512),
        ("vision_heads", 8),
        ("vision_intermediate", 2048),
    )
    deepstack: tuple[int, ...] = (2, 4, 6)
    calibration: tuple[str, ...] = ("--samples", "48", "--left-out", "16", "--repeats", "4", "--max-tokens", "32768")
    most_degree: int = 8
    precision: str = "bf16_weights"  # of costs and of the replay
    divisor: int = 2  # of the lengths of the batch that is replayed
    samples: int = 256
    replay_repeats: int = 2
    calls: int = 16  # tasks whose inputs are in memory at once


SMALL = Sizes(
    head_sizes=(64,),
    lengths=(1, 17, 60),
    ring_tokens=64,
    short=(6, 8),
    alone_tokens=(64,),
    alone_degrees=(1, 2),
    repeats=2,
    model=(
        ("layers", 2),
        ("hidden", 64),
        ("heads", 4),
        ("kv_heads", 2),
        ("head_dim", 16),
        ("intermediate", 64),
        ("vision_layers", 2),
        ("vision_hidden", 32),
        ("vision_heads", 2),
        ("vision_intermediate", 64),
    ),
    deepstack=(0,),
    calibration=("--samples", "14", "--left-out", "3", "--repeats", "1", "--max-tokens", "150", "--unit", "4x4"),
    most_degree=2,
    precision="bf16",  # CPUs have no normalisation of 16-bit weights with sums as devices keep them
    divisor=128,
    samples=8,
    replay_repeats=1,
)


@dataclass
class Place:
    """device  cuda, npu, …, or late; folder  where models, data and results go"""

    device: str
    folder: Path
    sizes: Sizes

    def begin(self) -> None:
        """In the process of a step: what must not come before a fork."""
        warnings.filterwarnings("ignore", message=".*_check_is_size.*")
        if self.device == "late":
            self._late().arrange("eager", "eager")
            torch.set_num_threads(1)
        ops.load()
        if self.device == "late":
            torch.ops.dhp.use_kernel("cuda_flash")  # the code of CUDA's kernel, on the operators that late has

    def _late(self) -> Any:
        path = str(ROOT / "tests" / "device")
        if path not in sys.path:
            sys.path.append(path)
        import late

        return late

    def join(self, device: str | None = None) -> Run:
        """A run of one rank."""
        return entry.init(timeout_s=120.0, device=device or self.device)

    def name(self) -> str:
        tell = getattr(torch.get_device_module(self.device), "get_device_name", None)
        return str(tell()) if tell else self.device

    def driver(self) -> str:
        try:
            return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].split("Module")[-1].split()[0]
        except OSError:
            return ""

    def memory_bytes(self) -> float:
        tell = getattr(torch.get_device_module(self.device), "get_device_properties", None)
        return float(tell(0).total_memory) if tell else 0.0

    def count_waits(self) -> Callable[[], dict[str, int]]:
        """A function that says how often the host has waited for the device since its last call, by operation."""
        if self.device == "late":
            take_counts: Callable[[], dict[str, int]] = self._late().device.take_counts
            take_counts()
            return take_counts
        if self.device != "cuda":
            raise NotImplementedError(f"waits of the host are not counted on {self.device}")
        torch.cuda.set_sync_debug_mode("warn")
        warnings.simplefilter("always")
        seen: Counter[str] = Counter()

        def show(message: Any, category: Any, filename: str, lineno: int, *_: Any, **__: Any) -> None:
            if "called a synchronizing" in str(message):
                seen[f"{Path(filename).name}:{lineno}"] += 1

        warnings.showwarning = show

        def take() -> dict[str, int]:
            counts = dict(seen)
            seen.clear()
            return counts

        return take

    def seconds(self, call: Callable[[], Any], repeats: int | None = None) -> float:
        """Of the device, median; once unmeasured."""
        call()
        marks = [torch.Event(self.device, enable_timing=True) for _ in range((repeats or self.sizes.repeats) + 1)]
        for mark in marks[:-1]:
            mark.record()
            call()
        marks[-1].record()
        torch.accelerator.synchronize()
        return statistics.median(a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(marks))

    def model(self) -> Path:
        """A small Qwen3-VL, made once."""
        folder = self.folder / "model"
        if not (folder / "model.safetensors").exists():
            make_tiny_checkpoint(folder, deepstack=self.sizes.deepstack, **dict(self.sizes.model))
        return folder

    def data(self) -> Path:
        """Pictures and questions about them, made once."""
        from PIL import Image

        file = self.folder / "train.jsonl"
        if file.exists():
            return file
        lines, random = [], np.random.default_rng(5)
        for i in range(12):
            width, height = (int(32 * side) for side in random.integers(2, 8, 2))
            pixels = np.kron(random.integers(0, 255, (height // 32, width // 32, 3)), np.ones((32, 32, 1)))
            Image.fromarray(pixels.astype(np.uint8)).save(self.folder / f"{i}.png")
            question = {"role": "user", "content": "<image>What is it?" * (i % 3 > 0) or "A word about colours."}
            messages = [question, {"role": "assistant", "content": "Squares of colour. " * (1 + i % 4)}]
            lines.append(json.dumps({"messages": messages, **({"images": [f"{i}.png"]} if i % 3 else {})}))
        file.write_text("\n".join(lines) + "\n")
        return file


def place_of(folder: Path) -> Place:
    """By DEVICE, else the accelerator that torch finds; which is only asked in the process of a step."""
    device = os.environ.get("DEVICE") or ("npu" if "npu" in sys.modules else "cuda")
    return Place(device, folder, SMALL if device == "late" else Sizes())
