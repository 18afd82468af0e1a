"""Whole calls of Hugging Face's processors as they are where torchvision is: ids, and pixels of pictures and clips.

`make nightly PARTS=torchvision` installs it; tests elsewhere stand in for what processors need of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from budget import NIGHTLY
from PIL import Image
from transformers.audio_utils import load_audio
from transformers.video_utils import VideoMetadata

from borrowed_checkpoints import write_checkpoint, write_smolvlm
from dhp.data.decoding.clips import read_frames
from dhp.data.decoding.media import Medium, read_units
from dhp.data.formats.samples import MediumRef, Message
from dhp.data.grid import probe_medium
from dhp.data.text import Encoder
from dhp.demo.checkpoint import make_tiny_checkpoint
from family_models import OMNI
from mixed_media import picture, write_clip, write_sound

CASES = 40 if NIGHTLY else 4
SIZES = {"layers": 1, "hidden": 32, "vision_layers": 1, "vision_hidden": 16, "vision_intermediate": 32}

pytestmark = pytest.mark.skipif(not tf.utils.is_torchvision_available(), reason="needs torchvision")


@pytest.fixture
def drawn() -> random.Random:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


@dataclass
class Given:
    """A conversation about media of random sizes: what dhp makes of it, and a processor in one call."""

    encoder: Encoder
    media: tuple[Medium, ...]
    ids: list[int]
    theirs: Any

    def pixels(self, number: int) -> torch.Tensor:
        return read_units(self.media[number], 0, self.media[number].units, self.encoder.processor)

    @property
    def same_ids(self) -> bool:
        return bool(self.ids == self.theirs["input_ids"][0].tolist())


def ask(
    processor: Any, folder: Path, drawn: random.Random, case: int, kinds: str = "image video", side: int = 160
) -> Given:
    encoder = Encoder(folder)
    root, asked, refs = folder.parent, dict[str, Any](), list[MediumRef]()
    for kind in kinds.split():
        file = root / f"{case}.{ {'image': 'png', 'video': 'mp4', 'audio': 'wav'}[kind] }"
        refs.append(MediumRef(kind, str(file), alone=True))
        if kind == "image":
            Image.fromarray(picture(drawn.randint(30, 3 * side), drawn.randint(30, 3 * side), case)).save(file)
            asked["images"] = [[Image.open(file)]]
        elif kind == "audio":
            write_sound(file, drawn.randint(2000, 40000), 16000, 1, case)
            asked["audio"] = [load_audio(str(file), sampling_rate=16000, backend="soundfile")]
        else:
            count, fps = drawn.randint(26, 60), drawn.choice([5, 10, 25])
            write_clip(file, 2 * drawn.randint(8, side // 2), 2 * drawn.randint(8, side // 2), count, fps, case)
            frames = read_frames(str(file), list(range(count)))
            whole = torch.from_numpy(np.stack([frames[i] for i in range(count)])).permute(0, 3, 1, 2)
            about = VideoMetadata(total_num_frames=count, fps=float(fps), duration=count / fps)
            asked |= {"videos": [[whole]], "video_metadata": [[about]]}
    media = tuple(probe_medium(ref, encoder.processor) for ref in refs)
    turns = (Message("user", ("What? ", *range(len(media)))), Message("assistant", ("Four.",)))
    sample: Any = SimpleNamespace(messages=turns, media=media, tools=())
    theirs = processor(text=[encoder._render(sample)], return_tensors="pt", **asked)
    return Given(encoder, media, encoder.encode(sample).input_ids.tolist(), theirs)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen2_vl", "glm4v", "internvl", OMNI])
def test_ids_and_clips_are_the_same_and_pictures_hardly_differ(
    family: str, tmp_path: Path, drawn: random.Random
) -> None:
    """Pictures are resized as Pillow does. torchvision rounds otherwise: by a level, rarely by more."""
    folder = make_tiny_checkpoint(tmp_path / "model", family=family, **SIZES)
    processor: Any = tf.AutoProcessor.from_pretrained(folder)
    differ = values = 0
    for case in range(CASES):
        given = ask(processor, folder, drawn, case, "image video audio" if family == OMNI else "image video")
        assert given.same_ids
        picture, clip = given.pixels(0), given.pixels(1)
        pictures, clips = given.theirs["pixel_values"].float(), given.theirs.get("pixel_values_videos")
        if clips is None:  # InternVL: tiles of both, one behind the other
            pictures, clips = pictures.split([len(picture), len(clip)])
        assert torch.equal(clip, clips.reshape(clip.shape))
        scale = given.encoder.processor.image
        assert scale is not None
        levels = (picture.reshape(pictures.shape) - pictures).abs() * scale.std[0] * 255
        assert levels.max() < 6.5, levels.max()
        differ += int((levels > 1.5).sum())
        values += levels.numel()
    assert differ < 2e-4 * values, (differ, values)


def test_smolvlm(tmp_path: Path, drawn: random.Random) -> None:
    pytest.importorskip("num2words")
    folder = tmp_path / "model"
    write_smolvlm(folder)
    processor: Any = tf.AutoProcessor.from_pretrained(folder)
    for case in range(CASES):
        given = ask(processor, folder, drawn, case, "video", side=80)
        assert given.same_ids
        assert torch.equal(given.pixels(0), given.theirs["pixel_values"][0].float())


def test_llava_onevision(tmp_path: Path, drawn: random.Random) -> None:
    folder, processor = write_checkpoint(tmp_path / "model", "llava_onevision")
    for case in range(CASES):
        given = ask(processor, folder, drawn, case, side=80)
        assert given.same_ids
        assert torch.equal(given.pixels(0), given.theirs["pixel_values"][0].float())
        torch.testing.assert_close(given.pixels(1), given.theirs["pixel_values_videos"][0].float())


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen2_vl", "glm4v", "internvl", OMNI])
def test_prompts_of_inference_begin_what_was_learned(family: str, tmp_path: Path) -> None:
    """Of the same folder, which what `dhp train` saves has the files of."""
    folder = make_tiny_checkpoint(tmp_path / "model", family=family, **SIZES)
    processor: Any = tf.AutoProcessor.from_pretrained(folder)
    encoder = Encoder(folder)
    Image.fromarray(picture(200, 300, 1)).save(tmp_path / "a.png")
    media = (probe_medium(MediumRef("image", str(tmp_path / "a.png")), encoder.processor),)
    turns = (Message("user", (0, "What is it?")), Message("assistant", ("A lawn.",)))
    learned = encoder.encode(SimpleNamespace(messages=turns, media=media, tools=())).input_ids.tolist()
    parts = [{"type": "image", "image": Image.open(tmp_path / "a.png")}, {"type": "text", "text": "What is it?"}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"][0]
    assert learned[: len(prompt)] == prompt
    assert processor.decode(learned[len(prompt) :]).startswith("A lawn.")
