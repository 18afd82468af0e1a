"""Which files are opened as media, and how much of them is decoded: whatever a line of the data names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dhp.data.access import files
from dhp.data.dataset import Dataset
from dhp.data.decoding import clips, media
from dhp.data.decoding.clips import probe_clip, read_frames
from dhp.data.decoding.media import probe_image, read_image
from dhp.data.errors import DataError, MediumError
from dhp.data.indexing.index import build_index, load_or_build_index
from dhp.data.indexing.index_command import main
from made_media import write_clip
from tiny_run import make_tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """inside/ and outside/ with a picture and a clip each; model/. Not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    make_tiny(folder / "model")
    for name in ("inside", "outside"):
        (folder / name).mkdir()
        Image.fromarray(np.full((64, 64, 3), 100, np.uint8)).save(folder / name / "a.png")
        write_clip(folder / name / "c.mp4", 12)
    return folder


def sample(**named: Any) -> str:
    tags = "<image>" * len(named.get("images", ())) + "<video>" * len(named.get("videos", ()))
    turns = [{"role": "user", "content": f"{tags}?"}, {"role": "assistant", "content": "A."}]
    return json.dumps({"messages": turns, **named}) + "\n"


# ---- media_roots ----------------------------------------------------------------------------------------------------


@pytest.fixture
def roots(made: Path, tmp_path: Path) -> Path:
    """A copy, with links out of inside/ and into it, and data that names media by every way."""
    folder = Path(shutil.copytree(made, tmp_path / "copy"))
    (folder / "inside" / "out.png").symlink_to(folder / "outside" / "a.png")
    (folder / "inside" / "outdir").symlink_to(folder / "outside")
    (folder / "outside" / "in.png").symlink_to(folder / "inside" / "a.png")
    (folder / "insider").mkdir()
    shutil.copy(folder / "inside" / "a.png", folder / "insider" / "a.png")
    lines = [
        sample(images=["inside/a.png"]),
        sample(images=["outside/in.png"]),
        sample(videos=["inside/c.mp4"]),
        sample(videos=[["inside/a.png", "outside/in.png"]]),
        sample(images=["inside/out.png"]),
        sample(images=["inside/outdir/a.png"]),
        sample(images=["inside/../outside/a.png"]),
        sample(images=["insider/a.png"]),
        sample(videos=["outside/c.mp4"]),
        sample(videos=[["inside/a.png", "outside/a.png"]]),
        sample(images=["/etc/hostname"]),
    ]
    (folder / "train.jsonl").write_text("".join(lines))
    return folder


def test_media_outside_the_roots_are_refused_links_resolved(roots: Path) -> None:
    data, model, inside = roots / "train.jsonl", roots / "model", [str(roots / "inside")]
    index = build_index(data, model, on_error="skip", media_roots=inside)
    assert [s.id for s in index.samples] == [1, 2, 3, 4]
    assert [p.id for p in index.problems] == list(range(5, 12))
    assert all("lies outside media_roots" in p.message and p.kind == "media" for p in index.problems)
    with pytest.raises(DataError, match="lies outside media_roots"):
        build_index(data, model, media_roots=inside)
    both = build_index(data, model, on_error="skip", media_roots=[*inside, str(roots / "outside")])
    assert [p.id for p in both.problems] == [8, 11]
    assert len(build_index(data, model, on_error="skip").samples) == 10  # empty: any local path


def test_roots_hold_for_an_index_made_without(roots: Path) -> None:
    data, model, inside = roots / "train.jsonl", roots / "model", [str(roots / "inside")]
    build_index(data, model, on_error="skip")
    index = load_or_build_index(data, model, on_error="skip", media_roots=inside)
    assert [s.id for s in index.samples] == [1, 2, 3, 4]
    assert [p.id for p in index.problems] == list(range(5, 12))
    with pytest.raises(DataError, match=r"train\.jsonl:5: .*out\.png: lies outside media_roots"):
        load_or_build_index(data, model, media_roots=inside)


def test_roots_hold_when_a_file_becomes_a_link_later(roots: Path) -> None:
    data, model, inside = roots / "train.jsonl", roots / "model", [str(roots / "inside")]
    loaded = Dataset(data, model, on_error="skip", media_roots=inside)
    for name, number in (("a.png", 1), ("c.mp4", 3)):
        medium = loaded.sample(number).media[0]
        loaded.read_pixels(medium, 0, 1)
        (roots / "inside" / name).unlink()
        (roots / "inside" / name).symlink_to(roots / "outside" / name)
        with pytest.raises(MediumError, match="lies outside media_roots"):
            loaded.read_pixels(medium, 0, 1)
    with pytest.raises(MediumError, match="lies outside media_roots"):
        loaded.read_pixels(loaded.sample(4).media[0], 0, 1)


def test_roots_on_the_command_line(roots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [str(roots / "train.jsonl"), "--model", str(roots / "model"), "--on-error", "skip"]
    assert main([*options, "--media-root", str(roots / "inside"), "--media-root", str(roots / "insider")]) == 0
    assert "skipped 6:" in capsys.readouterr().err
    assert main([*options, "--media-root", str(roots / "none")]) == 2
    assert "media_roots: " in (said := capsys.readouterr().err)
    assert "is no folder" in said


# ---- what is no file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [probe_image, read_image, probe_clip, lambda path: read_frames(path, [0])])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("x")
    for path, said in (
        (str(tmp_path / "pipe.png"), "is a pipe, not a file"),
        (str(tmp_path / "link"), "is a pipe, not a file"),
        ("/dev/zero", "is a device, not a file"),
        (str(tmp_path), "is a folder, not a file"),
        (str(tmp_path / "loop"), "cannot be opened: Too many levels of symbolic links"),
        (str(tmp_path / "file" / "a.png"), "no such file"),
        (str(tmp_path / ("n" * 5000)), "cannot be opened: File name too long"),
        ("/a\0b.png", "holds a NUL"),
    ):
        with pytest.raises(MediumError, match=said):
            read(path)


# ---- what names other files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nc.mp4\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "ffconcat version 1.0\nfile c.mp4\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_playlists_are_not_followed(made: Path, tmp_path: Path, name: str, text: str) -> None:
    """ffmpeg would open whatever file or address they name."""
    shutil.copy(made / "inside" / "c.mp4", tmp_path / "c.mp4")
    (tmp_path / name).write_text(text)
    with pytest.raises(MediumError, match="cannot be decoded"):
        probe_clip(str(tmp_path / name))


def test_postscript_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n")
    with Image.open(path) as picture:
        assert picture.format == "EPS"  # Pillow would hand it to Ghostscript
    with pytest.raises(MediumError, match="not a picture in a known format"):
        probe_image(str(path))


# ---- size -----------------------------------------------------------------------------------------------------------


def test_large_pictures_and_frames_are_not_decoded(
    made: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    picture, clip = str(made / "inside" / "a.png"), str(made / "inside" / "c.mp4")
    monkeypatch.setattr(files, "MAX_PIXELS", 64 * 64)
    assert read_image(picture).shape == (64, 64, 3)
    with pytest.raises(MediumError, match=r"a frame has 160x96 pixels, more than the limit of 4,096; shrink it"):
        read_frames(clip, [0])
    monkeypatch.setattr(files, "MAX_PIXELS", 64 * 64 - 1)
    for read in (probe_image, read_image):
        with pytest.raises(MediumError, match=r"a\.png: has 64x64 pixels, more than the limit of 4,095; shrink it"):
            read(picture)
    assert not recwarn.list


def test_a_stream_of_larger_frames_than_its_header_says(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder itself keeps the limit: what the container states is not believed."""
    monkeypatch.setattr(clips, "MAX_PIXELS", 160 * 96 - 1)
    with pytest.raises(MediumError, match="cannot be decoded"):
        read_frames(str(made / "inside" / "c.mp4"), [0])


def test_frames_are_shrunk_as_they_come(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    found = read_frames(str(made / "inside" / "c.mp4"), [0, 5, 9], shrink=lambda p: seen.append(p.shape) or p[:1, :1])
    assert seen == [(96, 160, 3)] * 3
    assert {frame.shape for frame in found.values()} == {(1, 1, 3)}


def test_the_limit_is_that_of_pillow() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert files.MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    assert media.probe_image is probe_image
