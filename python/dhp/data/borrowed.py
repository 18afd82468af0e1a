"""Pictures by Hugging Face's own processor of a checkpoint, for families that have no rule of their own here.

What a picture becomes follows from its size alone: a blank one of that size is processed once, and tells how many units
there are, their tokens, and the text around them. So the index is the processor's own for every family.

A *unit* is a tile, float32 [3, side, side], or, for models that take pictures of any size, a whole picture as patches
row by row, float32 [patches, 3 * patch * patch].
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dhp.base.json_file import first_line
from dhp.data.errors import DataError

Pixels = npt.NDArray[np.uint8]  # [height, width, 3]
ANY_SIZE = ("mistral3",)


@dataclass(frozen=True)
class Borrowed:
    """A checkpoint folder whose processor is asked."""

    folder: str
    family: str
    patch_size: int


@dataclass(frozen=True)
class Facts:
    """What a picture of some size becomes."""

    grid: tuple[int, int, int]  # units, rows and columns of patches in each
    unit_rows: int  # tokens of each
    text: str  # in the place of the template's mark, a single mark for each run of tokens
    runs: tuple[int, ...]


def image_token(rule: Borrowed) -> str:
    """The mark of a picture in the chat template, which is repeated for its tokens."""
    return str(_processor(rule.folder).image_token)


@functools.lru_cache(1 << 16)
def facts(rule: Borrowed, height: int, width: int) -> Facts:
    """Raises DataError for a size that the processor refuses."""
    processor = _processor(rule.folder)
    given = _processed(rule, np.zeros((height, width, 3), np.uint8))
    mark = re.escape(image_token(rule))
    grown = processor.replace_image_token(given, 0)
    runs = tuple(len(run) // len(image_token(rule)) for run in re.findall(f"(?:{mark})+", grown))
    *_, pixel_rows, pixel_columns = _units(rule, given).shape
    units = 1 if rule.family in ANY_SIZE else len(_units(rule, given))
    patch = rule.patch_size
    if sum(runs) % units:
        raise DataError(f"{rule.folder}: its processor makes {sum(runs)} tokens of {units} units of a picture")
    text = re.sub(f"(?:{mark})+", lambda _: image_token(rule), grown)
    return Facts((units, pixel_rows // patch, pixel_columns // patch), sum(runs) // units, text, runs)


def read(rule: Borrowed, picture: Pixels, start: int, stop: int) -> torch.Tensor:
    """Units start ... stop-1 of a picture."""
    units = _units(rule, _processed(rule, picture))
    if rule.family not in ANY_SIZE:
        return units[start:stop].float()
    side = rule.patch_size
    _, _, rows, columns = units.shape
    patches = units[0].reshape(3, rows // side, side, columns // side, side).permute(1, 3, 0, 2, 4)
    return patches.reshape(-1, 3 * side * side).float() if stop > start else torch.empty(0, 3 * side * side)


def pixel_shape(rule: Borrowed) -> tuple[int, ...]:
    """Of what a unit's pixels are, behind the first axis."""
    if rule.family in ANY_SIZE:
        return (3 * rule.patch_size**2,)
    _, rows, columns = facts(rule, 64, 64).grid
    return (3, rows * rule.patch_size, columns * rule.patch_size)


def _units(rule: Borrowed, given: Any) -> torch.Tensor:
    """[units, 3, height, width], of one picture."""
    pixels = given["pixel_values"]
    if pixels.dim() == 5:  # Idefics3: tiles of the pictures of a sample
        return pixels[0]
    if rule.family in ANY_SIZE:
        height, width = (int(side) for side in given["image_sizes"][0])
        return pixels[:1, :, :height, :width]
    return pixels


def _processed(rule: Borrowed, picture: Pixels) -> Any:
    from PIL import Image

    kwargs = {"return_row_col_info": True} if rule.family in ("idefics3", "smolvlm") else {}
    try:
        return _processor(rule.folder).image_processor(images=[Image.fromarray(picture)], return_tensors="pt", **kwargs)
    except Exception as error:  # whatever a processor makes of an odd size
        raise DataError(
            f"the checkpoint's processor refuses a picture of {picture.shape[1]}x{picture.shape[0]} "
            f"({first_line(error)})"
        ) from None


@functools.cache
def _processor(folder: str) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except ImportError as error:
        raise DataError(f"{folder}: its processor needs a package that is missing ({first_line(error)})") from None
    except Exception as error:  # whatever transformers makes of an odd folder
        problem = f"{folder}: its processor cannot be loaded ({first_line(error)}); download its files again"
        raise DataError(problem) from None
