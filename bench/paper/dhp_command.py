"""Calls of the command line, as a user would make them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_FRAMES = 512  # of a clip
TOKENS_PER_FRAME = 258  # 256 and two markers
PATCHES_PER_FRAME = 1024


def label_tokens(frame: int) -> int:
    """Tokens of "Frame-12: " and the line's end around frame 12, the twelfth: five and the digits (docs/tokens.md)."""
    return 5 + len(str(frame))


def cut_long(file: Path) -> None:
    """Leaves MOST_FRAMES of what is longer."""
    batch = json.loads(file.read_text())
    for sequence in batch["sequences"]:
        frames = sequence["patches"] // PATCHES_PER_FRAME
        if frames > MOST_FRAMES:
            dropped = range(MOST_FRAMES + 1, frames + 1)
            sequence["tokens"] -= sum(TOKENS_PER_FRAME + label_tokens(frame) for frame in dropped)
            sequence["patches"] = MOST_FRAMES * PATCHES_PER_FRAME
    file.write_text(json.dumps(batch))


@dataclass(frozen=True)
class Dhp:
    """A built `dhp`, and the folder for the files that it makes."""

    program: Path
    folder: Path

    def json(self, *arguments: str | Path) -> Any:
        words = [str(self.program), *map(str, arguments), "--output-format", "json"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        infeasible = 1  # an answer too
        if done.returncode not in (0, infeasible) or not done.stdout:
            raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
        return json.loads(done.stdout)

    def cost(self, model: str, device: str, ranks: int, recompute: str) -> Path:
        file = self.folder / f"{model}_{ranks}_{recompute}.cost.json"
        if not file.exists():
            self.json("cost", "--model", model, "--device", device, "--ranks", str(ranks), "--recompute", recompute,
                      "-o", file)  # fmt: skip
        return file

    def batch(self, name: str, model: str, count: int, seed: int) -> Path:
        """Qwen by qwen-vl-utils. InternVL at two frames a second: its own default draws 8 to 32 frames of a clip
        whatever its length, which leaves no long sequences to balance; at most MOST_FRAMES, as Qwen's rule ends at
        128,000 tokens."""
        qwen = model.startswith("qwen")
        file = self.folder / f"{name}_{'qwen' if qwen else 'internvl'}_{count}_{seed}.batch.json"
        if not file.exists():
            family = ["--model", "qwen3-vl"] if qwen else ["--model", "internvl", "--fps", "2"]
            self.json("dataset", "--data", name, *family, "--count", str(count), "--seed", str(seed), "-o", file)
            if not qwen:
                cut_long(file)
        return file

    def sweep(
        self, planners: list[str], batches: list[Path], clusters: list[str], costs: list[Path], noise: str
    ) -> list[dict[str, Any]]:
        """Runs of every planner on every batch, cluster and cost; one step each."""
        lists: list[tuple[str, Sequence[object]]] = [("--batch", batches), ("--cluster", clusters), ("--cost", costs)]
        files = [word for flag, values in lists for value in values for word in (flag, str(value))]
        result: dict[str, Any] = self.json(
            "simulate", "--sweep", "--planners", ",".join(planners), *files, "--noise", noise
        )
        return list(result["runs"])
