"""Sounds: tokens from headers, features and ids as transformers' own processor of Qwen2.5-Omni has them."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from dhp._core import InputError
from dhp.data.decoding.media import PixelReader, read_units
from dhp.data.decoding.sound_units import sound_units
from dhp.data.errors import DataError, MediumError
from dhp.data.formats.samples import MediumRef, Message, parse_sample
from dhp.data.grid import probe_medium
from dhp.data.indexing.index import build_index
from dhp.data.processor import Processor, load_processor
from dhp.data.text import AUDIO, Encoder
from dhp.demo.checkpoint import make_tiny_checkpoint
from family_models import MODELS, OMNI
from mixed_media import write_mixed_data, write_sound

SIZES = {"layers": 1, "hidden": 32, "vision_layers": 1, "vision_hidden": 16, "vision_intermediate": 32}
CHUNK = 40  # mel frames, of the tiny checkpoint
CASES = 16
needs_omni = pytest.mark.skipif(OMNI not in MODELS, reason="transformers before 5.23")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("omni") / "model", family=OMNI, **SIZES)


@pytest.fixture
def drawn() -> random.Random:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    return random.Random(seed)


def random_sound(folder: Path, case: int, drawn: random.Random) -> Path:
    kind = drawn.choice(["wav", "flac", "mp3", "ogg"])
    rate = drawn.choice([16000, 16000, 8000, 22050, 44100, 48000])
    file = folder / f"{case}.{kind}"
    write_sound(file, drawn.randint(rate // 20, 3 * rate), rate, drawn.randint(1, 2), case)
    return file


def extractor(folder: Path) -> Any:
    given = json.loads((folder / "preprocessor_config.json").read_text())
    names = ("feature_size", "sampling_rate", "hop_length", "chunk_length", "n_fft")
    return tf.WhisperFeatureExtractor(**{name: given[name] for name in names})


@needs_omni
def test_features_are_those_of_hugging_face(folder: Path, tmp_path: Path, drawn: random.Random) -> None:
    from transformers.audio_utils import load_audio
    from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import _get_feat_extract_output_lengths

    processor = load_processor(folder)
    reference = extractor(folder)
    for case in range(CASES):
        file = random_sound(tmp_path, case, drawn)
        medium = probe_medium(MediumRef("audio", str(file)), processor)
        wave = load_audio(str(file), sampling_rate=16000, backend="soundfile")
        given = reference(
            [wave], sampling_rate=16000, return_attention_mask=True, padding="max_length", return_tensors="pt"
        )
        frames = int(given["attention_mask"].sum())
        assert medium.mel_frames == frames, file
        assert medium.unit_sizes.all_rows == _get_feat_extract_output_lengths(frames)
        used = min(frames, medium.units * CHUNK)
        expected = given["input_features"][0, :, :used].T
        whole = read_units(medium, 0, medium.units, processor)
        torch.testing.assert_close(whole, expected.flatten(), rtol=1e-5, atol=1e-5)
        middle = medium.units // 2
        parts = [read_units(medium, *ends, processor) for ends in ((0, middle), (middle, medium.units))]
        assert torch.equal(torch.cat(parts), whole)
        reader = PixelReader(processor)
        assert reader.blank(medium, middle, medium.units).shape == parts[1].shape
        assert len(read_units(medium, 0, 0, processor)) == 0


def test_units_are_chunks_of_the_encoder() -> None:
    """Against its formulas, chunk by chunk: a convolution of stride two, then one token of two."""
    for frames in range(1, 200):
        units = sound_units(frames, CHUNK)
        chunks = [min(CHUNK, frames - at) for at in range(0, frames, CHUNK)]
        after = [(n - 1) // 2 + 1 for n in chunks]
        kept = [(n, (n - 2) // 2 + 1) for n in after if n >= 2]
        assert [units.of(i)[::-1] for i in range(units.units)] == kept, frames
        assert units.units * units.all_rows == 0 or units.all_rows == ((frames - 1) // 2 + 1 - 2) // 2 + 1


@needs_omni
def test_ids_are_those_of_hugging_face(folder: Path, tmp_path: Path, drawn: random.Random) -> None:
    from transformers.models.qwen2_5_omni.processing_qwen2_5_omni import Qwen2_5OmniProcessor

    write_mixed_data(tmp_path, media="image video audio")
    encoder = Encoder(folder)
    refs = [
        MediumRef("audio", str(tmp_path / "long.flac")),
        MediumRef("image", str(tmp_path / "picture1.png")),
        MediumRef("video", str(tmp_path / "clip1.mp4")),
        MediumRef("audio", str(tmp_path / "short.wav")),
    ]
    drawn.shuffle(refs)
    media = tuple(probe_medium(ref, encoder.processor) for ref in refs)
    turns = (Message("user", (0, "What is it? ", 1, 2, "And this?", 3)), Message("assistant", ("A tone.",)))
    sample: Any = SimpleNamespace(messages=turns, media=media, tools=())
    encoded = encoder.encode(sample)

    made: Any = object.__new__(Qwen2_5OmniProcessor)
    made.image_processor = made.video_processor = SimpleNamespace(merge_size=2)
    made.image_token, made.video_token, made.audio_token = "<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>"
    grown = []
    for medium in media:
        if medium.kind == "audio":
            tokens = ((medium.mel_frames - 1) // 2 + 1 - 2) // 2 + 1
            grown.append(made.replace_audio_token({"num_audio_tokens": [tokens]}, 0))
        else:
            key = f"{medium.kind}_grid_thw"
            write = getattr(made, f"replace_{medium.kind}_token")
            grown.append(write({key: torch.tensor([medium.grid])}, 0, load_audio_from_video=False))
    coming = iter(grown)
    text = re.sub(r"<\|(IMAGE|VIDEO|AUDIO)\|>", lambda _: next(coming), encoder._render(sample))
    assert encoded.input_ids.tolist() == encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    heard = sum(medium.unit_sizes.all_rows for medium in media if medium.kind == "audio")
    assert (encoded.media_type == AUDIO).sum() == heard > 50


@needs_omni
def test_seconds_and_sizes_of_clips_are_the_processor_s(folder: Path, tmp_path: Path) -> None:
    """It hands its own limits to the video processor, and counts two frames a second where none are asked for."""
    write_mixed_data(tmp_path)
    processor = load_processor(folder)
    clip = probe_medium(MediumRef("video", str(tmp_path / "clip1.mp4")), processor)
    limits = tf.Qwen2_5OmniProcessor.videos_kwargs["size"]
    assert limits["shortest_edge"] <= clip.unit_patches * 14 * 14 < 1.3 * limits["shortest_edge"]  # the file says less
    assert clip.unit_seconds == 1.0
    assert probe_medium(MediumRef("video", str(tmp_path / "clip1.mp4"), fps=4.0), processor).unit_seconds == 0.5


def test_a_folder_of_the_whole_model_has_the_rules_of_its_thinker(folder: Path, tmp_path: Path) -> None:
    """And of transformers 5, which writes all parts of a processor into one file."""
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": config}))
    given = json.loads((whole / "preprocessor_config.json").read_text())
    heard = {key: given.pop(key) for key in ("feature_size", "chunk_length", "sampling_rate", "hop_length", "n_fft")}
    (whole / "preprocessor_config.json").unlink()
    parts = {"image_processor": given, "feature_extractor": heard}
    (whole / "processor_config.json").write_text(json.dumps(parts))
    ours, theirs = Encoder(whole).processor, Encoder(folder).processor
    assert (ours.sound, ours.rules, ours.image) == (theirs.sound, theirs.rules, theirs.image)
    assert ours.sound and (ours.sound.chunk, ours.sound.bins, ours.sound.longest_s) == (CHUNK, 16, 30)
    for key, value, message in (
        ("feature_size", 80, "feature_size is 80, but num_mel_bins in config.json is 16"),
        ("hop_length", 0, "hop of sounds: found 0; must be a whole number above 0"),
        ("dither", 0.1, r"dither 0\.1 is not supported"),
    ):
        (whole / "processor_config.json").write_text(json.dumps(parts | {"feature_extractor": heard | {key: value}}))
        with pytest.raises(DataError, match=message):
            load_processor(whole)


def line(**row: Any) -> str:
    content = row.pop("content", "<audio>What?")
    return json.dumps(
        {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A"}], **row}
    )


def test_lines_name_sounds_as_ms_swift_does() -> None:
    for row in (
        {"audios": ["/a.wav"]},
        {"audio": "/a.wav"},
        {"audios": [{"audio": "/a.wav"}]},
        {"audios": ["/a.wav"], "content": [{"type": "audio"}, "What?"]},
        {"content": [{"type": "audio", "audio": "/a.wav"}, {"type": "text", "text": "What?"}]},
        {"content": [{"type": "audio_url", "audio_url": {"url": "file:///a.wav"}}]},
    ):
        sample = parse_sample(line(**row), "d.jsonl", 1, hears=True)
        assert sample.media == (MediumRef("audio", "/a.wav"),), row
    mixed = line(content="<image>a<audio>b<image>", audios=["/a.wav"], images=["/1.png", "/2.png"])
    kinds = [medium.kind for medium in parse_sample(mixed, "d.jsonl", 1, hears=True).media]
    assert kinds == ["image", "audio", "image"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"audios": ["/a.wav", "/b.wav"]}, r"audios: 2 listed, but the text has 1 <audio> tag"),
        ({}, r"audios: 0 listed, but messages\[0\]\.content has one more <audio> tag"),
        ({"audios": [{"audio": "/a.wav", "fps": 2}]}, r"audios\[0\]\.fps: found 2; unknown; audio keys are none"),
    ],
)
def test_what_is_odd_about_a_line_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_sample(line(**row), "d.jsonl", 1, hears=True)


def test_a_family_that_does_not_hear_refuses_them(tmp_path: Path) -> None:
    model = make_tiny_checkpoint(tmp_path / "model", family="qwen2_5_vl", **SIZES)
    write_sound(tmp_path / "a.wav", 3000, 16000)
    (tmp_path / "d.jsonl").write_text(line(audios=["a.wav"]) + "\n")
    with pytest.raises(InputError, match=r"audios.*only models that hear take sounds"):
        build_index(tmp_path / "d.jsonl", model, tmp_path / "d.index")
    with pytest.raises(DataError, match="a model of kind qwen2_5_vl hears nothing; remove the audio"):
        probe_medium(MediumRef("audio", str(tmp_path / "a.wav")), load_processor(model))


def broken(processor: Processor, file: Path, message: str) -> None:
    with pytest.raises(MediumError, match=message):
        probe_medium(MediumRef("audio", str(file)), processor)


def test_files_that_cannot_be_heard_are_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = load_processor(folder)
    broken(processor, tmp_path / "none.wav", "no such file")
    (tmp_path / "text.wav").write_text("RIFF and no more")
    broken(processor, tmp_path / "text.wav", "cannot be read as a sound")
    write_sound(tmp_path / "short.wav", 300, 16000)
    broken(processor, tmp_path / "short.wav", "has 300 samples, too few for a token")
    write_sound(tmp_path / "long.wav", 31 * 8000, 8000)
    broken(processor, tmp_path / "long.wav", r"lasts 31\.0 s, and the checkpoint's processor hears 30 s; cut it")
    monkeypatch.setattr("dhp.data.decoding.sounds.MOST_VALUES", 40_000)
    write_sound(tmp_path / "wide.wav", 11_000, 16000, channels=4)
    broken(processor, tmp_path / "wide.wav", "holds 44,000 values, more than the limit of 40,000")
    write_sound(tmp_path / "whole.mp3", 32000, 16000)
    content = (tmp_path / "whole.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(content[: len(content) // 2])
    medium = probe_medium(MediumRef("audio", str(tmp_path / "cut.mp3")), processor)
    with pytest.raises(MediumError, match=r"cut\.mp3: holds [\d,]+ samples, other than it says"):
        read_units(medium, 0, 1, processor)
    write_sound(tmp_path / "a.wav", 16000, 16000)
    medium = probe_medium(MediumRef("audio", str(tmp_path / "a.wav")), processor)
    write_sound(tmp_path / "a.wav", 18000, 16000)
    with pytest.raises(MediumError, match="has 113 mel frames, but had 100 when it was indexed"):
        read_units(medium, 0, 1, processor)


def test_the_index_knows_sounds_without_reading_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mixed_data(tmp_path, media="image video audio")

    def read(*_: Any) -> None:
        raise AssertionError("a sound was read")

    monkeypatch.setattr("dhp.data.decoding.sounds._wave", read)
    index = build_index(tmp_path / "train.jsonl", folder, tmp_path / "train.index", workers=1)
    first = index.samples[0]
    [sound] = first.media
    samples = int(np.ceil(50_000 * 16000 / 22050))
    assert (sound.kind, sound.mel_frames) == ("audio", -(-samples // 160))
    assert first.patches == sound.patches == sum(sound.unit_sizes.of(i)[1] for i in range(sound.units))
    assert first.frame_patches == CHUNK // 2
    assert {medium.kind for medium in index.samples[1].media} == {"audio", "image"}
