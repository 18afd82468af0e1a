"""Media, data and a tiny checkpoint that several files read; none of them may change what stands here."""

import shutil
from pathlib import Path

import pytest

from dhp.data.processor import Processor, load_processor
from indexed_data import make
from made_media import write_clip
from tiny_run import make_tiny


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("ck"))


@pytest.fixture(scope="session")
def processor(checkpoint: Path) -> Processor:
    return load_processor(checkpoint)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s of H.264 with B-frames, a key frame every 24."""
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", 250, options={"g": "24", "bf": "2"})


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.jsonl, media/ and model/."""
    return make(tmp_path_factory.mktemp("data"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of `made`, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "copy"))
