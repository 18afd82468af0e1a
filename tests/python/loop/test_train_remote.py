"""`dhp train` on data at an address: the losses of the same data on a disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from file_server import FileServer
from programs import run_program
from tiny_run import copied_run

pytest.importorskip("aiohttp")


def losses(folder: Path, file: str, *more: str) -> list[float]:
    arguments = ["--metrics", folder / file, "--quiet", "--set", f"output_dir={folder / file}-out", *more]
    done = run_program("dhp.train", folder / "run.toml", *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["loss"] for line in (folder / file).read_text().splitlines()]


def test_the_same_losses_as_on_a_disk(mixed_data: Path, tmp_path: Path) -> None:
    copied_run(mixed_data, tmp_path, ranks=2, steps=2, capacity_tokens=120, timeout_s=120.0)
    local = losses(tmp_path, "local")
    with FileServer(tmp_path) as server:
        at = [
            f"data={server.url}train.jsonl",
            f"index={tmp_path / 'remote.index'}",
            f"media_cache={tmp_path / 'cache'}",
        ]
        assert losses(tmp_path, "remote", *at) == local
        kept = [file.stat().st_size for file in (tmp_path / "cache").iterdir() if file.name != "total"]
        sizes = [file.stat().st_size for file in tmp_path.rglob("*") if file.suffix in (".png", ".jpg", ".mp4")]
        assert kept and set(kept) <= set(sizes), "whole media, and nothing else"
