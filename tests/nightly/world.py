"""What the trials with real ranks share: a tiny model, texts to train on, settings, ways to start ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quick import Program, QuickStart, free_port

from tiny_run import as_toml, make_tiny

SETTINGS: dict[str, Any] = {
    "model": "model",
    "data": "data.jsonl",
    "index": "data.idx",
    "log_every": 1,
    "learning_rate": 1e-3,
}


def make_world(folder: Path, samples: int = 24) -> Path:
    """model/ and data.jsonl: texts of 20 to 200 tokens, so that tasks have one to a few ranks."""
    make_tiny(folder / "model")
    turns = [
        [
            {"role": "user", "content": "A sentence, and more. " * (1 + i % 8)},
            {"role": "assistant", "content": f"Yes, {i}."},
        ]
        for i in range(samples)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in turns))
    return folder


def write_settings(folder: Path, name: str = "run.toml", **settings: Any) -> str:
    table = {**SETTINGS, **settings}
    (folder / name).write_text(as_toml(table))
    return name


def start_ranks(
    quick: QuickStart, folder: Path, ranks: int, arguments: list[str], log: str, module: str = "dhp.train"
) -> list[Program]:
    """Ranks that no launcher of dhp starts, as SLURM or a script would. A log a rank."""
    port = free_port()
    return [
        quick.start(
            arguments, folder / f"{log}.rank{rank}", cwd=folder, env=rank_environment(rank, ranks, port), module=module
        )
        for rank in range(ranks)
    ]


def rank_environment(
    rank: int, ranks: int, port: int, host: str = "127.0.0.1", interface: str = "lo"
) -> dict[str, str]:
    who = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    return {**who, "MASTER_ADDR": host, "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": interface}
