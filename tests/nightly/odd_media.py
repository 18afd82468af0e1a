"""Pictures and clips as users have them, and as nobody should: turned, transparent, cut off, wrongly named, huge."""

from __future__ import annotations

import os
import random
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

PICTURES = [
    "plain.png",
    "plain.jpg",
    "turned.jpg",
    "turned.tif",
    "palette.png",
    "deep.png",
    "cmyk.jpg",
    "moving.gif",
    "moving.webp",
    "grey.png",
    "clear.png",
    "dot.png",
    "line.png",
]
CLIPS = ["plain.mp4", "one_frame.mp4", "short.mkv", "uneven.avi"]
# Neither a picture nor a clip, or one that nobody can read.
BAD = [
    "empty.png",
    "empty.mp4",
    "text.jpg",
    "huge_header.png",
    "bomb.png",
    "noise.bin",
    "folder.png",
    "cut.png",
    "cut.jpg",
    "cut.mp4",
    "head.mp4",
    "sound.wav",
    "png_called.mp4",
    "mp4_called.png",
    "pipe.png",
    "missing.png",
    "loop.png",
]
ELSEWHERE = [
    *[
        "/dev/zero",
        "/dev/null",
        "/proc/self/mem",
        "/",
        ".",
        "..",
        "~",
        "*",
        "-",
        "plain.png/x",
        "file://plain.png",
        "file:///",
    ],
    *("http://127.0.0.1:9/x.png", "data:image/png;base64,AAAA", "", " ", "plain.png\0", "\ud800.png", "\x1b[2J"),
    *("a" * 300, "a/" * 2100),
]
NAMES = [*PICTURES, *CLIPS, *BAD, *ELSEWHERE]


def make(folder: Path) -> None:
    """All of them, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _make_pictures(folder)
    kinds = zip(CLIPS, (12, 1, 3, 7), ("mpeg4", "mpeg4", "mpeg4", "mjpeg"), strict=True)
    for name, frames, codec in kinds:
        _write_clip(folder / name, frames, codec)
    for name in ("empty.png", "empty.mp4"):
        (folder / name).touch()
    (folder / "text.jpg").write_text("not a picture\n")
    (folder / "noise.bin").write_bytes(random.Random(0).randbytes(4000))
    (folder / "huge_header.png").write_bytes(png(2**31 - 1, 2**31 - 1))
    (folder / "bomb.png").write_bytes(png(30_000, 30_000))
    (folder / "folder.png").mkdir()
    for name, whole in (("cut.png", "plain.png"), ("cut.jpg", "plain.jpg"), ("cut.mp4", "plain.mp4")):
        content = (folder / whole).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "head.mp4").write_bytes((folder / "plain.mp4").read_bytes()[:40])
    (folder / "sound.wav").write_bytes(b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(24) + b"data" + bytes(4))
    (folder / "png_called.mp4").write_bytes((folder / "plain.png").read_bytes())
    (folder / "mp4_called.png").write_bytes((folder / "plain.mp4").read_bytes())
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")


def damaged(content: bytes, randomness: random.Random) -> bytes:
    """A few bytes changed, cut off, or repeated: mostly near the start, where headers are."""
    out = bytearray(content)
    for _ in range(randomness.choice((1, 1, 2, 5, 20))):
        if not out:
            break
        place = int(randomness.random() ** 3 * len(out))
        match randomness.randrange(5):
            case 0:
                out[place] ^= 1 << randomness.randrange(8)
            case 1:
                out[place] = randomness.choice((0, 255, 127, 128, randomness.randrange(256)))
            case 2:
                del out[max(place, 1) :]
            case 3:
                out[place:place] = out[place : place + randomness.randrange(1, 64)]
            case 4:
                del out[place : place + randomness.randrange(1, 16)]
    return bytes(out)


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def _levels(width: int, height: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(width * height).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _make_pictures(folder: Path) -> None:
    plain = Image.fromarray(_levels(70, 50))
    turned = Image.Exif()
    turned[0x0112] = 6
    plain.save(folder / "plain.png")
    plain.save(folder / "plain.jpg")
    plain.save(folder / "turned.jpg", exif=turned)
    plain.save(folder / "turned.tif", exif=turned)
    plain.convert("P").save(folder / "palette.png", transparency=0)
    Image.fromarray(_levels(40, 40, 2).view(np.uint16)[..., 0]).save(folder / "deep.png")
    plain.convert("CMYK").save(folder / "cmyk.jpg")
    frames = [Image.fromarray(_levels(33, 40 + i)).resize((33, 40)) for i in range(3)]
    for name in ("moving.gif", "moving.webp"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    plain.convert("L").save(folder / "grey.png")
    Image.fromarray(_levels(64, 64, 4)).save(folder / "clear.png")
    Image.fromarray(_levels(1, 1)).save(folder / "dot.png")
    Image.fromarray(_levels(3000, 1)).save(folder / "line.png")


def _write_clip(file: Path, frames: int, codec: str) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(_levels(96 + i, 64)[:, :96].copy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
