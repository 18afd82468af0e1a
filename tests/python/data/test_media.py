"""Pixels of pictures against Hugging Face's processors; pictures and clips that cannot be read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dhp._core import InputError
from dhp.data.decoding.clips import probe_clip
from dhp.data.decoding.media import Medium, PixelReader, probe_image, read_image
from dhp.data.errors import DataError, MediumError
from dhp.data.formats.samples import MediumRef
from dhp.data.grid import probe_medium
from dhp.data.processor import Processor
from made_media import config, noise, write_clip


def image_reference(checkpoint: Path, picture: Any, **size: int) -> tuple[torch.Tensor, list[int]]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    values = {k: v for k, v in config(checkpoint, "preprocessor_config").items() if not k.endswith(("_type", "_class"))}
    values["size"] = {**values["size"], **size}
    out = Qwen2VLImageProcessorPil(**values)(images=[picture], return_tensors="pt")
    return out["pixel_values"], out["image_grid_thw"][0].tolist()


# ---- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (97, 61), (640, 427), (1000, 31), (33, 900), (1, 1), (7, 150), (511, 513), (2000, 1500)],
)
def test_picture_equals_hugging_face(
    checkpoint: Path, processor: Processor, tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(width, height)).save(path)
    medium = probe_medium(MediumRef("image", str(path)), processor)
    expected, grid = image_reference(checkpoint, Image.open(path))
    ours = PixelReader(processor).read_units(medium, 0, 1)
    assert list(medium.grid) == grid
    assert ours.dtype == torch.float32
    assert torch.equal(ours, expected)


def test_max_pixels_of_a_picture(checkpoint: Path, processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(400, 300)).save(path)
    medium = probe_medium(MediumRef("image", str(path), max_pixels=20_000), processor)
    expected, grid = image_reference(checkpoint, Image.open(path), longest_edge=20_000)
    assert list(medium.grid) == grid
    assert medium.patches * 256 <= 20_000
    assert torch.equal(PixelReader(checkpoint).read_units(medium, 0, 1), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "PA", "RGBA", "1", "CMYK", "YCbCr", "F"])
def test_modes_as_hugging_face_loads_them(tmp_path: Path, mode: str) -> None:
    from transformers.image_utils import load_image

    picture = Image.fromarray(noise(40, 30, seed=3, channels=4), "RGBA").convert("RGB").convert(mode)
    path = tmp_path / ("p.tif" if mode in ("CMYK", "YCbCr", "F") else "p.png")
    if mode == "PA":
        picture = Image.fromarray(noise(40, 30, seed=3)).convert("P")
        picture.info["transparency"] = 3
        path = tmp_path / "p.gif"
    picture.save(path)
    expected = np.asarray(load_image(str(path)))
    assert np.array_equal(read_image(str(path)), expected)
    assert probe_image(str(path)) == (30, 40)


def test_sixteen_bits_keep_the_high_byte(tmp_path: Path) -> None:
    levels = np.random.default_rng(5).integers(0, 65536, (30, 40), dtype=np.uint16)
    path = tmp_path / "p.png"
    Image.fromarray(levels).save(path)
    assert np.array_equal(read_image(str(path)), np.repeat((levels // 256).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_as_hugging_face(tmp_path: Path, orientation: int) -> None:
    from transformers.image_utils import load_image

    path = tmp_path / "p.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(48, 32)).save(path, exif=exif)
    expected = np.asarray(load_image(str(path)))
    assert np.array_equal(read_image(str(path)), expected)
    assert probe_image(str(path)) == expected.shape[:2]
    assert expected.shape[:2] == ((32, 48) if orientation < 5 else (48, 32))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_as_hugging_face(
    checkpoint: Path, processor: Processor, tmp_path: Path, orientation: int, compression: str
) -> None:
    """Pillow turns TIFF itself, when it reads it, and states the upright size before."""
    from transformers.image_utils import load_image

    path = tmp_path / "p.tif"
    Image.fromarray(noise(96, 64)).save(path, tiffinfo={274: orientation}, compression=compression)
    picture = load_image(str(path))
    assert picture.size == ((96, 64) if orientation < 5 else (64, 96))
    assert probe_image(str(path)) == (picture.height, picture.width)
    medium = probe_medium(MediumRef("image", str(path)), processor)
    expected, grid = image_reference(checkpoint, picture)
    assert list(medium.grid) == grid
    assert torch.equal(PixelReader(processor).read_units(medium, 0, 1), expected)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(
    "kind", ["RGBA", "LA", "RGB with one colour", "L with one level", "palette", "palette of alphas"]
)
def test_what_is_transparent_lies_on_white_as_in_hugging_faces_processor(
    checkpoint: Path, processor: Processor, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "p.png"
    levels = noise(96, 64, seed=4, channels=4)
    levels[:32, :, 3] = 0
    if kind in ("RGBA", "LA"):
        Image.fromarray(levels, "RGBA").convert(kind).save(path)
    elif kind.startswith("RGB"):
        levels[:40, :, :3] = (10, 200, 30)
        Image.fromarray(levels[:, :, :3]).save(path, transparency=(10, 200, 30))
    elif kind.startswith("L"):
        levels[:40, :, 0] = 77
        Image.fromarray(levels[:, :, 0]).save(path, transparency=77)
    else:
        alphas = bytes(range(256)) if kind.endswith("alphas") else 3
        Image.fromarray(levels[:, :, :3]).quantize(256).save(path, transparency=alphas)
    with Image.open(path) as picture:
        expected, _ = image_reference(checkpoint, picture)
        hidden = np.asarray(picture.convert("RGB"))
    ours = read_image(str(path))
    medium = probe_medium(MediumRef("image", str(path)), processor)
    assert torch.equal(PixelReader(processor).read_units(medium, 0, 1), expected)
    assert not np.array_equal(ours, hidden)  # the colours beneath are not shown
    if kind != "palette":
        assert (ours[0] == 255).all() == (kind in ("RGBA", "LA", "RGB with one colour", "L with one level"))


def test_extreme_shapes(processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(2000, 10)).save(path)
    assert probe_medium(MediumRef("image", str(path)), processor).patches > 0  # 200:1, the limit
    Image.fromarray(noise(2010, 10)).save(path)
    with pytest.raises(InputError, match="200"):
        probe_medium(MediumRef("image", str(path)), processor)


# ---- what cannot be read --------------------------------------------------------------------------------------------


def broken(kind: str, path: Path, clip: Path) -> None:
    if kind == "empty":
        path.touch()
    elif kind == "words":
        path.write_text("hello, hello, hello\n" * 50)
    elif kind == "cut":
        path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    elif kind == "checkpoint":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "said"),
    [("missing", "no such file"), ("empty", "is empty"), ("words", ""), ("cut", ""), ("checkpoint", "")],
)
@pytest.mark.parametrize("what", ["image", "video"])
def test_unreadable(processor: Processor, clip: Path, tmp_path: Path, kind: str, said: str, what: Any) -> None:
    path = tmp_path / ("p.png" if what == "image" else "c.mp4")
    broken(kind, path, clip)
    with pytest.raises(MediumError) as caught:
        probe_medium(MediumRef(what, str(path)), processor)
    assert caught.value.path == str(path)
    assert said in caught.value.problem
    assert len(caught.value.problem) > 5


def test_clip_cut_off_behind_its_header(processor: Processor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", 100, muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(MediumError, match=r"c\.mp4: is damaged or cut off after \d+ frames"):
        probe_medium(MediumRef("video", str(path)), processor)


def test_picture_cut_off_is_found_on_reading(processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    Image.fromarray(noise(300, 200)).save(path)
    path.write_bytes(path.read_bytes()[:8000])
    medium = probe_medium(MediumRef("image", str(path)), processor)  # the header is whole
    with pytest.raises(MediumError, match=r"p\.jpg: cannot be decoded: .*truncated"):
        PixelReader(processor).read_units(medium, 0, 1)


def test_clip_damaged_inside_is_found_on_reading(processor: Processor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", 100, size=(320, 192), muxer={"movflags": "faststart"})
    medium = probe_medium(MediumRef("video", str(path), fps=12.0), processor)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = np.random.default_rng(1).bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    reader = PixelReader(processor)
    with pytest.raises(MediumError, match=r"c\.mp4: "):
        reader.read_units(medium, 0, medium.units)


def test_one_frame_is_no_clip(processor: Processor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", 1)
    assert probe_clip(str(path)).frames == 1
    with pytest.raises(MediumError, match=r"c\.mp4: video: frames: found 1 of 1, expected at least 2"):
        probe_medium(MediumRef("video", str(path)), processor)


def test_sound_alone_is_no_clip(processor: Processor, tmp_path: Path) -> None:
    import wave

    path = tmp_path / "s.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(b"\0\0" * 8000)
    with pytest.raises(MediumError, match=r"s\.wav: has no video stream"):
        probe_medium(MediumRef("video", str(path)), processor)


def test_file_replaced_after_indexing(processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(96, 64)).save(path)
    medium = probe_medium(MediumRef("image", str(path)), processor)
    Image.fromarray(noise(64, 64)).save(path)
    with pytest.raises(MediumError, match=r"p\.png: is 64x64, but was 96x64 when it was indexed"):
        PixelReader(processor).read_units(medium, 0, 1)
    path.unlink()
    with pytest.raises(MediumError, match="no such file"):
        PixelReader(processor).read_units(medium, 0, 1)
    clip = write_clip(tmp_path / "c.mp4", 60)
    video = probe_medium(MediumRef("video", str(clip)), processor)
    write_clip(clip, 20)
    with pytest.raises(MediumError, match=r"c\.mp4: frame \d+ cannot be decoded"):
        PixelReader(processor).read_units(video, 0, video.units)


def test_picture_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MediumError, match="exceeds limit"):
            probe_image(str(path))


def test_ranges_outside_the_medium(processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(96, 64)).save(path)
    medium = probe_medium(MediumRef("image", str(path)), processor)
    reader = PixelReader(processor)
    assert reader.read_units(medium, 1, 1).shape == (0, *reader.shape)
    for start, stop in [(0, 2), (-1, 1), (1, 0)]:
        with pytest.raises(ValueError, match="units"):
            reader.read_units(medium, start, stop)


def test_videos_need_a_video_processor(processor: Processor, clip: Path) -> None:
    from dataclasses import replace

    without = replace(processor, video=None)
    with pytest.raises(DataError, match=r"no video_preprocessor_config\.json"):
        probe_medium(MediumRef("video", str(clip)), without)
    medium = Medium("video", str(clip), (1, 2, 2), 96, 160, 25.0, (0, 1), timestamps=(0.0,), unit_rows=1)
    with pytest.raises(MediumError, match="no video processor"):
        PixelReader(without).read_units(medium, 0, 1)
