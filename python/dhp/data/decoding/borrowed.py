"""Pictures by Hugging Face's own processor of a checkpoint, for families that have no rule of their own here.

What a picture becomes follows from its size alone: a blank one of that size is processed once, and tells how many units
there are, their tokens, and the text around them. So the index is the processor's own for every family.

A *unit* is a tile, float32 [3, side, side], or, for models that take pictures of any size, a whole picture as patches
row by row, float32 [patches, 3 * patch * patch]. Of LLaVA-OneVision, a unit is a picture with all its tiles, float32
[tiles, 3, side, side], of which its grid is made as if they stood one below the other; or a frame of a clip.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dhp._core import InputError
from dhp.base.json_file import first_line, read_object
from dhp.data.errors import DataError

Pixels = npt.NDArray[np.uint8]  # [height, width, 3]
ANY_SIZE = ("mistral3",)
WHOLE = ("llava_onevision",)  # a picture with all its tiles is a unit
WITH_CLIPS = ("llava_onevision", "smolvlm")
_MOST_SIDE = 4096  # MAX_IMAGE_SIZE of transformers' SmolVLM


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
    return str(_processor(rule).image_token)


def video_token(rule: Borrowed) -> str:
    """Of a clip; empty where no clips are read."""
    return str(_processor(rule).video_token) if rule.family in WITH_CLIPS else ""


@functools.lru_cache(1 << 16)
def facts(rule: Borrowed, height: int, width: int, alone: bool = True) -> Facts:
    """`alone`: no other picture stands in its sample. Raises DataError for a size that the processor refuses."""
    processor = _processor(rule)
    given = _processed(rule, np.zeros((height, width, 3), np.uint8), alone)
    mark = re.escape(image_token(rule))
    grown = processor.replace_image_token(given, 0)
    runs = tuple(len(run) // len(image_token(rule)) for run in re.findall(f"(?:{mark})+", grown))
    tiles, _, pixel_rows, pixel_columns = _units(rule, given).shape
    units = 1 if rule.family in ANY_SIZE + WHOLE else tiles
    patch = rule.patch_size
    grid = (units, pixel_rows // patch * (tiles if rule.family in WHOLE else 1), pixel_columns // patch)
    if sum(runs) % units:
        raise DataError(f"{rule.folder}: its processor makes {sum(runs)} tokens of {units} units of a picture")
    text = re.sub(f"(?:{mark})+", lambda _: image_token(rule), grown)
    return Facts(grid, sum(runs) // units, text, runs)


def is_alone(rule: Borrowed, grid: tuple[int, int, int]) -> bool:
    """Whether a picture of this grid is the only one of its sample, where that matters: others are one tile."""
    return rule.family not in WHOLE or grid[1] * rule.patch_size > tile_side(rule)


def clip_rows(rule: Borrowed) -> tuple[int, int]:
    """Tokens of each frame of a clip but the last, and of that."""
    if rule.family not in WHOLE:
        rows = int(_processor(rule).image_seq_len)
        return rows, rows
    first, second = (_clip_tokens(rule, frames) for frames in (1, 2))
    return second - first, first


def _clip_tokens(rule: Borrowed, frames: int) -> int:
    pixels = [torch.empty(frames, 3, 1, 1, device="meta")]
    return str(_processor(rule).replace_video_token({"pixel_values_videos": pixels}, 0)).count(video_token(rule))


def clip_text(rule: Borrowed, timestamps: Sequence[float], seconds: float) -> tuple[str, tuple[int, ...]]:
    """What stands for a clip with frames at these seconds, of so many: a single mark for each run of tokens, and their
    numbers."""
    from transformers.video_utils import VideoMetadata

    frames: Any = list(timestamps)  # one a second, so that they are their own numbers
    metadata = VideoMetadata(total_num_frames=len(frames), fps=1.0, duration=seconds, frames_indices=frames)
    pixels = torch.empty(1, len(frames), 3, 1, 1, device="meta")
    grown = _processor(rule).replace_video_token({"pixel_values": pixels, "video_metadata": [metadata]}, 0)
    mark = re.escape(image_token(rule))
    runs = tuple(len(run) // len(image_token(rule)) for run in re.findall(f"(?:{mark})+", grown))
    return re.sub(f"(?:{mark})+", lambda _: image_token(rule), grown), runs


def smolvlm_frames(total: int, fps: float, wanted_fps: float, most: int) -> list[int]:
    """Source: `sample_frames` of transformers' SmolVLMVideoProcessor: at equal distances, without the first and last
    second of a long clip."""
    seconds = total / fps
    count = max(1, min(round(wanted_fps * seconds), most))
    first, last = 0, total - 1
    if seconds - 2 > most * wanted_fps:
        first, last = int(fps), min(int(total - fps), total - 1)
    if first >= last:
        first, last = 0, total - 1
    return [int(number) for number in np.unique(np.linspace(first, last, count, dtype=int))]


def smolvlm_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Of a frame, before it becomes a tile. Source: `get_resize_output_image_size` of the same file."""
    longest = min(longest, _MOST_SIDE)
    ratio = width / height
    if width >= height:
        shorter = int(longest / ratio)
        return max(1, shorter + shorter % 2), longest
    shorter = int(longest * ratio)
    return longest, max(1, shorter + shorter % 2)


def clip_frames(total: int, fps: float, wanted_fps: float | None, wanted: int | None) -> list[int]:
    """Frames that transformers' video processors take unless they have a rule of their own (video_utils.py:
    default_sample_indices_fn): at equal distances; all, where neither a rate nor a number is given."""
    if wanted is None:
        wanted = max(1, int(total / fps * wanted_fps)) if wanted_fps else total
    if wanted > total:
        raise InputError(f"found {wanted} sampled of {total}, expected no more than there are")
    return [number * total // wanted for number in range(wanted)]


def read(rule: Borrowed, picture: Pixels, start: int, stop: int, alone: bool = True) -> torch.Tensor:
    """Units start ... stop-1 of a picture."""
    units = _units(rule, _processed(rule, picture, alone))
    if rule.family in WHOLE:
        return units.float() if stop > start else units[:0].float()
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
    side = tile_side(rule)
    return (3, side, side)


@functools.lru_cache(16)
def tile_side(rule: Borrowed) -> int:
    """In pixels."""
    *_, side = _units(rule, _processed(rule, np.zeros((64, 64, 3), np.uint8))).shape
    return int(side)


def _units(rule: Borrowed, given: Any) -> torch.Tensor:
    """[units, 3, height, width], of one picture."""
    pixels = given["pixel_values"]
    if pixels.dim() == 5:  # Idefics3: tiles of the pictures of a sample; LLaVA-OneVision: of each picture
        return pixels[0]
    if rule.family in ANY_SIZE:
        height, width = (int(side) for side in given["image_sizes"][0])
        return pixels[:1, :, :height, :width]
    return pixels


def _processed(rule: Borrowed, picture: Pixels, alone: bool = True) -> Any:
    from PIL import Image

    kwargs = {"return_row_col_info": True} if rule.family in ("idefics3", "smolvlm") else {}
    images: list[Any] = [Image.fromarray(picture)]
    if rule.family in WHOLE and not alone:
        images = [[*images, Image.new("RGB", (1, 1))]]
    try:
        return _processor(rule).image_processor(images=images, return_tensors="pt", **kwargs)
    except Exception as error:  # whatever a processor makes of an odd size
        raise DataError(
            f"the checkpoint's processor refuses a picture of {picture.shape[1]}x{picture.shape[0]} "
            f"({first_line(error)})"
        ) from None


@functools.cache
def _processor(rule: Borrowed) -> Any:
    from transformers import AutoProcessor

    folder = rule.folder
    try:
        if rule.family in WHOLE:
            return _without_clips(rule)
        return AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except ImportError as error:
        raise DataError(f"{folder}: its processor needs a package that is missing ({first_line(error)})") from None
    except Exception as error:  # whatever transformers makes of an odd folder
        problem = f"{folder}: its processor cannot be loaded ({first_line(error)}); download its files again"
        raise DataError(problem) from None


def _without_clips(rule: Borrowed) -> Any:
    """The processor without its constructor, which insists on a video processor, and that on torchvision."""
    from transformers import AutoImageProcessor, LlavaOnevisionProcessor

    made: Any = object.__new__(LlavaOnevisionProcessor)
    made.image_processor = AutoImageProcessor.from_pretrained(
        rule.folder, trust_remote_code=False, local_files_only=True
    )
    made.image_token, made.video_token, made.vision_aspect_ratio = "<image>", "<video>", "anyres_max_9"
    for key, value in read_object(Path(rule.folder) / "processor_config.json").items():
        if not isinstance(value, dict):
            setattr(made, key, value)
    return made
