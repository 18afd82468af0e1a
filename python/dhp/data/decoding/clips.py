"""Clips through PyAV: how many frames a file really has, and decoding a few of them.

Frames are counted by reading the packets (no decoding): containers that state no count, or a wrong one, do no harm.
Each packet's time stamp is kept for the frames that will be wanted, so that reading seeks to the key frame before the
first of them and stops after the last. Files without usable time stamps are decoded from their start and counted.
"""

from __future__ import annotations

import bisect
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import SideDataContainer

from dhp.data.access.files import MAX_PIXELS, check_file, check_pixels
from dhp.data.access.opening import Cache, opened_medium
from dhp.data.access.remembered import remembered
from dhp.data.access.remote_file import RemoteFile
from dhp.data.decoding.mp4_boxes import frames_in
from dhp.data.errors import DataError, MediumError

Pixels = npt.NDArray[np.uint8]  # [height, width, 3], RGB
# Whatever holds frames itself: none that names other files, addresses or programs (playlists, scripts, devices).
_NAMING_OTHERS = {
    *("hls", "dash", "concat", "sdp", "rtsp", "rtp", "sap", "imf", "image2", "alias_pix", "brender_pix", "lavfi"),
    *("vapoursynth", "avisynth", "webm_dash_manifest", "ffmetadata", "tty", "alsa", "fbdev", "kmsgrab", "oss"),
    *("video4linux2,v4l2", "x11grab"),
}
_CONTAINERS = ",".join(sorted(av.formats_available - _NAMING_OTHERS))
# Not frame.side_data, which a frame keeps and which keeps the frame: none would be freed, nor the decoder's threads,
# before Python looks for such circles.
_SIDE_DATA: Any = SideDataContainer
# Codecs whose packets FFmpeg takes from an MP4 file as its table has them, without a look at what they hold
# (libavformat/mov.c, need_parsing).
_UNPARSED = ("h264", "hevc", "mpeg4")
_RATE_TOLERANCE = 0.02  # a stated frame rate further from the measured one than this is not believed


@dataclass(frozen=True)
class ClipInfo:
    """What a video file holds."""

    height: int  # upright, in pixels
    width: int
    frames: int
    fps: float
    pts: tuple[int, ...]  # time stamp of every frame, ascending; empty where the file has none that can be used
    key_pts: tuple[int, ...]  # time stamps of key frames, ascending

    def locate(self, numbers: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Time stamps of these frames and of the key frames before them; empty tuples without usable time stamps."""
        if not self.pts:
            return (), ()
        stamps = tuple(self.pts[n] for n in numbers)
        keys = []
        for stamp in stamps:
            at = bisect.bisect_right(self.key_pts, stamp) - 1
            keys.append(self.key_pts[at] if at >= 0 else self.pts[0])
        return stamps, tuple(keys)


def probe_clip(path: str, roots: tuple[str, ...] = (), cache: Cache = None) -> ClipInfo:
    """Counts frames and measures the first one. Raises MediumError, also for a file that was cut off.

    The last few files are remembered, as long as they do not change: data sets cut many clips from one file.
    """
    return _probe(path, *check_file(path, roots), cache)


@remembered(16)
def _probe(path: str, _changed_ns: int, _bytes: int, cache: Cache) -> ClipInfo:
    with _opened(path, cache, only_counted=True) as (container, stream):
        stated_rate = float(stream.average_rate or stream.guessed_rate or 0)
        stamps: list[int | None] = []
        keys: list[int] = []
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:  # the flush at the end; frames an edit list hides
                continue
            if packet.is_corrupt:
                raise MediumError(path, f"is damaged or cut off after {len(stamps)} frames")
            stamps.append(packet.pts)
            if packet.is_keyframe and packet.pts is not None:
                keys.append(packet.pts)
        time_base = float(stream.time_base or 0)
    known = sorted(s for s in stamps if s is not None)
    usable = bool(known) and len(known) == len(stamps) and len(set(known)) == len(known) and bool(keys)
    first, counted = _first_frame(path, cache, count_all=not usable)
    frames = len(known) if usable else counted
    fps = stated_rate
    if usable and frames > 1 and time_base > 0:
        measured = (frames - 1) / ((known[-1] - known[0]) * time_base)
        if stated_rate <= 0 or abs(measured / stated_rate - 1) > _RATE_TOLERANCE:
            fps = measured
    if fps <= 0:
        raise MediumError(path, "states no frame rate, and its frames carry no time stamps")
    height, width, _ = first.shape
    return ClipInfo(height, width, frames, fps, tuple(known) if usable else (), tuple(sorted(keys)))


def _first_frame(path: str, cache: Cache, count_all: bool) -> tuple[Pixels, int]:
    """The first frame, and the number of frames decoded: 1, or all of them."""
    with _opened(path, cache, entire=count_all) as (container, stream):
        first: Pixels | None = None
        count = 0
        for frame in container.decode(stream):
            if first is None:
                first = _upright(path, frame)
            count += 1
            if not count_all:
                break
    if first is None:
        raise MediumError(path, "holds no frame that can be decoded")
    return first, count


def read_frames(
    path: str,
    numbers: Sequence[int],
    stamps: Sequence[int] = (),
    keys: Sequence[int] = (),
    shrink: Callable[[Pixels], Pixels] = lambda pixels: pixels,
    roots: tuple[str, ...] = (),
    cache: Cache = None,
) -> dict[int, Pixels]:
    """Decodes these frames (numbers from 0 in the file, any order, may repeat): RGB by frame number.

    `stamps` and `keys` are what ClipInfo.locate() says of them; without, the file is decoded from its start. `shrink`
    is what becomes of a frame before the next is decoded. Raises MediumError.
    """
    check_file(path, roots)
    wanted = sorted(set(numbers))
    if stamps:
        at = dict(zip(numbers, zip(stamps, keys, strict=True), strict=True))
        found = _by_stamp(path, [(n, *at[n]) for n in wanted], shrink, cache)
        if len(found) == len(wanted):
            return found
    found = _by_count(path, wanted, shrink, cache)
    missing = [n for n in wanted if n not in found]
    if missing:
        raise MediumError(path, f"frame {missing[0]} cannot be decoded; is the file still the one that was indexed?")
    return found


def _by_stamp(
    path: str, wanted: list[tuple[int, int, int]], shrink: Callable[[Pixels], Pixels], cache: Cache
) -> dict[int, Pixels]:
    """(frame number, time stamp, key frame's time stamp), ascending -> frames; fewer where stamps do not match."""
    found: dict[int, Pixels] = {}
    with _opened(path, cache, entire=True) as (container, stream):
        next_up = 0
        while next_up < len(wanted):
            key = wanted[next_up][2]
            for frame in _decode_from(container, stream, key):
                if frame.pts is None:
                    return found
                if frame.pts < wanted[next_up][1]:
                    continue
                if frame.pts > wanted[next_up][1]:
                    return found  # the decoder's stamps differ from the packets'
                found[wanted[next_up][0]] = shrink(_upright(path, frame))
                next_up += 1
                if next_up == len(wanted) or wanted[next_up][2] > frame.pts:
                    break  # done, or the next one has a later key frame: do not decode what lies between
            else:
                return found
    return found


def _decode_from(container: Any, stream: Any, key: int) -> Iterator[Any]:
    """Decodes from the key frame with time stamp `key`. A seek may land late (containers index decode times), so what
    it lands on is looked at, and the seek repeated further back until it lies at or before the key frame. Yields
    nothing where no seek gets there."""
    target = key
    for step in range(40):
        try:
            container.seek(target, stream=stream, backward=True, any_frame=False)
        except av.error.FFmpegError:
            return
        packets = container.demux(stream)
        first = next(packets, None)
        if first is not None and first.size and first.is_keyframe and first.pts is not None and first.pts <= key:
            break
        target -= 1 << step
    else:
        return
    yield from first.decode()
    for packet in packets:
        yield from packet.decode()


def _by_count(path: str, wanted: list[int], shrink: Callable[[Pixels], Pixels], cache: Cache) -> dict[int, Pixels]:
    found: dict[int, Pixels] = {}
    remaining = set(wanted)
    with _opened(path, cache, entire=True) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number in remaining:
                found[number] = shrink(_upright(path, frame))
                remaining.discard(number)
                if not remaining:
                    break
    return found


def _upright(path: str, frame: Any) -> Pixels:
    check_pixels(path, frame.width, frame.height, "a frame ")
    pixels = frame.to_ndarray(format="rgb24")
    matrix = _SIDE_DATA(frame).get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    return np.ascontiguousarray(displayed(path, pixels, np.frombuffer(bytes(matrix), dtype=np.int32)))


def displayed(path: str, pixels: Pixels, matrix: npt.NDArray[np.int32]) -> Pixels:
    """Turned and mirrored as the display matrix (nine numbers, row by row) says. Source: ffmpeg's
    `fftools/ffmpeg_filter.c: configure_input_video_filter` with autorotate, and `av_display_rotation_get`."""
    m = [int(value) for value in matrix]
    across, down = math.hypot(m[0], m[3]), math.hypot(m[1], m[4])
    if across == 0 or down == 0:
        return pixels  # not invertible; ffmpeg finds no angle in it
    theta = round(math.degrees(math.atan2(m[1] / down, m[0] / across))) % 360
    if abs(theta - 90) < 1:
        return pixels.transpose(1, 0, 2) if m[3] > 0 else np.rot90(pixels, -1)
    if abs(theta - 180) < 1:
        return pixels[:: -1 if m[4] < 0 else 1, :: -1 if m[0] < 0 else 1]
    if abs(theta - 270) < 1:
        return pixels.transpose(1, 0, 2)[::-1, ::-1] if m[3] < 0 else np.rot90(pixels)
    if theta:
        raise MediumError(path, f"is displayed at an angle of {theta} degrees; only quarter turns are read")
    return pixels[::-1] if m[4] < 0 else pixels


@contextlib.contextmanager
def _opened(
    path: str, cache: Cache = None, entire: bool = False, only_counted: bool = False
) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream; whatever FFmpeg reports becomes a MediumError. Only files that hold
    their frames themselves are opened, and no frame is decoded that is larger than the limit. `entire`: a file at an
    address is kept in the cache; `only_counted`: packets are asked for their time stamps alone, and what they hold may
    be zeros."""
    try:
        options = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
        with (
            opened_medium(path, cache, entire and cache is not None) as file,
            av.open(file, options=options) as container,
        ):
            stream: Any = container.streams.best("video")  # as ffmpeg chooses: no cover where there is a clip
            if stream is None:
                raise MediumError(path, "has no video stream")
            if stream.codec_context is None:
                raise MediumError(path, "has a video stream of a codec that is not known")
            check_pixels(path, stream.width or 0, stream.height or 0, "a frame ")
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            raw = getattr(file, "raw", None)
            if only_counted and isinstance(raw, RemoteFile) and stream.codec_context.name in _UNPARSED:
                raw.hollow = frames_in(file)
            yield container, stream
    except DataError:  # and MediumError
        raise
    except FileNotFoundError as error:
        raise MediumError(path, "no such file") from error
    except Exception as error:  # whatever PyAV makes of broken data
        text = getattr(error, "strerror", None) or str(error)
        usual = isinstance(error, (av.error.FFmpegError, OSError, ValueError))
        said = text if usual and text else f"{type(error).__name__}: {text}"
        raise MediumError(path, f"cannot be decoded: {said}") from error
