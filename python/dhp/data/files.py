"""Which files may be opened as media, and how large what they hold may be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from dhp.base.output import one_line
from dhp.data.errors import DataError, MediumError
from dhp.data.pieces import file_of

# Of one picture or frame, decoded: half a gigabyte as RGB. Pillow's own limit is the same (twice MAX_IMAGE_PIXELS).
MAX_PIXELS = 178_956_970
FRAME_CACHE_BYTES = 50 * 10**9  # that a cache of decoded frames may hold (frame_cache.py), unless a run says otherwise
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def resolved_roots(roots: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """The folders below which media may lie, links resolved. Raises DataError for one that is no folder."""
    resolved = []
    for root in roots:
        if not str(root) or not os.path.isdir(root):
            raise DataError(f"media_roots: {str(root)!r} is no folder; give folders that hold the media")
        resolved.append(os.path.realpath(root))
    return tuple(resolved)


def check_file(path: str, roots: tuple[str, ...] = ()) -> os.stat_result:
    """What the system says of `path`, or of the file that it is a piece of. Raises MediumError unless that is a regular
    file that holds something and, links resolved, lies below one of `roots`, where there are any. Nothing is opened: a
    pipe without a writer would wait for ever."""
    try:
        if roots:
            check_root(path, roots)
        about = os.stat(file_of(path))
    except MediumError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise MediumError(path, "no such file") from None
    except OSError as error:
        shown = path if len(path) <= 200 else f"{path[:200]}..."
        raise MediumError(shown, f"cannot be opened: {error.strerror or error}") from None
    except ValueError:
        raise MediumError(path, "is no path: it holds a NUL") from None
    if not stat.S_ISREG(about.st_mode):
        what = next((name for is_kind, name in _KINDS if is_kind(about.st_mode)), "no file")
        raise MediumError(path, f"is {what}, not a file")
    if about.st_size == 0:
        raise MediumError(path, "is empty (0 bytes)")
    return about


def check_root(path: str, roots: tuple[str, ...]) -> None:
    """Raises MediumError unless the file, links resolved, lies below one of `roots`."""
    real = os.path.realpath(file_of(path))
    if not any(os.path.commonpath((real, root)) == root for root in roots):
        leads = "" if real == os.path.abspath(file_of(path)) else f" ({one_line(real)})"
        raise MediumError(path, f"lies outside media_roots{leads}; add its folder, or take it out of the data")


def check_pixels(path: str, width: int, height: int, what: str = "") -> None:
    """Raises MediumError for a picture or frame that is too large to decode."""
    if width * height > MAX_PIXELS:
        raise MediumError(path, f"{what}has {width}x{height} pixels, more than the limit of {MAX_PIXELS:,}; shrink it")
