"""The orientation of a PNG, read from its chunks, against Pillow, which decodes the picture for it."""

from __future__ import annotations

import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dhp.data.decoding.media import MediumError, probe_image
from dhp.data.decoding.png_orientation import orientation_of

_MODES = {"L": (0, 8, 1), "I;16": (0, 16, 2), "RGB": (2, 8, 3), "P": (3, 8, 1), "RGBA": (6, 8, 4)}  # type, depth, bytes
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return bytes(exif.tobytes())


def raw_profile(orientation: int) -> bytes:
    data = exif_of(orientation)
    return f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()


def saying(random_: random.Random) -> bytes:
    """A chunk that may say how the picture is turned, or something else."""
    orientation = random_.choice([0, 1, 3, 5, 6, 8, 9])
    profile = raw_profile(orientation)
    xmp = b'<x tiff:Orientation="%d"/>' % orientation
    return random_.choice(
        [
            chunk(b"eXIf", exif_of(orientation)[6:]),
            chunk(b"eXIf", b"broken"),
            chunk(b"tEXt", b"Raw profile type exif\0" + profile),
            chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
            chunk(b"zTXt", b"Raw profile type exif\0\0broken"),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
            chunk(b"tEXt", b"exif\0" + exif_of(orientation)),
            chunk(b"tEXt", b"date:create\x002026-11-29"),
            chunk(b"prIv", b"whatever"),
            chunk(b"gAMA", b"\0\0\1\1"),
            chunk(b"gAMA", b""),
        ]
    )


def png(random_: random.Random) -> bytes:
    mode = random_.choice(list(_MODES))
    kind, depth, size = _MODES[mode]
    width, height, interlaced = random_.randint(1, 20), random_.randint(1, 20), random_.randint(0, 1)
    rows = b""
    for x, y, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns, lines = len(range(x, width, across)), len(range(y, height, down))
        if columns:
            rows += b"".join(b"\0" + random_.randbytes(columns * size) for _ in range(lines))
    data = zlib.compress(rows)
    cut = random_.randint(0, len(data))
    pixels = [chunk(b"IDAT", data[:cut]), chunk(b"IDAT", data[cut:])]
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    chunks = [chunk(b"IHDR", head), *([chunk(b"PLTE", random_.randbytes(768))] if mode == "P" else [])]
    chunks += [saying(random_) for _ in range(random_.choice([0, 0, 1]))]
    chunks += [pixels[0], *([saying(random_)] if random_.random() < 0.05 else []), pixels[1]]
    chunks += [saying(random_) for _ in range(random_.choice([0, 0, 1, 2, 3]))]
    chunks += [chunk(b"IEND", b"")] if random_.random() < 0.95 else []
    text = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    if random_.random() < 0.15:  # cut off
        text = text[: random_.randint(0, len(text))]
    if random_.random() < 0.1:  # behind the pixels, so that these are whole
        end = text.rfind(b"IDAT")
        at = random_.randint(end, len(text)) if end > 0 else 0
        if at > end + 4 + len(data) - cut + 4:
            text = text[:at] + random_.randbytes(1) + text[at + 1 :]
    return text


def answer(path: Path, ask: Callable[[Image.Image], Any]) -> str:
    try:
        with Image.open(path) as picture:
            return f"{picture.size} {ask(picture)}"
    except Exception as error:  # whatever Pillow says
        return f"{type(error).__name__}: {error}".replace(str(path), "")


@pytest.mark.filterwarnings("ignore")  # of Pillow, about EXIF that is broken
def test_as_pillow_after_decoding(tmp_path: Path) -> None:
    first = int(os.environ.get("DHP_TEST_SEED", "1"))
    cases = max(1, int(2000 * float(os.environ.get("DHP_TEST_SHARE", "1"))))
    path = tmp_path / "p.png"
    turned = 0
    for seed in range(first, first + cases):
        path.write_bytes(png(random.Random(seed)))
        expected = answer(path, lambda picture: picture.getexif().get(0x0112, 1))
        assert answer(path, orientation_of) == expected, f"seed {seed}"
        turned += expected.endswith((" 5", " 6", " 8"))
    assert turned > cases // 50


def test_pixels_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.png"
    Image.new("RGB", (300, 200)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(chunk(b"IEND", b""), chunk(b"eXIf", exif_of(6)[6:]) + chunk(b"IEND", b"")))
    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
        assert probe_image(str(path)) == (300, 200)
    path.write_bytes(whole[:-30])
    with pytest.raises(MediumError, match=r"p\.png: cannot be decoded"):
        probe_image(str(path))


def test_very_many_texts_are_left_to_pillow(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.new("RGB", (3, 2)).save(path)
    end = chunk(b"eXIf", exif_of(6)[6:]) + chunk(b"IEND", b"")
    path.write_bytes(path.read_bytes().replace(chunk(b"IEND", b""), chunk(b"tEXt", b"") * 2000 + end))
    with Image.open(path) as picture:
        assert orientation_of(picture) == 6
        assert picture.png is None, "decoded: no list of chunks has grown"
