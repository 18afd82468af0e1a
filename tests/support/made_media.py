"""Pictures and clips made for tests. Every frame of a clip says which one it is: see `number_in`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

_STRIPES = 10  # a frame's number in binary, as black and white stripes


def numbered(number: int, width: int, height: int) -> np.ndarray:
    """A frame with its number in its upper half, and moving colours below."""
    frame = np.zeros((height, width, 3), dtype=np.uint8)
    edges = np.linspace(0, width, _STRIPES + 1).astype(int)
    for bit in range(_STRIPES):
        frame[: height // 2, edges[bit] : edges[bit + 1]] = 235 if number >> bit & 1 else 20
    y, x = np.mgrid[0 : height - height // 2, 0:width]
    for channel in range(3):
        frame[height // 2 :, :, channel] = (120 + 90 * np.sin((x + 5 * number) / (7 + 2 * channel) + y / 9)).astype(int)
    return frame


def number_in(frame: np.ndarray) -> int:
    """The number a decoded frame carries."""
    height, width, _ = frame.shape
    edges = np.linspace(0, width, _STRIPES + 1).astype(int)
    middle = [frame[: height // 2, a + 1 : b - 1].mean() > 127 for a, b in itertools.pairwise(edges)]
    return sum(1 << bit for bit, white in enumerate(middle) if white)


def write_clip(
    path: Path,
    frames: int,
    *,
    size: tuple[int, int] = (160, 96),
    fps: int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    times: list[int] | None = None,
    draw: Callable[[int, int, int], np.ndarray] = numbered,
) -> Path:
    """Frames draw(0, …), draw(1, …), … of this width and height.

    times  presentation times in milliseconds, for a variable frame rate
    """
    from fractions import Fraction

    with av.open(str(path), "w", options=muxer or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(number, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> list[np.ndarray]:
    """Every frame in order, decoded from the start: the reference for partial reads."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def rotate_by_display_matrix(path: Path, out: Path) -> Path:
    """Rewrites an MP4's track header so that players turn it by a quarter, clockwise, as phones do."""
    return with_display_matrix(path, out, 0, 1 << 16, -(1 << 16), 0)


def with_display_matrix(path: Path, out: Path, a: int, b: int, c: int, d: int) -> Path:
    """Rewrites an MP4's track header: a pixel at (x, y) is shown at (a x + c y, b x + d y), in 16.16 fixed point."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd")
    # the last column is 2.30; version 0 header: the matrix starts 40 bytes after the version field
    matrix = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    start = at + 4 + 40
    for i, value in enumerate(matrix):
        data[start + 4 * i : start + 4 * i + 4] = value.to_bytes(4, "big", signed=True)
    out.write_bytes(data)
    return out


def noise(width: int, height: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Levels of a picture."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def config(folder: Path, name: str) -> dict[str, Any]:
    """Of a processor: a file of the checkpoint's folder."""
    return dict(json.loads((folder / f"{name}.json").read_text()))
