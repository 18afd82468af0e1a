"""Pixels of pictures and clips: against Hugging Face's processors, and partial against whole reads."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import huggingface_reference as hf
from dhp._core import InputError
from dhp.data import clips
from dhp.data.clips import probe_clip, read_frames
from dhp.data.errors import DataError, MediumError, RequestError
from dhp.data.media import Medium, PixelReader, probe_image, read_image
from dhp.data.place import place_medium
from dhp.data.processor import Processor, load_processor
from dhp.data.samples import MediumRef
from dhp.demo.checkpoint import make_tiny_checkpoint
from made_media import decode_all, number_in, numbered, rotate_by_display_matrix, with_display_matrix, write_clip

SMALL = {"layers": 1, "hidden": 16, "heads": 1, "kv_heads": 1, "head_dim": 16, "vision_layers": 1, "vision_hidden": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("ck"), deepstack=(0,), **SMALL)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Processor:
    return load_processor(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s of H.264 with B-frames, a key frame every 24."""
    return write_clip(tmp_path_factory.mktemp("clip") / "a.mp4", 250, options={"g": "24", "bf": "2"})


def config(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.json").read_text()))


def image_reference(folder: Path, picture: Any, **size: int) -> tuple[torch.Tensor, list[int]]:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    values = {k: v for k, v in config(folder, "preprocessor_config").items() if not k.endswith(("_type", "_class"))}
    values["size"] = {**values["size"], **size}
    out = Qwen2VLImageProcessorPil(**values)(images=[picture], return_tensors="pt")
    return out["pixel_values"], out["image_grid_thw"][0].tolist()


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


# ---- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height"),
    [(64, 64), (97, 61), (640, 427), (1000, 31), (33, 900), (1, 1), (7, 150), (511, 513), (2000, 1500)],
)
def test_picture_equals_hugging_face(
    folder: Path, processor: Processor, tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(width, height)).save(path)
    medium = place_medium(MediumRef("image", str(path)), processor)
    expected, grid = image_reference(folder, Image.open(path))
    ours = PixelReader(processor).read_units(medium, 0, 1)
    assert list(medium.grid) == grid
    assert ours.dtype == torch.float32
    assert torch.equal(ours, expected)


def test_max_pixels_of_a_picture(folder: Path, processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(400, 300)).save(path)
    medium = place_medium(MediumRef("image", str(path), max_pixels=20_000), processor)
    expected, grid = image_reference(folder, Image.open(path), longest_edge=20_000)
    assert list(medium.grid) == grid
    assert medium.patches * 256 <= 20_000
    assert torch.equal(PixelReader(folder).read_units(medium, 0, 1), expected)


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
    folder: Path, processor: Processor, tmp_path: Path, orientation: int, compression: str
) -> None:
    """Pillow turns TIFF itself, when it reads it, and states the upright size before."""
    from transformers.image_utils import load_image

    path = tmp_path / "p.tif"
    Image.fromarray(noise(96, 64)).save(path, tiffinfo={274: orientation}, compression=compression)
    picture = load_image(str(path))
    assert picture.size == ((96, 64) if orientation < 5 else (64, 96))
    assert probe_image(str(path)) == (picture.height, picture.width)
    medium = place_medium(MediumRef("image", str(path)), processor)
    expected, grid = image_reference(folder, picture)
    assert list(medium.grid) == grid
    assert torch.equal(PixelReader(processor).read_units(medium, 0, 1), expected)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize(
    "kind", ["RGBA", "LA", "RGB with one colour", "L with one level", "palette", "palette of alphas"]
)
def test_what_is_transparent_lies_on_white_as_in_hugging_faces_processor(
    folder: Path, processor: Processor, tmp_path: Path, kind: str
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
        expected, _ = image_reference(folder, picture)
        hidden = np.asarray(picture.convert("RGB"))
    ours = read_image(str(path))
    medium = place_medium(MediumRef("image", str(path)), processor)
    assert torch.equal(PixelReader(processor).read_units(medium, 0, 1), expected)
    assert not np.array_equal(ours, hidden)  # the colours beneath are not shown
    if kind != "palette":
        assert (ours[0] == 255).all() == (kind in ("RGBA", "LA", "RGB with one colour", "L with one level"))


def test_extreme_shapes(processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(2000, 10)).save(path)
    assert place_medium(MediumRef("image", str(path)), processor).patches > 0  # 200:1, the limit
    Image.fromarray(noise(2010, 10)).save(path)
    with pytest.raises(InputError, match="200"):
        place_medium(MediumRef("image", str(path)), processor)


# ---- clips: pixels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((160, 96), {}),  # the grid is the clip's own size: no resizing
        ((160, 96), {"fps": 0.7}),
        ((160, 96), {"nframes": 7}),  # odd: the last frame is repeated
        ((200, 120), {"nframes": 6}),  # resized
        ((50, 34), {"fps": 1.0}),
        ((320, 480), {}),
    ],
)
def test_clip_equals_hugging_face(
    folder: Path, processor: Processor, tmp_path: Path, size: tuple[int, int], options: dict[str, Any]
) -> None:
    path = write_clip(tmp_path / "c.mp4", 75, size=size)
    medium = place_medium(MediumRef("video", str(path), **options), processor)
    video = config(folder, "video_preprocessor_config")
    picked = hf.sampled(video, 75, 25.0, {"num_frames" if k == "nframes" else k: v for k, v in options.items()})
    expected, grid = hf.video_rows(np.stack(decode_all(path))[picked], video)
    assert list(medium.grid) == grid
    assert list(medium.frame_indices) == picked + picked[-1:] * (len(picked) % 2)
    ours = PixelReader(folder).read_units(medium, 0, medium.units)
    assert torch.equal(ours, expected)


def test_time_stamps_as_hugging_face(processor: Processor, clip: Path) -> None:
    medium = place_medium(MediumRef("video", str(clip), fps=1.3), processor)
    reference = hf.processor(_NoTokenizer())
    assert medium.timestamps == tuple(reference._calculate_timestamps(list(medium.frame_indices), 25.0, 2))


class _NoTokenizer:
    def convert_tokens_to_ids(self, token: str) -> int:
        return 0


def test_frames_and_clips_share_the_patch_order_of_pictures(folder: Path, processor: Processor, tmp_path: Path) -> None:
    """A video of the same frame twice is the picture, but for where rescaling is rounded."""
    path = tmp_path / "p.png"
    Image.fromarray(noise(160, 128)).save(path)
    picture = place_medium(MediumRef("image", str(path)), processor)
    video = place_medium(MediumRef("video", (str(path),) * 2), processor)
    assert picture.grid == video.grid
    reader = PixelReader(processor)
    assert torch.allclose(reader.read_units(picture, 0, 1), reader.read_units(video, 0, 1), atol=1e-6, rtol=0)


def test_list_of_frames(processor: Processor, tmp_path: Path) -> None:
    paths = []
    for number in range(5):
        Image.fromarray(numbered(number, 96, 64)).save(tmp_path / f"{number}.png")
        paths.append(str(tmp_path / f"{number}.png"))
    medium = place_medium(MediumRef("video", tuple(paths), fps=4.0), processor)
    assert medium.frame_indices == (0, 1, 2, 3, 4, 4)
    assert medium.timestamps == (0.125, 0.625, 1.0)
    whole = PixelReader(processor).read_units(medium, 0, 3)
    per_unit = whole.shape[0] // 3
    assert torch.equal(PixelReader(processor).read_units(medium, 1, 2), whole[per_unit : 2 * per_unit])
    Image.fromarray(noise(64, 64)).save(paths[3])
    with pytest.raises(MediumError, match=r"3\.png: is 64x64, but the video's first frame is 96x64"):
        place_medium(MediumRef("video", tuple(paths)), processor)
    with pytest.raises(InputError, match="frame"):
        place_medium(MediumRef("video", (paths[0],)), processor)


# ---- clips: which frames --------------------------------------------------------------------------------------------

CONTAINERS = [
    ("mp4", {"codec": "libx264", "options": {"g": "12", "bf": "3"}}),
    ("mp4", {"codec": "libx264", "options": {"g": "10", "bf": "3", "x264-params": "open-gop=1"}}),
    ("mp4", {"codec": "mpeg4", "options": {"bf": "2", "g": "9"}}),
    ("mkv", {"codec": "libx264", "options": {"g": "12"}}),
    ("webm", {"codec": "libvpx-vp9", "options": {"g": "10", "deadline": "realtime", "cpu-used": "8"}}),
    ("avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
    ("avi", {"codec": "mjpeg"}),
    ("ts", {"codec": "libx264", "options": {"g": "12", "bf": "2"}}),
    ("mpg", {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}}),
    ("h264", {"codec": "libx264", "options": {"g": "12", "bf": "2"}}),  # no container: no time stamps, no count
]


@pytest.mark.parametrize(
    ("suffix", "made"), CONTAINERS, ids=[f"{s}-{m['codec']}{i}" for i, (s, m) in enumerate(CONTAINERS)]
)
def test_partial_reads_equal_slices_of_a_full_decode(tmp_path: Path, suffix: str, made: dict[str, Any]) -> None:
    path = write_clip(tmp_path / f"c.{suffix}", 61, **made)
    everything = decode_all(path)
    assert [number_in(frame) for frame in everything] == list(range(61))
    info = probe_clip(str(path))
    assert (info.frames, info.height, info.width) == (61, 96, 160)
    assert info.fps == pytest.approx(25)
    seed = len(suffix) * 31 + len(str(made))
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(12):
        numbers = rng.choices(range(61), k=rng.randint(1, 6))
        found = read_frames(str(path), numbers, *info.locate(numbers))
        assert sorted(found) == sorted(set(numbers))
        for number, frame in found.items():
            assert np.array_equal(frame, everything[number]), number


def test_unit_ranges_equal_slices_of_a_full_read(processor: Processor, clip: Path) -> None:
    seed = 77
    print("seed", seed)
    rng = random.Random(seed)
    reader = PixelReader(processor)
    for case in range(6):
        start = rng.uniform(0, 8)
        cut = {"video_start": start, "video_end": start + rng.uniform(0.5, 2)} if case else {}
        medium = place_medium(MediumRef("video", str(clip), fps=rng.choice([2.0, 5.0, 12.5]), **cut), processor)
        whole = reader.read_units(medium, 0, medium.units)
        rows = medium.grid[1] * medium.grid[2]
        assert whole.shape == (medium.patches, 3 * 2 * 16 * 16)
        for _ in range(4):
            a, b = sorted(rng.choices(range(medium.units + 1), k=2))
            assert torch.equal(reader.read_units(medium, a, b), whole[a * rows : b * rows])
        numbers = [number_in(frame) for _, frame in sorted(read_frames(str(clip), medium.frame_indices).items())]
        assert numbers == sorted(set(medium.frame_indices))


def test_only_what_is_needed_is_decoded(processor: Processor, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    whole = clips._decode_from

    def counting(*args: Any) -> Any:
        for frame in whole(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(clips, "_decode_from", counting)
    medium = place_medium(MediumRef("video", str(clip), nframes=20), processor)  # a frame in 13, a key frame in 24
    reader = PixelReader(processor)
    reader.read_units(medium, 9, 10)
    assert 2 <= len(decoded) <= 40  # the last two frames, from the key frame before them; not 250
    decoded.clear()
    sparse = place_medium(MediumRef("video", str(clip), nframes=4), processor)  # frames 0, 83, 166, 249
    reader.read_units(sparse, 0, 2)
    assert 4 <= len(decoded) <= 4 * 25  # jumps over groups of pictures that hold nothing wanted
    decoded.clear()
    assert reader.read_units(medium, 4, 4).shape == (0, 1536)
    assert decoded == []


def test_wrong_time_stamps_fall_back_to_counting(clip: Path) -> None:
    info = probe_clip(str(clip))
    (stamp,), (key,) = info.locate([100])
    for stamps, keys in [((stamp + 1,), (key,)), ((stamp,), (-(10**9),)), ((10**12,), (10**12,))]:
        assert number_in(read_frames(str(clip), [100], stamps, keys)[100]) == 100


def test_start_and_end(processor: Processor, clip: Path) -> None:
    def frames(**cut: float) -> tuple[int, ...]:
        return place_medium(MediumRef("video", str(clip), nframes=2, **cut), processor).frame_indices

    assert frames() == (0, 249)
    assert frames(video_start=2.0, video_end=4.0) == (50, 100)  # both ends are in, as in qwen-vl-utils
    assert frames(video_start=2.01, video_end=3.99) == (51, 99)
    assert frames(video_start=0.12) == (3, 249)  # 0.12 * 25 is a little more than 3 in floating point
    assert frames(video_end=60.0) == (0, 249)
    cut = place_medium(MediumRef("video", str(clip), video_start=4.0, video_end=6.0), processor)
    assert cut.timestamps[0] < 1  # from the clip's start
    with pytest.raises(MediumError, match=r"no frame from video_start 10\.0 s .*lasts 10\.00 s"):
        frames(video_start=10.0)


def test_variable_frame_rate(processor: Processor, tmp_path: Path) -> None:
    rng = random.Random(3)
    times, now = [], 0
    for _ in range(50):
        times.append(now)
        now += rng.choice([20, 40, 130])
    path = write_clip(tmp_path / "v.mkv", 50, times=times)
    info = probe_clip(str(path))
    assert info.frames == 50
    assert info.fps == pytest.approx(49 / (times[-1] / 1000), rel=0.03)
    numbers = [0, 7, 23, 49]
    found = read_frames(str(path), numbers, *info.locate(numbers))
    assert [number_in(found[n]) for n in numbers] == numbers


def test_display_matrix(processor: Processor, tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "c.mp4", 12)
    turned = rotate_by_display_matrix(plain, tmp_path / "t.mp4")
    info = probe_clip(str(turned))
    assert (info.height, info.width) == (160, 96)
    frame = read_frames(str(turned), [5])[5]
    assert np.array_equal(frame, np.rot90(decode_all(plain)[5], -1))  # a quarter clockwise
    medium = place_medium(MediumRef("video", str(turned)), processor)
    assert medium.grid[1] > medium.grid[2]


ONE = 1 << 16  # in the fixed point of display matrices
UPRIGHT_AND_TURNED = [
    (ONE, 0, 0, ONE),
    (-ONE, 0, 0, ONE),  # mirrored left to right, as phones' front cameras do
    (ONE, 0, 0, -ONE),
    (-ONE, 0, 0, -ONE),
    (0, ONE, -ONE, 0),
    (0, -ONE, ONE, 0),
    (0, ONE, ONE, 0),
    (0, -ONE, -ONE, 0),
    (2 * ONE, 0, 0, -2 * ONE),
]


def by_definition(frame: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Every pixel put where the display matrix puts it: (x, y) to (a x + c y, b x + d y), moved to where it is seen.
    ffmpeg 5.1 gives the same for all of these, to the last bit."""
    height, width, _ = frame.shape
    y, x = np.mgrid[0:height, 0:width]
    new_x, new_y = np.sign(a) * x + np.sign(c) * y, np.sign(b) * x + np.sign(d) * y
    new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
    out = np.empty((new_y.max() + 1, new_x.max() + 1, 3), np.uint8)
    out[new_y, new_x] = frame
    return out


@pytest.mark.parametrize("matrix", UPRIGHT_AND_TURNED)
def test_clips_are_turned_and_mirrored(processor: Processor, tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    plain = write_clip(tmp_path / "c.mp4", 12)
    shown = with_display_matrix(plain, tmp_path / "t.mp4", *matrix)
    expected = by_definition(decode_all(plain)[5], *matrix)
    assert np.array_equal(read_frames(str(shown), [5])[5], expected)
    info = probe_clip(str(shown))
    assert (info.height, info.width) == expected.shape[:2]
    assert place_medium(MediumRef("video", str(shown)), processor).height == info.height


def test_clips_at_odd_angles_are_refused(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "c.mp4", 12)
    shown = with_display_matrix(plain, tmp_path / "t.mp4", ONE, ONE, -ONE, ONE)
    with pytest.raises(MediumError, match=r"displayed at an angle of 45 degrees; only quarter turns are read"):
        probe_clip(str(shown))


# ---- clips: what processor files and lines ask for ------------------------------------------------------------------


def test_more_frames_than_there_are(processor: Processor, clip: Path) -> None:
    assert place_medium(MediumRef("video", str(clip), nframes=250), processor).units == 125
    with pytest.raises(RequestError, match=r"a\.mp4: nframes asks for 251 of 250 frames; ask for no more") as caught:
        place_medium(MediumRef("video", str(clip), nframes=251), processor)
    assert caught.value.kind == "malformed"
    with pytest.raises(RequestError, match="nframes asks for 30 of 25 frames"):
        place_medium(MediumRef("video", str(clip), nframes=30, video_start=9.0, video_end=99.0), processor)


def test_fewer_frames_than_a_clip_needs(processor: Processor, clip: Path) -> None:
    with pytest.raises(RequestError, match="nframes asks for 1 of 250 frames; a clip has at least 2"):
        place_medium(MediumRef("video", str(clip), nframes=1), processor)
    with pytest.raises(RequestError, match="video_start and video_end leave 1 of 250 frames"):
        place_medium(MediumRef("video", str(clip), video_start=1.0, video_end=1.01), processor)


def test_a_cover_is_no_clip(tmp_path: Path) -> None:
    """A picture that players show beside the clip, stated before it; ffmpeg takes the clip."""
    import av

    path = tmp_path / "c.mp4"
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 320, 192, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        film: Any = container.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 160, 96, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(99, 320, 192), format="rgb24")))
        container.mux(cover.encode())
        for number in range(12):
            container.mux(film.encode(av.VideoFrame.from_ndarray(numbered(number, 160, 96), format="rgb24")))
        container.mux(film.encode())
    data = path.read_bytes()
    start = data.index(b"moov") + 4
    boxes, at = [], start
    while at < start - 8 + int.from_bytes(data[start - 8 : start - 4], "big"):
        size = int.from_bytes(data[at : at + 4], "big")
        boxes.append(data[at : at + size])
        at += size
    boxes.sort(key=lambda box: (b"mvhd", b"udta", b"trak").index(box[4:8]))  # the cover is in udta
    path.write_bytes(data[:start] + b"".join(boxes) + data[at:])
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition == av.stream.Disposition.attached_pic
    info = probe_clip(str(path))
    assert (info.frames, info.width) == (12, 160)
    assert number_in(read_frames(str(path), [5])[5]) == 5


def changed(folder: Path, target: Path, **values: Any) -> Processor:
    import shutil

    shutil.copytree(folder, target)
    path = target / "video_preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return load_processor(target)


def test_without_sampling_every_frame_is_taken_as_hugging_face_does(folder: Path, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", 31)
    processor = changed(folder, tmp_path / "every", do_sample_frames=False)
    medium = place_medium(MediumRef("video", str(path)), processor)
    assert list(medium.frame_indices) == [*range(31), 30]
    expected, grid = hf.video_rows(np.stack(decode_all(path)), config(folder, "video_preprocessor_config"))
    assert list(medium.grid) == grid
    assert torch.equal(PixelReader(processor).read_units(medium, 0, medium.units), expected)
    reference = hf.processor(_NoTokenizer())
    assert medium.timestamps == tuple(reference._calculate_timestamps(list(range(31)), 25.0, 2))
    asked = place_medium(MediumRef("video", str(path), nframes=4), processor)  # the line itself says otherwise
    assert asked.frame_indices == (0, 10, 20, 30)


@pytest.mark.parametrize(("key", "value"), [("num_frames", 8), ("fps", None), ("do_sample_frames", "no")])
def test_what_else_decides_frames_is_refused(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(DataError, match=rf"video_preprocessor_config\.json: {key}"):
        changed(folder, tmp_path / "bad", **{key: value})


def test_container_that_states_a_wrong_count(tmp_path: Path) -> None:
    """The header of an AVI says 300 frames; 40 are there."""
    path = write_clip(tmp_path / "c.avi", 40, codec="mjpeg")
    data = bytearray(path.read_bytes())
    header = data.find(b"avih")
    data[header + 8 + 16 : header + 8 + 20] = (300).to_bytes(4, "little")  # dwTotalFrames
    stream = data.find(b"strh")
    data[stream + 8 + 32 : stream + 8 + 36] = (300).to_bytes(4, "little")  # dwLength
    path.write_bytes(data)
    info = probe_clip(str(path))
    assert info.frames == 40
    assert number_in(read_frames(str(path), [39], *info.locate([39]))[39]) == 39


# ---- what cannot be read --------------------------------------------------------------------------------------------


def broken(kind: str, path: Path, clip: Path) -> None:
    if kind == "empty":
        path.touch()
    elif kind == "words":
        path.write_text("hello, hello, hello\n" * 50)
    elif kind == "cut":
        path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "said"),
    [("missing", "no such file"), ("empty", "is empty"), ("words", ""), ("cut", ""), ("folder", "")],
)
@pytest.mark.parametrize("what", ["image", "video"])
def test_unreadable(processor: Processor, clip: Path, tmp_path: Path, kind: str, said: str, what: Any) -> None:
    path = tmp_path / ("p.png" if what == "image" else "c.mp4")
    broken(kind, path, clip)
    with pytest.raises(MediumError) as caught:
        place_medium(MediumRef(what, str(path)), processor)
    assert caught.value.path == str(path)
    assert said in caught.value.problem
    assert len(caught.value.problem) > 5


def test_clip_cut_off_behind_its_header(processor: Processor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", 100, muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(MediumError, match=r"c\.mp4: is damaged or cut off after \d+ frames"):
        place_medium(MediumRef("video", str(path)), processor)


def test_picture_cut_off_is_found_on_reading(processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    Image.fromarray(noise(300, 200)).save(path)
    path.write_bytes(path.read_bytes()[:8000])
    medium = place_medium(MediumRef("image", str(path)), processor)  # the header is whole
    with pytest.raises(MediumError, match=r"p\.jpg: cannot be decoded: .*truncated"):
        PixelReader(processor).read_units(medium, 0, 1)


def test_clip_damaged_inside_is_found_on_reading(processor: Processor, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.mp4", 100, size=(320, 192), muxer={"movflags": "faststart"})
    medium = place_medium(MediumRef("video", str(path), fps=12.0), processor)
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
        place_medium(MediumRef("video", str(path)), processor)


def test_sound_alone_is_no_clip(processor: Processor, tmp_path: Path) -> None:
    import wave

    path = tmp_path / "s.wav"
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(b"\0\0" * 8000)
    with pytest.raises(MediumError, match=r"s\.wav: has no video stream"):
        place_medium(MediumRef("video", str(path)), processor)


def test_file_replaced_after_indexing(processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(noise(96, 64)).save(path)
    medium = place_medium(MediumRef("image", str(path)), processor)
    Image.fromarray(noise(64, 64)).save(path)
    with pytest.raises(MediumError, match=r"p\.png: is 64x64, but was 96x64 when it was indexed"):
        PixelReader(processor).read_units(medium, 0, 1)
    path.unlink()
    with pytest.raises(MediumError, match="no such file"):
        PixelReader(processor).read_units(medium, 0, 1)
    clip = write_clip(tmp_path / "c.mp4", 60)
    video = place_medium(MediumRef("video", str(clip)), processor)
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
    medium = place_medium(MediumRef("image", str(path)), processor)
    reader = PixelReader(processor)
    assert reader.read_units(medium, 1, 1).shape == (0, reader.patch_width)
    for start, stop in [(0, 2), (-1, 1), (1, 0)]:
        with pytest.raises(ValueError, match="units"):
            reader.read_units(medium, start, stop)


def test_videos_need_a_video_processor(processor: Processor, clip: Path) -> None:
    from dataclasses import replace

    without = replace(processor, video=None)
    with pytest.raises(DataError, match=r"no video_preprocessor_config\.json"):
        place_medium(MediumRef("video", str(clip)), without)
    medium = Medium("video", str(clip), (1, 2, 2), 96, 160, 25.0, (0, 1), timestamps=(0.0,))
    with pytest.raises(MediumError, match="no video processor"):
        PixelReader(without).read_units(medium, 0, 1)
