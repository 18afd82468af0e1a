"""Reading pictures and clips: their sizes (probe), and the pixel rows of some of their units (read_units).

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from dhp._core import internvl
from dhp.data import borrowed, tiles
from dhp.data.borrowed import Borrowed
from dhp.data.clips import ClipInfo, read_frames
from dhp.data.errors import MediumError
from dhp.data.files import check_file, check_pixels
from dhp.data.pieces import file_of, readable
from dhp.data.png_orientation import orientation_of
from dhp.data.processor import PixelScale, Processor, load_processor, patch_rules, tile_rules
from dhp.data.remembered import remembered
from dhp.data.samples import Kind
from dhp.data.sounds import SoundRules, read_sound
from dhp.task.layout import MediumUnits

__all__ = ["ClipInfo", "Medium", "MediumError", "PixelReader", "probe_image", "read_units"]

Pixels = npt.NDArray[np.uint8]  # [height, width, 3], RGB
Image.init()
# Pillow has a program, Ghostscript, run what an EPS file says.
_FORMATS = tuple(sorted(Image.OPEN.keys() - {"EPS"}))
# Of size, which check_pixels limits, and of odd metadata: lines on the terminal that name no file.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class Medium:
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
    def units(self) -> int:
        return self.grid[0]

    @property
    def unit_patches(self) -> int:
        return self.grid[1] * self.grid[2]

    @property
    def unit_sizes(self) -> MediumUnits:
        return MediumUnits(self.units, self.unit_rows, self.unit_patches, self.last_rows, self.last_patches)

    @property
    def patches(self) -> int:
        return self.unit_sizes.all_patches


def probe_image(path: str, roots: tuple[str, ...] = ()) -> tuple[int, int]:
    """(height, width) of the upright picture; only its header is read. Raises MediumError.

    Remembered as long as the file does not change: data sets ask many questions about one picture.
    """
    check_file(path, roots)
    try:
        about = os.stat(file_of(path))
    except OSError:
        return _probe_image(path, 0, 0)  # says what is wrong
    return _probe_image(path, about.st_mtime_ns, about.st_size)


@remembered(1 << 16)
def _probe_image(path: str, _changed_ns: int, _bytes: int) -> tuple[int, int]:
    with _opened(path, ()) as picture:
        width, height = picture.size
        if picture.format == "TIFF":  # Pillow turns these itself, and states the upright size
            return height, width
        lies_on_its_side = orientation_of(picture) in (5, 6, 7, 8)
        return (width, height) if lies_on_its_side else (height, width)


def read_image(path: str, roots: tuple[str, ...] = ()) -> Pixels:
    """The upright picture in RGB. Raises MediumError."""
    with _opened(path, roots) as picture:
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
def _opened(path: str, roots: tuple[str, ...]) -> Iterator[Image.Image]:
    check_file(path, roots)
    try:
        with readable(path) as file, Image.open(file, formats=_FORMATS) as picture:
            check_pixels(path, *picture.size)
            yield picture
    except MediumError:
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


def read_units(medium: Medium, start: int, stop: int, processor: Processor) -> torch.Tensor:
    """Pixel rows of units start … stop-1: float32 [n_patches, channels * temporal * patch * patch].

    Of a clip, only what these units need is decoded: from the key frame before their first frame to their last frame.
    Raises MediumError for a file that is missing, broken or not the one that was indexed, ValueError for a bad range.
    """
    if not 0 <= start <= stop <= medium.units:
        raise ValueError(f"units {start} … {stop} asked of {medium.units}")
    if isinstance(processor.rules, internvl.Rules):
        return _read_tiles(medium, start, stop, processor)
    if isinstance(processor.rules, Borrowed):
        if medium.kind == "video":
            return _read_frames(medium, start, stop, processor, borrowed.tile_side(processor.rules))
        assert isinstance(medium.source, str)
        picture = _checked(medium, read_image(medium.source, processor.media_roots))
        return borrowed.read(processor.rules, picture, start, stop, borrowed.is_alone(processor.rules, medium.grid))
    if processor.sound is not None:  # numbers in a row, since patches and mel frames are of other widths
        return _read_numbers(medium, start, stop, processor, processor.sound)
    return _read_patches(medium, start, stop, processor)


def _read_numbers(medium: Medium, start: int, stop: int, processor: Processor, sound: SoundRules) -> torch.Tensor:
    """float32 [numbers]: of patches, or of mel frames, one row behind the other."""
    if medium.kind != "audio":
        return _read_patches(medium, start, stop, processor).flatten()
    if start == stop:
        return torch.empty(0)
    assert isinstance(medium.source, str)
    first, last = _mel_range(medium, start, stop, sound)
    return read_sound(medium.source, medium.mel_frames, first, last, sound, processor.media_roots).flatten()


def _mel_range(medium: Medium, start: int, stop: int, sound: SoundRules) -> tuple[int, int]:
    return start * sound.chunk, min(stop * sound.chunk, medium.mel_frames)


def _read_patches(medium: Medium, start: int, stop: int, processor: Processor) -> torch.Tensor:
    """float32 [n_patches, channels * temporal * patch * patch]."""
    rules = patch_rules(processor)
    temporal, patch = int(rules.temporal_patch_size), int(rules.patch_size)
    width = 3 * temporal * patch * patch
    if start == stop:
        return torch.empty(0, width)
    _, rows, columns = medium.grid
    scale = processor.image if medium.kind == "image" else processor.video
    if scale is None:
        raise MediumError(str(medium.source), "is a video, but the checkpoint folder has no video processor")

    def resize(pixels: Pixels) -> Pixels:
        return _resized(medium, _checked(medium, pixels), rows * patch, columns * patch)

    resized = _frames(medium, start, stop, temporal, resize, processor.media_roots)
    order = _order(medium, start, stop, temporal)
    stacked = np.stack([resized[number] for number in order])  # [frames, height, width, 3]
    levels = _patchify(stacked, temporal, patch, int(rules.merge_size))
    return torch.from_numpy(_normalise(levels, scale, fused=medium.kind == "video").reshape(-1, width))


def _read_tiles(medium: Medium, start: int, stop: int, processor: Processor) -> torch.Tensor:
    """float32 [units, 3, side, side]."""
    side = int(tile_rules(processor).tile_size)
    if medium.kind == "video":
        return _read_frames(medium, start, stop, processor, side)
    if start == stop:
        return torch.empty(0, 3, side, side)
    assert processor.image and isinstance(medium.source, str)
    picture = _checked(medium, read_image(medium.source, processor.media_roots))
    return tiles.stacked(tiles.cut(picture, medium.units, processor, start, stop), processor.image, False, _normalise)


def _read_frames(medium: Medium, start: int, stop: int, processor: Processor, side: int) -> torch.Tensor:
    """float32 [frames, 3, side, side], of a clip."""
    if start == stop:
        return torch.empty(0, 3, side, side)
    scale = processor.video
    if scale is None:
        raise MediumError(str(medium.source), "is a video, but the checkpoint folder has no video processor")

    def resize(pixels: Pixels) -> Pixels:
        pixels = _checked(medium, pixels)
        if processor.clip_side:
            size = borrowed.smolvlm_size(pixels.shape[0], pixels.shape[1], processor.clip_side)
            pixels = _resized(medium, pixels, *size, processor.clip_filter)
        return _resized(medium, pixels, side, side, processor.clip_filter)

    frames = _frames(medium, start, stop, 1, resize, processor.media_roots)
    return tiles.stacked([frames[n] for n in medium.frame_indices[start:stop]], scale, True, _normalise)


def _order(medium: Medium, start: int, stop: int, temporal: int) -> Sequence[int]:
    """Frame numbers of the units; a picture is its own frame 0, repeated."""
    if medium.kind == "image":
        return [0] * temporal
    return medium.frame_indices[start * temporal : stop * temporal]


def _frames(
    medium: Medium, start: int, stop: int, temporal: int, shrink: Callable[[Pixels], Pixels], roots: tuple[str, ...]
) -> dict[int, Pixels]:
    """The distinct frames of the units, by frame number, each shrunk as soon as it is decoded."""
    if medium.kind == "image":
        assert isinstance(medium.source, str)
        return {0: shrink(read_image(medium.source, roots))}
    wanted = slice(start * temporal, stop * temporal)
    numbers = medium.frame_indices[wanted]
    if isinstance(medium.source, tuple):
        return {number: shrink(read_image(medium.source[number], roots)) for number in sorted(set(numbers))}
    return read_frames(medium.source, numbers, medium.frame_pts[wanted], medium.key_pts[wanted], shrink, roots)


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
    """`read_units` with the processor of one checkpoint folder. May be shared between threads."""

    def __init__(self, model: str | os.PathLike[str] | Processor) -> None:
        self.processor = model if isinstance(model, Processor) else load_processor(model)
        rules = self.processor.rules
        # of what a unit's pixels are, behind the first axis
        self.shape: tuple[int, ...] = ()
        self._patches = 1  # of what has this shape
        if isinstance(rules, internvl.Rules):
            self.shape = (3, rules.tile_size, rules.tile_size)
            self._patches = rules.patches_per_tile
        elif isinstance(rules, Borrowed):
            self.shape = borrowed.pixel_shape(rules)
            if len(self.shape) > 1:
                self._patches = (self.shape[1] // rules.patch_size) ** 2
        elif rules is not None and self.processor.sound is None:
            self.shape = (3 * int(rules.temporal_patch_size) * int(rules.patch_size) ** 2,)

    def blank(self, medium: Medium, start: int, stop: int) -> torch.Tensor:
        """What stands in the place of units start … stop-1 that cannot be read. Ones: Idefics3 takes tiles of zeros for
        padding, and leaves them out."""
        units = stop - start
        if sound := self.processor.sound:
            first, last = _mel_range(medium, start, stop, sound)
            rules = patch_rules(self.processor)
            width = 3 * int(rules.temporal_patch_size) * int(rules.patch_size) ** 2
            heard = medium.kind == "audio"
            return torch.ones((last - first) * sound.bins if heard else units * medium.unit_patches * width)
        return torch.ones(units * medium.unit_patches // self._patches, *self.shape)

    def read_units(self, medium: Medium, start: int, stop: int) -> torch.Tensor:
        """float32 [n_patches, patch_width]; see `read_units` of this module."""
        return read_units(medium, start, stop, self.processor)
