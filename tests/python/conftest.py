"""Fixtures that several test files share."""

import json
import signal
from pathlib import Path

import pytest

from command_line import GOOD_BATCH, GOOD_CLUSTER, GOOD_COST, dhp, inputs

# In the background of a script Ctrl-C is ignored, and would be in every program that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mixed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (pictures, clips, text), its media, and a tiny Qwen3-VL checkpoint in model/."""
    from dhp.demo.checkpoint import make_tiny_checkpoint
    from mixed_media import write_mixed_data

    folder = tmp_path_factory.mktemp("mixed")
    write_mixed_data(folder)
    make_tiny_checkpoint(folder / "model", layers=3, hidden=64, vision_layers=3, vision_hidden=32, deepstack=(0, 2))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Good batch, cluster and cost files, and a plan by the default planner."""
    paths = {}
    for name, content in (("batch", GOOD_BATCH), ("cluster", GOOD_CLUSTER), ("cost", GOOD_COST)):
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(content))
    paths["plan"] = tmp_path / "plan.json"
    assert dhp("plan", *inputs(paths), "-o", paths["plan"]).code == 0
    return paths
