"""From a medium as the data file names it to a Medium with its grid, frames and time stamps, by the core's rule."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from dhp._core import InputError, internvl, qwen_vl
from dhp.data.decoding import borrowed, tiles
from dhp.data.decoding.borrowed import Borrowed
from dhp.data.decoding.clips import probe_clip
from dhp.data.decoding.media import Medium, probe_image
from dhp.data.decoding.sounds import probe_sound
from dhp.data.errors import DataError, MediumError, RequestError
from dhp.data.formats.samples import MediumRef
from dhp.data.processor import Processor, patch_rules, tile_rules

_FRAME_SLACK = 1e-6  # of a frame: 0.1 s at 30 fps is frame 3, although 0.1 * 30 > 3 in floating point


def probe_medium(ref: MediumRef, processor: Processor) -> Medium:
    """Opens the medium's file, but decodes no more than one frame. Raises MediumError, or DataError where the
    checkpoint has no rule for it."""
    try:
        return _probe(ref, processor)
    except DataError:
        raise
    except InputError as error:  # of the core's rule, which knows no file
        name = ref.source if isinstance(ref.source, str) else ref.source[0]
        raise MediumError(name, str(error)) from None


def _probe(ref: MediumRef, processor: Processor) -> Medium:
    if processor.rules is None:
        raise DataError(f"a model of kind {processor.family} takes text alone; remove the {ref.kind}")
    if isinstance(processor.rules, Borrowed):
        if ref.kind == "video" and processor.video is None:
            raise DataError(f"clips are not read for models of kind {processor.family}; give pictures")
        if ref.max_pixels is not None:
            name = ref.source if isinstance(ref.source, str) else ref.source[0]
            raise RequestError(name, f"max_pixels does not apply to models of kind {processor.family}")
    if ref.kind == "audio":
        return _sound(ref, processor)
    by_time = isinstance(processor.rules, qwen_vl.Rules) and processor.rules.processor == qwen_vl.Processor.glm4v
    if by_time and ref.nframes is not None:
        name = ref.source if isinstance(ref.source, str) else ref.source[0]
        raise RequestError(name, f"nframes does not apply to models of kind {processor.family}; give fps")
    if ref.kind == "image":
        assert isinstance(ref.source, str)
        height, width = probe_image(ref.source, processor.media_roots, processor.media_cache)
        if isinstance(processor.rules, Borrowed):
            found = borrowed.facts(processor.rules, height, width, ref.alone)
            return Medium("image", ref.source, found.grid, height, width, unit_rows=found.unit_rows)
        if isinstance(processor.rules, internvl.Rules):
            tiled = tiles.picture_grid(ref, processor, height, width)
            return Medium("image", ref.source, tiled, height, width, unit_rows=processor.rules.tokens_per_tile)
        grid = qwen_vl.image_grid(patch_rules(processor), height, width, ref.max_pixels)
        return Medium(
            "image", ref.source, (1, grid.height, grid.width), height, width, unit_rows=_rows(grid, processor)
        )
    if processor.video is None:
        raise DataError(f"{processor.folder}: no video_preprocessor_config.json, so no rule for videos")
    return _frame_list(ref, processor) if isinstance(ref.source, tuple) else _clip(ref, processor)


def _sound(ref: MediumRef, processor: Processor) -> Medium:
    if processor.sound is None:
        raise DataError(f"a model of kind {processor.family} hears nothing; remove the audio")
    assert isinstance(ref.source, str)
    mel_frames, units = probe_sound(ref.source, processor.sound, processor.media_roots, processor.media_cache)
    return Medium(
        "audio",
        ref.source,
        (units.units, 1, units.patches),
        0,
        0,
        unit_rows=units.rows,
        last_rows=units.last_rows,
        last_patches=units.last_patches,
        mel_frames=mel_frames,
    )


def _frame_list(ref: MediumRef, processor: Processor) -> Medium:
    """All frames are used. `fps`, where given, is the rate they were taken at; else the rule's sampling rate."""
    assert isinstance(ref.source, tuple)
    sizes = [probe_image(path, processor.media_roots, processor.media_cache) for path in ref.source]
    height, width = sizes[0]
    for path, size in zip(ref.source, sizes, strict=True):
        if size != (height, width):
            raise MediumError(path, f"is {size[1]}x{size[0]}, but the video's first frame is {width}x{height}")
    if not isinstance(processor.rules, qwen_vl.Rules):
        return _tiled(ref, processor, height, width, len(sizes), ref.fps or 1.0, all_frames=True)
    fps = ref.fps or float(patch_rules(processor).fps)
    sampling = qwen_vl.Sampling(frames=len(sizes), max_pixels=ref.max_pixels)
    return _sampled(ref, processor, height, width, len(sizes), fps, sampling)


def _clip(ref: MediumRef, processor: Processor) -> Medium:
    assert isinstance(ref.source, str)
    info = probe_clip(ref.source, processor.media_roots, processor.media_cache)
    first, frames = _cut(ref, info.frames, info.fps)
    if ref.nframes is not None and ref.nframes > frames:
        raise RequestError(
            ref.source, f"nframes asks for {ref.nframes} of {frames} frames; ask for no more than there are"
        )
    if not isinstance(processor.rules, qwen_vl.Rules):
        medium = _tiled(ref, processor, info.height, info.width, frames, info.fps, first)
        stamps, keys = info.locate(medium.frame_indices)
        return replace(medium, frame_pts=stamps, key_pts=keys)
    least = int(patch_rules(processor).temporal_patch_size)
    if (ref.nframes or least) < least or (frames < least <= info.frames):
        asked = f"nframes asks for {ref.nframes}" if ref.nframes else "video_start and video_end leave 1"
        raise RequestError(ref.source, f"{asked} of {info.frames} frames; a clip has at least {least}")
    nframes = frames if ref.fps is None and ref.nframes is None and not processor.samples_frames else ref.nframes
    sampling = qwen_vl.Sampling(fps=ref.fps, frames=nframes, max_pixels=ref.max_pixels)
    medium = _sampled(ref, processor, info.height, info.width, frames, info.fps, sampling, first)
    stamps, keys = info.locate(medium.frame_indices)
    return replace(medium, frame_pts=stamps, key_pts=keys)


def _cut(ref: MediumRef, frames: int, fps: float) -> tuple[int, int]:
    """(first frame, number of frames) between video_start and video_end, both ends included, as in qwen-vl-utils
    (`vision_process.py: calculate_video_frame_range`). An end beyond the file is the file's end."""
    first = math.ceil((ref.video_start or 0.0) * fps - _FRAME_SLACK)
    last = frames - 1
    if ref.video_end is not None:
        last = min(last, math.floor(ref.video_end * fps + _FRAME_SLACK))
    if first > last:
        raise RequestError(
            str(ref.source),
            f"has no frame from video_start {ref.video_start or 0.0} s to video_end "
            f"{'(its end)' if ref.video_end is None else f'{ref.video_end} s'}: it lasts {frames / fps:.2f} s",
        )
    return first, last - first + 1


def _sampled(
    ref: MediumRef,
    processor: Processor,
    height: int,
    width: int,
    frames: int,
    fps: float,
    sampling: qwen_vl.Sampling,
    first: int = 0,
) -> Medium:
    rules = patch_rules(processor)
    clip = qwen_vl.sample_clip(rules, height, width, frames, fps, sampling)
    grid = (clip.grid.frames, clip.grid.height, clip.grid.width)
    indices = [first + number for number in clip.frame_indices]
    indices += indices[-1:] * (grid[0] * int(rules.temporal_patch_size) - len(indices))
    stamps = tuple(clip.timestamps_s)
    medium = Medium(
        "video", ref.source, grid, height, width, fps, tuple(indices), unit_rows=_rows(clip.grid, processor)
    )
    if rules.processor != qwen_vl.Processor.qwen2_vl:
        return replace(medium, timestamps=stamps)
    if processor.sound is not None:  # Qwen2.5-Omni: by the frames asked for a second, two where none are
        return replace(medium, unit_seconds=rules.temporal_patch_size / (ref.fps or 2.0))
    # transformers: temporal_patch_size by the frames taken a second
    seconds = rules.temporal_patch_size / (len(clip.frame_indices) / frames * fps)
    return replace(medium, unit_seconds=seconds)


def _tiled(
    ref: MediumRef,
    processor: Processor,
    height: int,
    width: int,
    frames: int,
    fps: float,
    first: int = 0,
    all_frames: bool = False,
) -> Medium:
    chosen = ref.fps or ref.nframes or processor.samples_frames
    if isinstance(processor.rules, Borrowed):
        numbers = list(range(frames))
        if chosen and not all_frames:
            numbers = _borrowed_frames(ref, processor, processor.rules, frames, fps)
        return _borrowed_clip(ref, processor.rules, numbers, (height, width), frames, fps, first)
    if all_frames or not chosen:
        grid, indices = tiles.clip_grid(replace(ref, fps=None, nframes=frames), processor, frames, fps, first)
    else:
        grid, indices = tiles.clip_grid(ref, processor, frames, fps, first)
    rows = tile_rules(processor).tokens_per_tile
    return Medium("video", ref.source, grid, height, width, fps, indices, unit_rows=rows)


def _borrowed_frames(ref: MediumRef, processor: Processor, rule: Borrowed, frames: int, fps: float) -> list[int]:
    if rule.family == "smolvlm":
        most = ref.nframes or processor.clip_frames or frames  # `nframes` is a limit there
        return borrowed.smolvlm_frames(frames, fps, ref.fps or processor.clip_fps or 1.0, most)
    asked_fps = ref.fps or (None if ref.nframes or processor.clip_frames else processor.clip_fps)
    return borrowed.clip_frames(frames, fps, asked_fps, None if asked_fps else ref.nframes or processor.clip_frames)


def _borrowed_clip(
    ref: MediumRef, rule: Borrowed, numbers: list[int], size: tuple[int, int], frames: int, fps: float, first: int
) -> Medium:
    """`numbers`: of the frames taken, counted from `first`."""
    side = borrowed.tile_side(rule) // rule.patch_size
    rows, last = borrowed.clip_rows(rule)
    stamps = tuple(number / fps for number in numbers) if rule.family == "smolvlm" else ()
    return Medium(
        "video",
        ref.source,
        (len(numbers), side, side),
        *size,
        fps,
        tuple(first + number for number in numbers),
        timestamps=stamps,
        seconds=frames / fps if stamps else 0.0,
        unit_rows=rows,
        last_rows=None if last == rows else last,
    )


def _rows(grid: Any, processor: Processor) -> int:
    """Tokens that a picture or a temporal patch of this grid becomes."""
    return int(grid.height * grid.width // patch_rules(processor).merge_size ** 2)
