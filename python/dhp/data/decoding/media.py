"""Reading pictures and clips: their sizes (probe), and the pixel rows of some of their units (read_units), which are
made of decoded and resized pictures and frames (decode).

A *unit* is one temporal patch: a picture, or `temporal_patch_size` frames of a clip. It becomes rows*columns pixel rows
of `channels * temporal * patch * patch` numbers, in the order of Hugging Face's Qwen processors: merge blocks row by
row, inside a block its patches row by row, inside a patch channel, frame, y, x.

As Hugging Face's processors do, pictures are turned upright by their EXIF tag, and palette, grey and 16-bit pictures
become RGB; what is transparent lies on white. Clips are turned and mirrored by their display matrix, as ffmpeg does.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from dhp._core import internvl, qwen_vl
from dhp.data.access.files import check_file, check_pixels
from dhp.data.access.opening import Cache, opened_medium
from dhp.data.access.remembered import remembered
from dhp.data.decoding import borrowed, tiles
from dhp.data.decoding.borrowed import Borrowed
from dhp.data.decoding.clips import ClipInfo, read_frames
from dhp.data.decoding.png_orientation import orientation_of
from dhp.data.decoding.sounds import SoundRules, read_sound
from dhp.data.errors import DataError, MediumError
from dhp.data.formats.samples import Kind
from dhp.data.processor import PixelScale, Processor, load_processor, patch_rules
from dhp.task.layout import GridOfUnits

__all__ = [
    "ClipInfo",
    "Decoder",
    "Medium",
    "MediumError",
    "PixelReader",
    "decode",
    "part_size",
    "parts_of",
    "probe_image",
    "read_units",
    "rows_of",
]

Pixels = npt.NDArray[np.uint8]  # [height, width, 3], RGB
Image.init()
# Pillow has a program, Ghostscript, run what an EPS file says.
_FORMATS = tuple(sorted(Image.OPEN.keys() - {"EPS"}))
# Of size, which check_pixels limits, and of odd metadata: lines on the terminal that name no file.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class Medium(GridOfUnits):
    """A picture or clip of a sample, as the index describes it."""

    kind: Kind
    source: str | tuple[str, ...]  # a tuple: the frames of a video
    grid: tuple[int, int, int]  # temporal patches (units), rows, columns of patches
    height: int  # of the file, upright, in pixels; checked again on reading
    width: int
    fps: float | None = None  # of the file
    frame_indices: tuple[int, ...] = ()  # frame numbers in the file, temporal_patch_size for each unit; may repeat
    frame_pts: tuple[int, ...] = ()  # their time stamps in the file; empty: frames are found by counting
    key_pts: tuple[int, ...] = ()  # the key frame before each of them
    timestamps: tuple[float, ...] = field(default=())  # seconds from the clip's start, one per unit; none for pictures
    unit_rows: int = field(kw_only=True)  # tokens that each unit becomes
    unit_seconds: float = 0.0  # from one unit of a clip to the next
    last_rows: int | None = None  # of the last unit, where they differ
    last_patches: int | None = None
    mel_frames: int = 0  # of a sound
    seconds: float = 0.0  # that a clip lasts, where its family writes it into the text

    @property
    def patches(self) -> int:
        return self.unit_sizes.all_patches


def probe_image(path: str, roots: tuple[str, ...] = (), cache: Cache = None) -> tuple[int, int]:
    """(height, width) of the upright picture; only its header is read. Raises MediumError.

    Remembered as long as the file does not change: data sets ask many questions about one picture.
    """
    return _probe_image(path, *check_file(path, roots), cache)


@remembered(1 << 16)
def _probe_image(path: str, _changed_ns: int, _bytes: int, cache: Cache) -> tuple[int, int]:
    with _opened(path, cache) as picture:
        width, height = picture.size
        if picture.format == "TIFF":  # Pillow turns these itself, and states the upright size
            return height, width
        lies_on_its_side = orientation_of(picture) in (5, 6, 7, 8)
        return (width, height) if lies_on_its_side else (height, width)


def read_image(path: str, roots: tuple[str, ...] = (), cache: Cache = None) -> Pixels:
    """The upright picture in RGB. Raises MediumError."""
    check_file(path, roots)
    with _opened(path, cache, entire=True) as picture:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode.startswith("I;16") or upright.mode == "I":
            # Pillow would clip to 255 or refuse; the high byte is the picture.
            levels = np.clip(np.asarray(upright, dtype=np.int64), 0, 65535) >> 8
            return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)
        if "A" in upright.getbands() or upright.info.get("transparency") is not None:
            colours = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", colours.size, (255, 255, 255, 255)), colours)
        return np.array(upright.convert("RGB"))  # a copy: torch wants to be able to write


@contextlib.contextmanager
def _opened(path: str, cache: Cache = None, entire: bool = False) -> Iterator[Image.Image]:
    try:
        with opened_medium(path, cache, entire) as file, Image.open(file, formats=_FORMATS) as picture:
            check_pixels(path, *picture.size)
            yield picture
    except DataError:  # and MediumError
        raise
    except FileNotFoundError as error:
        raise MediumError(path, "no such file") from error
    except Image.UnidentifiedImageError as error:
        raise MediumError(path, "is not a picture in a known format") from error
    except Exception as error:  # PIL reports broken data as nearly anything
        raise MediumError(path, f"cannot be decoded: {_said(error)}") from error


def _said(error: Exception) -> str:
    """What an exception says; its name too where that says little, or where it is none of the usual ones."""
    usual = isinstance(error, (OSError, ValueError, SyntaxError, Image.DecompressionBombError))
    text = str(error)
    return text if usual and text else f"{type(error).__name__}: {text}"


Decoder = Callable[["Medium", Sequence[int], Processor], dict[int, Pixels]]


def read_units(
    medium: Medium, start: int, stop: int, processor: Processor, decoder: Decoder | None = None
) -> torch.Tensor:
    """Pixel rows of units start … stop-1: float32 [n_patches, channels * temporal * patch * patch].

    Of a clip, only what these units need is decoded: from the key frame before their first frame to their last frame.
    `decoder`: `decode`, or what gives the same. Raises MediumError for a file that is missing, broken or not the one
    that was indexed, ValueError for a bad range.
    """
    if not 0 <= start <= stop <= medium.units:
        raise ValueError(f"units {start} … {stop} asked of {medium.units}")
    if start == stop:
        return torch.empty(0, *unit_shape(processor))
    if medium.kind == "audio":
        assert processor.sound is not None, "the index has refused it"
        return _read_sound(medium, start, stop, processor, processor.sound)
    numbers = parts_of(medium, start, stop, processor)
    return rows_of(medium, start, stop, processor, (decoder or decode)(medium, numbers, processor))


# ---- parts: what is decoded of a medium -----------------------------------------------------------------------------


def parts_of(medium: Medium, start: int, stop: int, processor: Processor) -> tuple[int, ...]:
    """The parts that units need, ascending. A part is what decoding gives and what pixel rows are made of: a picture
    (0) or a frame of a clip (by its number in the file), resized; of pictures in tiles, a tile (by its unit); for
    families whose processor is asked, a picture as it is."""
    if medium.kind == "video":
        is_tile = isinstance(processor.rules, internvl.Rules | Borrowed)
        per_unit = 1 if is_tile else int(patch_rules(processor).temporal_patch_size)
        return tuple(sorted(set(medium.frame_indices[start * per_unit : stop * per_unit])))
    return tuple(range(start, stop)) if isinstance(processor.rules, internvl.Rules) else (0,)


def part_size(medium: Medium, processor: Processor) -> tuple[int, int]:
    """Height and width of a part, in pixels."""
    if isinstance(processor.rules, internvl.Rules):
        return (int(processor.rules.tile_size),) * 2
    if isinstance(processor.rules, Borrowed):
        if medium.kind == "video":
            return (borrowed.tile_side(processor.rules),) * 2
        return medium.height, medium.width
    patch = int(patch_rules(processor).patch_size)
    return medium.grid[1] * patch, medium.grid[2] * patch


def decode(medium: Medium, numbers: Sequence[int], processor: Processor) -> dict[int, Pixels]:
    """These parts, by number: uint8 [height, width, 3] of `part_size`. Raises MediumError."""
    if medium.kind == "video" and processor.video is None:
        raise MediumError(str(medium.source), "is a video, but the checkpoint folder has no video processor")
    height, width = part_size(medium, processor)
    access = processor.media_roots, processor.media_cache

    def resize(pixels: Pixels) -> Pixels:
        pixels = _checked(medium, pixels)
        if medium.kind == "video" and processor.clip_side:
            size = borrowed.smolvlm_size(medium.height, medium.width, processor.clip_side)
            pixels = _resized(medium, pixels, *size, processor.clip_filter)
        return _resized(medium, pixels, height, width, processor.clip_filter)

    if medium.kind == "image":
        assert isinstance(medium.source, str)
        picture = read_image(medium.source, *access)
        if isinstance(processor.rules, internvl.Rules):
            return tiles.cut(_checked(medium, picture), medium.units, processor, numbers)
        return {0: _checked(medium, picture) if isinstance(processor.rules, Borrowed) else resize(picture)}
    if isinstance(medium.source, tuple):
        return {number: resize(read_image(medium.source[number], *access)) for number in numbers}
    stamps: list[int] = []
    keys: list[int] = []
    if medium.frame_pts:
        at = {number: place for place, number in enumerate(medium.frame_indices)}
        stamps = [medium.frame_pts[at[number]] for number in numbers]
        keys = [medium.key_pts[at[number]] for number in numbers]
    return read_frames(medium.source, numbers, stamps, keys, resize, *access)


def rows_of(medium: Medium, start: int, stop: int, processor: Processor, parts: Mapping[int, Pixels]) -> torch.Tensor:
    """Pixel rows of units start … stop-1, at least one, of their parts."""
    is_clip = medium.kind == "video"
    if isinstance(processor.rules, Borrowed) and not is_clip:
        is_alone = borrowed.is_alone(processor.rules, medium.grid)
        return borrowed.read(processor.rules, parts[0], start, stop, is_alone)
    scale = processor.video if is_clip else processor.image
    assert scale is not None, "decode() has refused it"
    if isinstance(processor.rules, internvl.Rules | Borrowed):
        numbers: Sequence[int] = medium.frame_indices[start:stop] if is_clip else range(start, stop)
        return tiles.stacked([parts[number] for number in numbers], scale, is_clip, _normalise)
    rules = patch_rules(processor)
    temporal, patch = int(rules.temporal_patch_size), int(rules.patch_size)
    order = medium.frame_indices[start * temporal : stop * temporal] if is_clip else [0] * temporal
    stacked = np.stack([parts[number] for number in order])  # [frames, height, width, 3]
    levels = _patchify(stacked, temporal, patch, int(rules.merge_size))
    return torch.from_numpy(_normalise(levels, scale, fused=is_clip).reshape(-1, *unit_shape(processor)))


def unit_shape(processor: Processor) -> tuple[int, ...]:
    """Of what a unit's pixels are, behind the first axis; () for a model that takes none, and for one that hears: its
    patches and mel frames, which are of other widths, are numbers in a row."""
    rules = processor.rules
    if isinstance(rules, internvl.Rules):
        return (3, int(rules.tile_size), int(rules.tile_size))
    if isinstance(rules, Borrowed):
        return borrowed.pixel_shape(rules)
    return () if rules is None or processor.sound else (_patch_width(rules),)


def _patch_width(rules: qwen_vl.Rules) -> int:
    return 3 * int(rules.temporal_patch_size) * int(rules.patch_size) ** 2


def _patches_a_row(processor: Processor) -> int:
    """Patches of what has the shape of unit_shape()."""
    rules = processor.rules
    if isinstance(rules, internvl.Rules):
        return int(rules.patches_per_tile)
    if isinstance(rules, Borrowed) and len(shape := borrowed.pixel_shape(rules)) > 1:
        return int(shape[1] // rules.patch_size) ** 2
    return 1


def _read_sound(medium: Medium, start: int, stop: int, processor: Processor, sound: SoundRules) -> torch.Tensor:
    """float32 [numbers]: of mel frames, one behind the other."""
    assert isinstance(medium.source, str)
    span = _mel_range(medium, start, stop, sound)
    access = processor.media_roots, processor.media_cache
    return read_sound(medium.source, medium.mel_frames, *span, sound, *access).flatten()


def _mel_range(medium: Medium, start: int, stop: int, sound: SoundRules) -> tuple[int, int]:
    return start * sound.chunk, min(stop * sound.chunk, medium.mel_frames)


def _checked(medium: Medium, pixels: Pixels) -> Pixels:
    height, width, _ = pixels.shape
    if (height, width) != (medium.height, medium.width):
        name = medium.source if isinstance(medium.source, str) else medium.source[0]
        raise MediumError(name, f"is {width}x{height}, but was {medium.width}x{medium.height} when it was indexed")
    return pixels


def _resized(medium: Medium, pixels: Pixels, height: int, width: int, mode: str = "bicubic") -> Pixels:
    """Bicubic (frames of clips: `mode`) with antialiasing, by the library that Hugging Face uses for the kind: Pillow
    for pictures, torch (which is what torchvision calls) for frames of clips. They differ by a level or two here and
    there."""
    if medium.kind == "image":
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    if pixels.shape[:2] == (height, width):
        return pixels
    frame = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    smaller = torch.nn.functional.interpolate(frame, size=(height, width), mode=_known_mode(mode), antialias=True)
    return np.asarray(smaller[0].permute(1, 2, 0).numpy())


@functools.cache
def _known_mode(mode: str) -> str:
    """Older releases of torch have no Lanczos; transformers takes bicubic then."""
    try:
        torch.nn.functional.interpolate(torch.zeros(1, 1, 4, 4), size=(2, 2), mode=mode, antialias=True)
    except (NotImplementedError, ValueError):
        return "bicubic"
    return mode


def _patchify(frames: Pixels, temporal: int, patch: int, merge: int) -> Pixels:
    """[frames, height, width, 3] -> [n_patches, 3, temporal * patch * patch], levels still."""
    count, height, width, _ = frames.shape
    blocks = frames.reshape(
        count // temporal,
        temporal,
        height // (patch * merge),
        merge,
        patch,
        width // (patch * merge),
        merge,
        patch,
        3,
    )
    # unit, block row, block column, row and column in the block | channel, frame, y, x
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return ordered.reshape(-1, 3, temporal * patch * patch)


def _normalise(levels: Pixels, scale: PixelScale, fused: bool) -> npt.NDArray[np.float32]:
    """Levels [n, 3, m] -> numbers, rounded as Hugging Face rounds: its picture processor rescales in float64 and
    normalises in float32; its video processor folds the rescaling into mean and deviation ("fused")."""
    mean = np.asarray(scale.mean, dtype=np.float32)[:, None]
    std = np.asarray(scale.std, dtype=np.float32)[:, None]
    if fused:
        inverse = np.float32(1.0 / scale.rescale)
        out = levels.astype(np.float32)
        mean, std = mean * inverse, std * inverse
    else:
        out = np.empty(levels.shape, dtype=np.float32)
        np.multiply(levels, scale.rescale, dtype=np.float64, out=out, casting="same_kind")
    out -= mean
    out /= std
    return out


class PixelReader:
    """`read_units` with the processor of one checkpoint folder. May be shared between threads.

    decoder  what decodes, where it is not `decode`
    """

    def __init__(self, model: str | os.PathLike[str] | Processor, decoder: Decoder | None = None) -> None:
        self.processor = model if isinstance(model, Processor) else load_processor(model)
        self.shape = unit_shape(self.processor)  # of what a unit's pixels are, behind the first axis
        self._decoder = decoder

    def blank(self, medium: Medium, start: int, stop: int) -> torch.Tensor:
        """What stands in the place of units start … stop-1 that cannot be read. Ones: Idefics3 takes tiles of zeros for
        padding, and leaves them out."""
        units = stop - start
        if sound := self.processor.sound:
            first, last = _mel_range(medium, start, stop, sound)
            if medium.kind == "audio":
                return torch.ones((last - first) * sound.bins)
            return torch.ones(units * medium.unit_patches * _patch_width(patch_rules(self.processor)))
        return torch.ones(units * medium.unit_patches // _patches_a_row(self.processor), *self.shape)

    def read_units(self, medium: Medium, start: int, stop: int) -> torch.Tensor:
        """float32 [n_patches, patch_width]; see `read_units` of this module."""
        return read_units(medium, start, stop, self.processor, self._decoder)
