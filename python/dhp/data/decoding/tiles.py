"""Pictures and clips as tiles of one size, as Hugging Face's processors of InternVL cut and scale them (transformers,
models/got_ocr2 and models/internvl).

A *unit* is one tile, float32 [3, side, side]: of a picture, tiles row by row and then the whole picture as a thumbnail
where there are several; of a clip, a frame each. The tile rule itself is the core's (`dhp._core.internvl`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dhp._core import internvl
from dhp.data.errors import RequestError
from dhp.data.formats.samples import MediumRef
from dhp.data.processor import PixelScale, Processor, tile_rules

Pixels = npt.NDArray[np.uint8]  # [height, width, 3]


def picture_grid(ref: MediumRef, processor: Processor, height: int, width: int) -> tuple[int, int, int]:
    """Tiles, and the patches of a tile's sides. `max_pixels` of the line limits all tiles but the thumbnail."""
    rules = tile_rules(processor)
    most = min(rules.max_tiles, _tiles_of(ref, processor))
    return _grid(processor, internvl.image_tiles(rules, height, width, most).count)


def _tiles_of(ref: MediumRef, processor: Processor) -> int:
    """That `max_pixels` of the line allows."""
    tile = tile_rules(processor).tile_size ** 2
    if ref.max_pixels is None:
        return 1 << 20
    if ref.max_pixels < tile:
        source = ref.source if isinstance(ref.source, str) else ref.source[0]
        raise RequestError(source, f"max_pixels is {ref.max_pixels}, but the model's smallest picture has {tile}")
    return ref.max_pixels // tile


def clip_grid(
    ref: MediumRef, processor: Processor, frames: int, fps: float, first: int
) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """The grid of a clip of `frames` frames from `first` on, and the frames that are taken of it: in the middles of
    equal parts."""
    _tiles_of(ref, processor)  # a frame is one
    own_fps = ref.fps or (None if ref.nframes else processor.clip_fps)
    rules = tile_rules(processor)
    if own_fps:
        count = internvl.clip_frames(rules, frames, fps, fps=own_fps)
    else:
        asked = ref.nframes or processor.clip_frames or min(frames, rules.max_frames)
        count = internvl.clip_frames(rules, frames, fps, frames=asked)
    step = frames / count
    # As torch.arange(step / 2, frames, step).int() does it in fp32
    indices = torch.arange(step / 2, frames, step).int().tolist()
    return _grid(processor, len(indices)), tuple(first + index for index in indices)


def _grid(processor: Processor, tiles: int) -> tuple[int, int, int]:
    side = math.isqrt(tile_rules(processor).patches_per_tile)
    return tiles, side, side


def cut(picture: Pixels, count: int, processor: Processor, numbers: Iterable[int]) -> dict[int, Pixels]:
    """These tiles of the `count` of a picture."""
    rules = tile_rules(processor)
    side = rules.tile_size
    # Of all arrangements up to so many tiles the same is the best, whatever the limit was.
    tiles = internvl.image_tiles(rules, picture.shape[0], picture.shape[1], max(1, count - 1))
    whole = Image.fromarray(picture)
    out: dict[int, Pixels] = {}
    resized: Pixels | None = None
    for number in numbers:
        if number == tiles.columns * tiles.rows:
            out[number] = np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC))
            continue
        if resized is None:
            resized = np.asarray(whole.resize((tiles.columns * side, tiles.rows * side), Image.Resampling.BICUBIC))
        row, column = divmod(number, tiles.columns)
        out[number] = resized[row * side : (row + 1) * side, column * side : (column + 1) * side]
    return out


def stacked(
    tiles: Sequence[Pixels],
    scale: PixelScale,
    fused: bool,
    normalise: Callable[[Pixels, PixelScale, bool], npt.NDArray[np.float32]],
) -> torch.Tensor:
    """float32 [tiles, 3, side, side]."""
    levels = np.stack(tiles).transpose(0, 3, 1, 2)  # [tiles, 3, side, side]
    count, channels, side, _ = levels.shape
    numbers = normalise(levels.reshape(count, channels, side * side), scale, fused)
    return torch.from_numpy(numbers.reshape(count, channels, side, side))
