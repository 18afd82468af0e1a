"""`dhp train` of every family that has a data rule, from a checkpoint folder and media on disk, equals Hugging Face
alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from borrowed_checkpoints import write_checkpoint
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.demo.families import TINY_FAMILIES
from family_models import MODELS, OMNI
from mixed_media import write_mixed_data
from parity import compare, run_parity

SIZES = {"layers": 3, "hidden": 64, "vision_layers": 3, "vision_hidden": 32, "vision_intermediate": 64}
# Few tokens a sample, so that runs are quick.
SMALL = {"tile": 56, "max_tiles": 4, "fps": 1.0}


BORROWED = ["llava", "llava_onevision", "idefics3"]  # their own processor makes the data


OWN = [name for name in TINY_FAMILIES if name != "qwen3_vl" and (name != OMNI or OMNI in MODELS)]


@pytest.mark.parametrize("family", [*OWN, *BORROWED])
def test_losses_and_gradients_equal_hugging_face(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if family in BORROWED:
        write_mixed_data(tmp_path, media="image video" if family == "llava_onevision" else "image")
        write_checkpoint(tmp_path / "model", family)
    else:
        # GLM-4V alone cannot take pictures and clips in one sample
        media = "image video audio" if TINY_FAMILIES[family].sound else "image video"
        write_mixed_data(tmp_path, media=media if TINY_FAMILIES[family].video else "", mixed=family != "glm4v")
        make_tiny_checkpoint(tmp_path / "model", family=family, **SIZES, **SMALL)
    monkeypatch.setenv("DHP_PARITY_STEPS", "2")
    if family == OMNI:  # whose frames have 128 tokens at least
        monkeypatch.setenv("DHP_PARITY_CAPACITY", "300")
        lines = (tmp_path / "train.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "train.jsonl").write_text("".join(line for line in lines if "clip2" not in line))
    run_parity(tmp_path, "reference-fp64", "2-free-fp64")
    compare(tmp_path, "2-free-fp64", "reference-fp64", 1e-6)
