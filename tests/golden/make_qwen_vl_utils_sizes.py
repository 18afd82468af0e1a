"""Writes qwen_vl_utils_sizes.json: what the package qwen-vl-utils (0.0.14) makes of picture and clip sizes.

python tests/golden/make_qwen_vl_utils_sizes.py tests/golden/qwen_vl_utils_sizes.json

Needs qwen-vl-utils alone (pip install --no-deps qwen-vl-utils==0.0.14): torchvision and requests are
replaced by empty modules, since only sizes are asked for. Rows that the package refuses have no result.
"""

from __future__ import annotations

import json
import random
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

for name in ("requests", "torchvision", "torchvision.io", "torchvision.transforms"):
    sys.modules.setdefault(name, ModuleType(name))
sys.modules["torchvision"].io = sys.modules["torchvision.io"]  # type: ignore[attr-defined]
sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore[attr-defined]
sys.modules["torchvision.transforms"].InterpolationMode = SimpleNamespace(BICUBIC=3)  # type: ignore[attr-defined]

from qwen_vl_utils import vision_process  # noqa: E402

ABOUT = (
    "qwen-vl-utils 0.0.14; images: height, width, patch size, max_pixels or null, grid height and width in patches, or "
    "null where refused; videos: height, width, frames and rate of the file, fps or null, nframes or null, max_pixels "
    "or null, patch size, sampled frames, grid height and width, the indices of the frames (the first and last "
    "12; null: refused)"
)


class Asked(Exception):
    """Carries the size that fetch_video resizes to."""


def resized_image(height: int, width: int, patch: int, max_pixels: int | None) -> list[int] | None:
    class Picture(vision_process.Image.Image):  # a size without pixels
        def __init__(self) -> None:
            super().__init__()
            self._size = (width, height)

        def convert(self, *_: Any, **__: Any) -> Any:
            return self

        def resize(self, size: tuple[int, int], *_: Any, **__: Any) -> Any:
            raise Asked(size[1], size[0])

    request: dict[str, Any] = {"image": Picture()}
    if max_pixels is not None:
        request["max_pixels"] = max_pixels
    return grid(lambda: vision_process.fetch_image(request, image_patch_size=patch), patch)


def grid(action: Any, patch: int) -> list[int] | None:
    try:
        action()
    except Asked as asked:
        height, width = asked.args
        return [height // patch, width // patch] if height > 0 and width > 0 else None
    except (ValueError, AssertionError):
        return None
    raise RuntimeError("nothing was resized")


def video_case(size: tuple[int, int], total: int, source_fps: float, options: dict[str, Any], patch: int) -> list[Any]:
    row = [*size, total, source_fps, options.get("fps"), options.get("nframes"), options.get("max_pixels"), patch]
    try:
        frames = vision_process.smart_nframes(options, total, source_fps)
    except ValueError:
        return [*row, None]
    indices = torch.linspace(0, total - 1, frames).round().long().tolist()

    def read(_: dict[str, Any]) -> Any:
        video = SimpleNamespace(shape=(frames, 3, *size))
        return video, {}, frames / total * source_fps

    def resize(_: Any, wanted: list[int], **__: Any) -> Any:
        raise Asked(*wanted)

    vision_process.get_video_reader_backend = lambda: "sizes"
    vision_process.VIDEO_READER_BACKENDS["sizes"] = read
    vision_process.transforms.functional = SimpleNamespace(resize=resize)
    found = grid(lambda: vision_process.fetch_video({"video": "none", **options}, image_patch_size=patch), patch)
    if len(indices) > 24:  # long lists say no more than short ones
        indices = indices[:12] + indices[-12:]
    return [*row, None] if found is None else [*row, frames, *found, indices]


def images(rng: random.Random) -> list[Any]:
    sizes = [(1, 1), (1, 200), (200, 1), (1, 201), (10, 2000), (14, 14), (42, 42), (561, 278), (720, 1280)]
    for _ in range(400):
        height = int(2 ** rng.uniform(0, 14))
        sizes.append((height, max(1, int(height * 2 ** rng.uniform(-7.7, 7.7)))))
    rows = []
    for height, width in sizes:
        patch = rng.choice([14, 16])
        limit = rng.choice([None, None, 50_176, 262_144, 1_003_520, 3_000])
        rows.append([height, width, patch, limit, resized_image(height, width, patch, limit)])
    return rows


def videos(rng: random.Random) -> list[Any]:
    rows = []
    for seconds in (2, 8, 15, 30, 64, 120):
        for size in ((240, 320), (720, 1280), (1080, 1920)):
            rows += [video_case(size, seconds * 30, 30.0, {}, patch) for patch in (14, 16)]
    for _ in range(400):
        height = int(2 ** rng.uniform(3, 11.5))
        size = (height, max(1, int(height * 2 ** rng.uniform(-3, 3))))
        total = int(2 ** rng.uniform(0, 13))
        source_fps = rng.choice([10.0, 23.976, 24.0, 25.0, 29.97, 30.0, 30000 / 1001, 60.0, 12.5])
        options: dict[str, Any] = {}
        if rng.random() < 0.3:
            options["nframes"] = rng.randrange(1, 64)
        elif rng.random() < 0.6:
            options["fps"] = rng.choice([0.5, 1.0, 2.0, 3.3, 7.0])
        if rng.random() < 0.4:
            options["max_pixels"] = rng.choice([50_176, 150_528, 200_704, 401_408, 10_000_000])
        rows.append(video_case(size, total, source_fps, options, rng.choice([14, 16])))
    return rows


def main() -> None:
    rng = random.Random(20240611)
    sections: list[tuple[str, list[Any]]] = [("images", images(rng)), ("videos", videos(rng))]
    with open(sys.argv[1], "w") as file:
        file.write(f'{{"about": {json.dumps(ABOUT)}')
        for name, rows in sections:
            file.write(f',\n"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
        file.write("}\n")


if __name__ == "__main__":
    main()
