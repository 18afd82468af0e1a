"""Fixtures that several test files share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mixed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (pictures, clips, text), its media, and a tiny Qwen3-VL checkpoint in model/."""
    from dhp.demo.checkpoint import make_tiny_checkpoint
    from mixed_media import write_mixed_data

    folder = tmp_path_factory.mktemp("mixed")
    write_mixed_data(folder)
    make_tiny_checkpoint(folder / "model", layers=3, hidden=64, vision_layers=3, vision_hidden=32, deepstack=(0, 2))
    return folder
