"""Which files may be opened as media, and how large what they hold may be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from dhp.base.output import one_line
from dhp.data.access.pieces import file_of, remote_piece
from dhp.data.access.urls import as_root, folder_of, is_below, is_url, root_problem, shown_url
from dhp.data.errors import DataError, MediumError

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
    """The folders and addresses below which media may lie, links resolved. Raises DataError for one that is none."""
    resolved = []
    for root in roots:
        if is_url(root):
            if problem := root_problem(str(root)):
                raise DataError(f"media_roots: {shown_url(str(root))} {problem}")
            resolved.append(as_root(str(root)))
            continue
        if not str(root) or not os.path.isdir(root):
            raise DataError(f"media_roots: {str(root)!r} is no folder; give folders that hold the media")
        resolved.append(os.path.realpath(root))
    return tuple(resolved)


def roots_of(data: Iterable[str | os.PathLike[str]], roots: Iterable[str] = ()) -> tuple[str, ...]:
    """Where media of these data files may lie: below `roots`; where there are none, anywhere on this machine if a data
    file lies on it, and beside each that lies at an address. Raises DataError."""
    if found := resolved_roots(roots):
        return found
    files = list(data)
    beside = tuple(dict.fromkeys(str(folder_of(file)) for file in files if is_url(file)))
    return (*beside, *(("/",) if any(not is_url(file) for file in files) else ())) if beside else ()


def lies_below(inner: str, outer: str) -> bool:
    """Whether all that lies below one root of resolved_roots lies below another."""
    if is_url(inner) or is_url(outer):
        return is_url(inner) and is_url(outer) and is_below(inner, outer)
    return os.path.commonpath((inner, outer)) == outer


def check_file(path: str, roots: tuple[str, ...] = ()) -> tuple[int, int]:
    """Time of change (ns) and size of `path`, or of the file that it is a piece of: what changes when the file does; of
    an address, which says itself what lay there, zeros. Raises MediumError unless that is a regular file that holds
    something and, links resolved, lies below one of `roots`, where there are any. Nothing is opened: a pipe without a
    writer would wait for ever. What lies at an address is not asked for either, and must lie below a root."""
    try:
        check_root(path, roots)
        if piece := remote_piece(path):
            if piece.whole and not piece.size:
                raise MediumError(path, "is empty (0 bytes)")
            return 0, 0
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
    return about.st_mtime_ns, about.st_size


def check_root(path: str, roots: tuple[str, ...]) -> None:
    """Raises MediumError unless the file, links resolved, lies below one of `roots`; without roots, any file of this
    machine does, and none elsewhere."""
    file = file_of(path)
    if is_url(file):
        if not any(is_below(file, root) for root in roots if is_url(root)):
            raise MediumError(
                path,
                "lies elsewhere, at an address that media_roots does not allow; list an address above it there "
                "(dhp index --media-root)",
            )
        return
    real = os.path.realpath(file)
    if roots and not any(os.path.commonpath((real, root)) == root for root in roots if not is_url(root)):
        leads = "" if real == os.path.abspath(file_of(path)) else f" ({one_line(real)})"
        raise MediumError(path, f"lies outside media_roots{leads}; add its folder, or take it out of the data")


def check_pixels(path: str, width: int, height: int, what: str = "") -> None:
    """Raises MediumError for a picture or frame that is too large to decode."""
    if width * height > MAX_PIXELS:
        raise MediumError(path, f"{what}has {width}x{height} pixels, more than the limit of {MAX_PIXELS:,}; shrink it")
