"""Writes qwen3_vl_sizes.json: what transformers (5.23.0) makes of picture and clip sizes.

python tests/golden/make_qwen3_vl_sizes.py tests/golden/qwen3_vl_sizes.json
"""

from __future__ import annotations

import json
import random
import sys
from types import SimpleNamespace
from typing import Any

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as image_resize
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as video_resize

ABOUT = (
    "smart_resize, sample_frames and _calculate_timestamps of transformers 5.23.0 on edge and random cases; "
    "images: height, width, patch size, least and most pixels, grid height and width in patches"
)
IMAGE_EDGES = [(1, 1), (1, 200), (200, 1), (561, 278), (720, 1280), (16, 16), (31, 33), (48, 48), (80, 80)]
IMAGE_EDGES += [(10000, 9999), (100000, 600), (4096, 4096), (4097, 4096), (176, 144)]
IMAGE_RULES = [(16, 65536, 16777216), (14, 3136, 1003520), (14, 3136, 12845056)]
VIDEO_LIMITS = [(4096, 25165824), (131072, 786432), (4096, 131072)]


def image_case(height: int, width: int, patch: int, least: int, most: int) -> list[int] | None:
    try:
        resized = image_resize(height, width, factor=2 * patch, min_pixels=least, max_pixels=most)
    except ValueError:  # aspect ratio
        return None
    return [height, width, patch, least, most, resized[0] // patch, resized[1] // patch]


def images(rng: random.Random) -> list[list[int]]:
    cases = [image_case(h, w, *rule) for h, w in IMAGE_EDGES for rule in IMAGE_RULES]
    for _ in range(300):
        height = int(2 ** rng.uniform(0, 14))
        width = max(1, int(height * 2 ** rng.uniform(-5, 5)))
        limits = (rng.choice([1024, 3136, 4096, 65536]), rng.choice([65536, 262144, 1003520, 16777216]))
        cases.append(image_case(height, width, rng.choice([14, 16, 16]), *limits))
    for k in range(1, 60):  # ties of round()
        cases.append(image_case(16 * (2 * k - 1), 16 * (2 * rng.randrange(1, 60) - 1), 16, 65536, 16777216))
    return [case for case in cases if case is not None]


def video_case(
    processor: Any,
    size: tuple[int, int],
    total: int,
    source_fps: float,
    fps: float | None,
    frames: int | None,
    limits: tuple[int, int],
) -> dict[str, Any] | None:
    metadata = SimpleNamespace(total_num_frames=total, fps=source_fps)
    indices = [int(i) for i in processor.sample_frames(metadata, num_frames=frames, fps=fps)]
    try:
        height, width = video_resize(len(indices), *size, 2, 32, *limits)
    except ValueError:  # one frame, or aspect ratio
        return None
    calculate: Any = Qwen3VLProcessor._calculate_timestamps  # uses nothing of its object
    times = calculate(None, list(indices), source_fps, 2)
    return {
        "height": size[0],
        "width": size[1],
        "total_frames": total,
        "source_fps": source_fps,
        "fps": fps,
        "frames": frames,
        "min_pixels": limits[0],
        "max_pixels": limits[1],
        "grid": [(len(indices) + 1) // 2, height // 16, width // 16],
        "indices": indices,
        "timestamps": times,
    }


def videos(rng: random.Random) -> list[dict[str, Any]]:
    processor = Qwen3VLVideoProcessor(size={"shortest_edge": 4096, "longest_edge": 25165824})
    cases = []
    for seconds in (2, 8, 15, 30):
        for size in ((240, 320), (720, 1280), (1080, 1920)):
            cases.append(video_case(processor, size, seconds * 30, 30.0, None, None, VIDEO_LIMITS[0]))
    cases.append(video_case(processor, (90, 120), 3600, 30.0, None, None, VIDEO_LIMITS[0]))
    cases.append(video_case(processor, (720, 1280), 46, 25.0, None, 46, (2500000, 73728000)))
    for _ in range(120):
        height = int(2 ** rng.uniform(2, 11))
        size = (height, max(1, int(height * 2 ** rng.uniform(-2, 2))))
        total = int(2 ** rng.uniform(1, 9))
        source_fps = rng.choice([10.0, 23.976, 24.0, 25.0, 29.97, 30.0, 30000 / 1001, 60.0, 12.5])
        exact = rng.randrange(2, 48) if rng.random() < 0.4 else None
        fps = None if exact else rng.choice([None, 0.5, 1.0, 2.0, 3.3, 7.0])
        cases.append(video_case(processor, size, total, source_fps, fps, exact, rng.choice(VIDEO_LIMITS)))
    return [case for case in cases if case is not None]


def main() -> None:
    rng = random.Random(20240611)
    sections: list[tuple[str, list[Any]]] = [("images", images(rng)), ("videos", videos(rng))]
    with open(sys.argv[1], "w") as file:
        file.write(f'{{"about": {json.dumps(ABOUT)}')
        for name, cases in sections:
            file.write(f',\n"{name}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]")
        file.write("}\n")


if __name__ == "__main__":
    main()
