"""Tokens and pixels of InternVL, Qwen2.5-VL and GLM-4V against Hugging Face's processors, over random media."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.glm4v.processing_glm4v import Glm4vProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

from borrowed_checkpoints import write_checkpoint, write_smolvlm
from dhp._core import InputError
from dhp.data.decoding.media import Medium, PixelReader, _known_mode, read_units
from dhp.data.formats.samples import MediumRef, Message
from dhp.data.grid import probe_medium
from dhp.data.processor import Processor, load_processor
from dhp.data.text import IMAGE, VIDEO, Encoder
from dhp.demo.checkpoint import make_tiny_checkpoint
from huggingface_reference import video_module
from mixed_media import picture, write_clip

SIZES = {"layers": 1, "hidden": 32, "vision_layers": 1, "vision_hidden": 16, "vision_intermediate": 32}
CASES = int(os.environ.get("DHP_TEST_MEDIA", 12))  # pictures of each family; nightly 200


@pytest.fixture(scope="module", params=["internvl", "qwen2_5_vl", "glm4v"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp(request.param), family=request.param, **SIZES)


@pytest.fixture
def drawn(request: pytest.FixtureRequest) -> random.Random:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


def config(folder: Path, name: str) -> dict[str, Any]:
    values = json.loads((folder / name).read_text())
    return {key: value for key, value in values.items() if not key.endswith(("_type", "_class"))}


def whole(medium: Medium, processor: Processor) -> torch.Tensor:
    return read_units(medium, 0, medium.units, processor)


def test_pictures_are_those_of_hugging_face(folder: Path, tmp_path: Path, drawn: random.Random) -> None:
    processor = load_processor(folder)
    kinds = {"internvl": GotOcr2ImageProcessorPil, "glm4v": Glm4vImageProcessorPil}
    reference: Any = kinds.get(processor.family, Qwen2VLImageProcessorPil)(**config(folder, "preprocessor_config.json"))
    for case in range(CASES):
        width, height = drawn.randint(20, 700), drawn.randint(20, 700)
        file = tmp_path / f"{case}.png"
        Image.fromarray(picture(width, height, case)).save(file)
        medium = probe_medium(MediumRef("image", str(file)), processor)
        given = reference(images=[Image.open(file)], return_tensors="pt")
        expected = given["pixel_values"]
        assert torch.equal(whole(medium, processor), expected.float()), (width, height)
        if processor.family == "internvl":
            assert medium.units == given["num_patches"][0] == reference.get_number_of_image_patches(height, width)
            middle = medium.units // 2
            assert torch.equal(read_units(medium, middle, medium.units, processor), expected[middle:].float())
        else:
            assert list(medium.grid) == given["image_grid_thw"][0].tolist()


def test_max_pixels_limits_tiles(tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path / "model", family="internvl", **SIZES)
    processor = load_processor(folder)
    file = tmp_path / "wide.png"
    Image.fromarray(picture(700, 233, 1)).save(file)
    for most, units in ((6, None), (3, 4), (2, 3), (1, 1)):
        medium = probe_medium(MediumRef("image", str(file), max_pixels=most * 112 * 112), processor)
        settings = config(folder, "preprocessor_config.json") | {"max_patches": most}
        expected = GotOcr2ImageProcessorPil(**settings)(images=[Image.open(file)], return_tensors="pt")["pixel_values"]
        assert units in (None, medium.units)
        assert torch.equal(whole(medium, processor), expected.float())
    for kind in ("image", "video"):
        with pytest.raises(InputError, match="max_pixels is 12543, but the model's smallest picture has 12544"):
            probe_medium(MediumRef(kind, str(file) if kind == "image" else (str(file),), max_pixels=12543), processor)


def frames_of(file: Path, numbers: list[int]) -> np.ndarray:
    from dhp.data.decoding.clips import read_frames

    frames = read_frames(str(file), sorted(set(numbers)))
    return np.stack([frames[number] for number in numbers])


def resized(module: Any, family: str, frames: torch.Tensor, settings: dict[str, Any]) -> torch.Tensor:
    """[frames, 3, height, width] in the size that the video processor gives them, by what torchvision calls."""
    size = settings["size"]
    if family == "internvl":
        target = (size["height"], size["width"])
    elif family == "glm4v":
        target = module.smart_resize(
            len(frames), *frames.shape[-2:], 2, 28, size["shortest_edge"], size["longest_edge"]
        )
    else:
        target = module.smart_resize(
            *frames.shape[-2:], factor=28, min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"]
        )
    return torch.nn.functional.interpolate(frames, size=target, mode="bicubic", antialias=True)


def test_clips_are_those_of_hugging_face(folder: Path, tmp_path: Path, drawn: random.Random) -> None:
    processor = load_processor(folder)
    names = {"internvl": "InternVL", "glm4v": "Glm4v", "qwen2_vl": "Qwen2VL"}
    family = processor.family if processor.family in names else "qwen2_vl"
    module = video_module(family)
    kind = getattr(module, f"{names[family]}VideoProcessor")
    settings = config(folder, "video_preprocessor_config.json")
    for case in range(CASES // 2):
        frames, fps = drawn.randint(26, 60), drawn.choice([5, 10, 25])
        file = tmp_path / f"{case}.mp4"
        write_clip(file, 2 * drawn.randint(20, 80), 2 * drawn.randint(20, 80), frames, fps, case)
        asked = drawn.choice(
            [{"fps": 2.0}, {"nframes": 2 * drawn.randint(1, 4)} if family != "glm4v" else {"fps": 3.0}]
        )
        medium = probe_medium(MediumRef("video", str(file), **asked), processor)

        names = {"nframes": "num_frames"}
        me = SimpleNamespace(**{**dict.fromkeys(("num_frames", "fps", "min_frames", "max_frames")), **settings})
        me = SimpleNamespace(**{**vars(me), "initial_shift": True, "max_duration": 300})
        options = {names.get(key, key): value for key, value in asked.items()}
        if "num_frames" in options:
            me.fps = None
        metadata = VideoMetadata(total_num_frames=frames, fps=fps, duration=frames / fps)
        numbers = [int(i) for i in kind.sample_frames(me, metadata, **options)]
        assert list(medium.frame_indices) == numbers, (asked, frames, fps)

        pixels = torch.from_numpy(frames_of(file, numbers)).permute(0, 3, 1, 2)
        small = resized(module, family, pixels, settings).float()
        mean, std = (torch.tensor(settings[key])[:, None, None] for key in ("image_mean", "image_std"))
        expected = (small - mean * 255) / (std * 255)
        ours = whole(medium, processor)
        if family != "internvl":
            rows = kind.patchify(None, expected[None], patch_size=14, merge_size=2, temporal_patch_size=2)
            assert [*rows[1:]] == list(medium.grid)
            expected = rows[0][0]
            metadata.frames_indices = numbers
            if family == "glm4v":
                assert list(medium.timestamps) == metadata.timestamps[::2]
            else:
                assert medium.unit_seconds == 2 / metadata.sampled_fps
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_ids_are_those_of_hugging_face(folder: Path) -> None:
    """What the processors write for media of random sizes, in a conversation with both kinds."""
    encoder = Encoder(folder)
    family, rules = encoder.processor.family, encoder.processor.rules
    tiles = family == "internvl"
    grids = [(5, 4, 4), (1, 4, 4), (3, 4, 4)] if tiles else [(1, 8, 6), (3, 4, 8), (1, 2, 2)]
    kinds = ["image", "video", "video"] if tiles else ["image", "video", "image"]
    rows = [rules.tokens_per_tile if tiles else h * w // 4 for _, h, w in grids]
    frames = [0, 15, 30, 46, 60, 75]  # of the clip, 12 a second
    media = tuple(
        Medium(kind, "-", grid, 1, 1, unit_rows=n, timestamps=tuple(frame / 12 for frame in frames[::2]))
        for kind, grid, n in zip(kinds, grids, rows, strict=True)
    )
    turns = (Message("user", (0, "What is it? ", 1, "And this?")), Message("assistant", ("A cat.",)),
             Message("user", (2, "And now?")), Message("assistant", ("Gone.",)))  # fmt: skip
    encoded = encoder.encode(SimpleNamespace(messages=turns, media=media, tools=()))

    text = encoder._render(SimpleNamespace(messages=turns, media=media, tools=()))
    of_kind = {kind: [i for i, k in enumerate(kinds) if k == kind] for kind in ("image", "video")}
    if tiles:
        made: Any = object.__new__(InternVLProcessor)
        made.start_image_token, made.end_image_token, made.image_token = "<img>", "</img>", "<IMG_CONTEXT>"
        made.video_token, made.image_seq_length = "<video>", rules.tokens_per_tile
        images = {"num_patches": [grids[i][0] for i in of_kind["image"]]}
        videos = {"pixel_values_videos": [torch.empty(grids[i][0], 3, 8, 8, device="meta") for i in of_kind["video"]]}
        marks = {"image": "<IMG_CONTEXT>", "video": "<video>"}
    elif family == "glm4v":
        made = object.__new__(Glm4vProcessor)
        made.image_processor = made.video_processor = SimpleNamespace(merge_size=2)
        made.image_token, made.video_token = "<|image|>", "<|video|>"
        images = {"image_grid_thw": torch.tensor([grids[i] for i in of_kind["image"]])}
        metadata = VideoMetadata(total_num_frames=100, fps=12, frames_indices=frames)
        videos = {"video_grid_thw": torch.tensor([grids[i] for i in of_kind["video"]]), "video_metadata": [metadata]}
        marks = {"image": "<|image|>", "video": "<|video|>"}
    else:
        made = object.__new__(Qwen2_5_VLProcessor)
        made.image_processor = made.video_processor = SimpleNamespace(merge_size=2)
        made.image_token, made.video_token = "<|image_pad|>", "<|video_pad|>"
        images = {"image_grid_thw": torch.tensor([grids[i] for i in of_kind["image"]])}
        videos = {"video_grid_thw": torch.tensor([grids[i] for i in of_kind["video"]])}
        marks = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    grown = {
        "image": [made.replace_image_token(images, i) for i in range(len(of_kind["image"]))],
        "video": [made.replace_video_token(videos, i) for i in range(len(of_kind["video"]))],
    }
    used = dict.fromkeys(grown, 0)
    pieces, at = [], 0
    for found in re.finditer("|".join(map(re.escape, marks.values())), text):  # in turn, as the processors do
        kind = next(kind for kind, mark in marks.items() if mark == found.group())
        pieces += [text[at : found.start()], grown[kind][used[kind]]]
        used[kind] += 1
        at = found.end()
    expected = encoder.tokenizer("".join([*pieces, text[at:]]), add_special_tokens=False)["input_ids"]
    assert encoded.input_ids.tolist() == expected
    counts = {kind: sum(grids[i][0] * rows[i] for i in of_kind[kind]) for kind in of_kind}
    assert (encoded.media_type == IMAGE).sum() == counts["image"]
    assert (encoded.media_type == VIDEO).sum() == counts["video"]
    assert encoder.tokenizer.decode(encoded.labels[encoded.labels >= 0]) == "A cat.<|im_end|>Gone.<|im_end|>"


@pytest.mark.parametrize("family", ["llava", "idefics3", "mistral3"])
def test_borrowed_processors_give_ids_and_pixels_of_whole_calls(
    family: str, tmp_path: Path, drawn: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conversations with two pictures of random sizes, against one call of the processor with both."""

    folder, whole_processor = write_checkpoint(tmp_path / "model", family)
    if family == "mistral3" and not is_torchvision_available():  # transformers finds its processor only beside that
        monkeypatch.setattr("dhp.data.decoding.borrowed._processor", lambda _: whole_processor)
    encoder = Encoder(folder)
    for case in range(CASES):
        files = [tmp_path / f"{case}-{i}.png" for i in range(2)]
        for i, file in enumerate(files):
            Image.fromarray(picture(drawn.randint(9, 200), drawn.randint(9, 200), 2 * case + i)).save(file)
        media = tuple(probe_medium(MediumRef("image", str(file)), encoder.processor) for file in files)
        turns = (Message("user", ("Which? ", 0, 1)), Message("assistant", ("Four.",)),
                 Message("user", ("Why?",)), Message("assistant", ("Two and two.",)))  # fmt: skip
        encoded = encoder.encode(SimpleNamespace(messages=turns, media=media, tools=()))
        text = encoder._render(SimpleNamespace(messages=turns, media=media, tools=()))
        pictures = [Image.open(file).convert("RGB") for file in files]
        given = whole_processor(images=pictures, text=text, add_special_tokens=False, return_tensors="pt")
        assert encoded.input_ids.tolist() == given["input_ids"][0].tolist(), [p.size for p in pictures]
        assert (encoded.media_type == IMAGE).sum() == sum(m.units * m.unit_rows for m in media)
        learned = encoder.tokenizer.decode(encoded.labels[encoded.labels >= 0])
        end = encoder.tokenizer.eos_token
        assert learned.replace(" ", "") == f"Four.{end}Twoandtwo.{end}"
        ours = [whole(medium, encoder.processor) for medium in media]
        if family == "mistral3":
            from dhp.models.families import Mistral3

            vision = SimpleNamespace(patch_size=4)
            holder = SimpleNamespace(config=SimpleNamespace(vision_config=vision), base_model=None)
            padded, sizes = Mistral3(holder)._pictures([m.grid for m in media], torch.cat(ours))
            assert torch.equal(sizes, torch.as_tensor(given["image_sizes"]))
            assert torch.equal(padded, given["pixel_values"])
        elif family == "idefics3":
            units = [m.units for m in media]
            expected = given["pixel_values"][0]
            assert torch.equal(torch.cat(ours), expected[: sum(units)])
        else:
            assert torch.equal(torch.cat(ours), given["pixel_values"])
        for medium, pixels in zip(media, ours, strict=True):
            middle = medium.units // 2
            per_unit = len(pixels) // medium.units
            assert torch.equal(read_units(medium, middle, medium.units, encoder.processor), pixels[middle * per_unit :])


def test_llava_onevision_gives_ids_and_pixels_of_its_processor(tmp_path: Path, drawn: random.Random) -> None:
    """One picture has tiles, several have none; clips end with one token more; of random sizes."""
    folder, reference = write_checkpoint(tmp_path / "model", "llava_onevision")
    encoder = Encoder(folder)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    for case in range(CASES):
        files = [tmp_path / f"{case}-{i}.png" for i in range(case % 4)]
        for i, file in enumerate(files):
            Image.fromarray(picture(drawn.randint(9, 90), drawn.randint(9, 90), 5 * case + i)).save(file)
        clip, frames = tmp_path / f"{case}.mp4", drawn.randint(5, 30)
        write_clip(clip, 2 * drawn.randint(8, 40), 2 * drawn.randint(8, 40), frames, 10, case)
        asked = drawn.choice([{}, {"fps": 2.0}, {"nframes": drawn.randint(1, 4)}])
        refs = [MediumRef("image", str(file), alone=len(files) < 2) for file in files]
        refs.append(MediumRef("video", str(clip), **asked))
        media = tuple(probe_medium(ref, encoder.processor) for ref in refs)
        turns = (Message("user", ("Which? ", *range(len(media)))), Message("assistant", ("Four.",)))
        sample: Any = SimpleNamespace(messages=turns, media=media, tools=())
        encoded = encoder.encode(sample)

        options = {"num_frames": asked.get("nframes", None if "fps" in asked else 4), "fps": asked.get("fps")}
        metadata = VideoMetadata(total_num_frames=frames, fps=10.0)
        numbers = [int(i) for i in default_sample_indices_fn(metadata, **options)]
        assert list(media[-1].frame_indices) == numbers, (frames, asked)
        pictures = [Image.open(file).convert("RGB") for file in files]
        given = reference.image_processor(images=[pictures], return_tensors="pt") if pictures else {}
        grown, _ = reference.get_text_with_replacements(
            [encoder._render(sample)],
            [reference.replace_image_token(given, i) for i in range(len(pictures))],
            [reference.replace_video_token({"pixel_values_videos": [torch.empty(len(numbers), 3, 16, 16)]}, 0)],
        )
        expected = encoder.tokenizer(grown, add_special_tokens=False)["input_ids"][0]
        assert encoded.input_ids.tolist() == expected, [one.size for one in pictures]
        assert (encoded.media_type > 0).sum() == sum(medium.unit_sizes.all_rows for medium in media)
        for i, medium in enumerate(media[:-1]):
            tiles = read_units(medium, 0, 1, encoder.processor)
            assert len(tiles) == (1 if len(pictures) > 1 else len(given["pixel_values"][i]))
            assert torch.equal(tiles, given["pixel_values"][i].float())
            assert len(read_units(medium, 1, 1, encoder.processor)) == 0
            assert PixelReader(encoder.processor).blank(medium, 0, 1).shape == tiles.shape
        pixels = torch.from_numpy(frames_of(clip, numbers)).permute(0, 3, 1, 2)
        small = torch.nn.functional.interpolate(pixels, size=(16, 16), mode="bicubic", antialias=True).float()
        torch.testing.assert_close(whole(media[-1], encoder.processor), (small - mean * 255) / (std * 255))
        assert media[-1].last_rows == media[-1].unit_rows + 1


def smolvlm_reference(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """SmolVLMProcessor without its constructor, which insists on torchvision, and without the package num2words."""
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", lambda number: f"some {number}")
    made: Any = object.__new__(processing_smolvlm.SmolVLMProcessor)
    made.tokenizer, made.image_seq_len, made.fake_image_token = tokenizer, 4, "<fake_token_around_image>"
    made.image_token, made.global_image_token, made.video_token = "<image>", "<global-img>", "<video>"
    made.image_processor = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 16})
    return made


def test_clips_of_smolvlm_are_those_of_its_processor(
    tmp_path: Path, drawn: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    write_smolvlm(folder)
    made = smolvlm_reference(None, monkeypatch)
    monkeypatch.setattr("dhp.data.decoding.borrowed._processor", lambda _: made)
    encoder = Encoder(folder)
    module = video_module("smolvlm")
    me = SimpleNamespace(num_frames=6, fps=1)
    for case in range(CASES // 2):
        file, frames, fps = tmp_path / f"{case}.mp4", drawn.randint(5, 120), drawn.choice([5, 10])
        write_clip(file, 2 * drawn.randint(8, 40), 2 * drawn.randint(8, 40), frames, fps, case)
        asked = drawn.choice([{}, {"fps": 2.0}, {"nframes": drawn.randint(1, 4)}])
        medium = probe_medium(MediumRef("video", str(file), **asked), encoder.processor)
        metadata = VideoMetadata(total_num_frames=frames, fps=fps, duration=frames / fps)
        options = {"num_frames" if key == "nframes" else key: value for key, value in asked.items()}
        numbers = [int(i) for i in module.SmolVLMVideoProcessor.sample_frames(me, metadata, **options)]
        assert list(medium.frame_indices) == numbers, (frames, fps, asked)

        turns = (Message("user", ("What moves? ", 0)), Message("assistant", ("Four.",)))
        sample: Any = SimpleNamespace(messages=turns, media=(medium,), tools=())
        metadata.frames_indices = numbers
        inputs = {"pixel_values": torch.empty(1, len(numbers), 3, 16, 16), "video_metadata": [metadata]}
        text = encoder._render(sample).replace("<video>", made.replace_video_token(inputs, 0))
        encoded = encoder.encode(sample)
        assert encoded.input_ids.tolist() == encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert (encoded.media_type == VIDEO).sum() == 4 * len(numbers)

        pixels = torch.from_numpy(frames_of(file, numbers)).permute(0, 3, 1, 2)
        for size in (module.get_resize_output_image_size(pixels, 32), (16, 16)):
            pixels = torch.nn.functional.interpolate(pixels, size=size, mode=_known_mode("lanczos"), antialias=True)
        torch.testing.assert_close(whole(medium, encoder.processor), (pixels.float() - 127.5) / 127.5)


def test_a_template_in_the_shape_of_glm(tmp_path: Path) -> None:
    """Turns begin with a mark and end where the next begins."""
    folder = make_tiny_checkpoint(tmp_path / "model", family="glm4v", **SIZES)
    (folder / "chat_template.jinja").write_text(
        "[gMASK]<sop>{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' }}{% if m['content'] is string %}"
        "{{ m['content'] }}{% else %}{% for p in m['content'] %}{% if p['type'] == 'image' %}"
        "<|begin_of_image|><|image|><|end_of_image|>{% elif p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
        "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    )
    Image.fromarray(picture(60, 90, 1)).save(tmp_path / "a.png")
    encoder = Encoder(folder)
    media = (probe_medium(MediumRef("image", str(tmp_path / "a.png")), encoder.processor),)
    turns = (Message("user", ("What is it? ", 0)), Message("assistant", ("A cat.",)),
             Message("user", ("And now?",)), Message("assistant", ("Gone.",)))  # fmt: skip
    encoded = encoder.encode(SimpleNamespace(messages=turns, media=media, tools=()))
    assert encoder.tokenizer.decode(encoded.labels[encoded.labels >= 0]) == "A cat.Gone."
    assert (encoded.media_type == IMAGE).sum() == media[0].unit_rows
