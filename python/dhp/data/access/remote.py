"""Requests to object stores and web servers, through fsspec: what a file is, and ranges of its bytes.

Every request has a limit of time, and is repeated a few times where that may help. What goes wrong is a MediumError of
one line, which names the address and what to do. Of http(s), fsspec's session is used, but the requests are ours: its
own read an answer to its end, however long it is, follow redirects to anywhere, and do not say what a server that takes
no ranges has answered.

An Object is what a file was when it was looked at. Reading with one asks for exactly that: where size or tag (ETag, or
whatever a store has like it) is another, the file has changed.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urljoin

from dhp.base.output import one_line
from dhp.data.access.urls import Object, protocol_of, shown_url
from dhp.data.errors import DataError, MediumError

T = TypeVar("T")

TIMEOUT_S = 60.0  # until an answer begins, and between two pieces of it
LEAST_BYTES_PER_S = 50_000  # of a whole answer; slower ones are given up
ATTEMPTS = 4
PAUSE_S = 0.5  # before the second attempt; doubled before each further one
_MOST_REDIRECTS = 5
_PIECE = 1 << 20
_REMEMBERED_S = 60.0  # what `known` has been told of a file
_MOST_REMEMBERED = 100_000
_PACKAGES = {
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    "hf": "huggingface_hub",
    "oss": "ossfs",
}
_TAGS = (
    *("ETag", "etag", "generation", "md5Hash", "Content-MD5", "Last-Modified", "LastModified", "last_modified"),
    *("blob_id", "mtime", "modified", "updated", "created"),
)


class _Again(Exception):
    """Something that may not happen again; the text follows the address in a message."""


class _Final(Exception):
    """Something that will; likewise."""


class NoRanges(Exception):
    """The server sends whole files only; `found` is what it has said of this one."""

    def __init__(self, found: Object) -> None:
        super().__init__("no ranges")
        self.found = found


def look(url: str) -> Object:
    """What the file is now. Raises MediumError."""
    return head(url, 0)[0]


def head(url: str, count: int) -> tuple[Object, bytes]:
    """What the file is, and its first bytes, `count` at most: one request of a web server. Of a server without ranges,
    no bytes. Raises MediumError."""
    if _is_web(url):
        try:
            found, start = _tried(url, lambda limit: _web(url, 0, max(1, count), None, limit), count)
        except NoRanges as error:
            found, start = error.found, b""
        _remember(url, found)
    else:
        found = _tried(url, lambda limit: _told(url, limit))
        _remember(url, found)
        start = read(url, 0, min(count, found.size), found) if count and found.size else b""
    return found, start[:count]


_known: dict[str, tuple[float, Object | None]] = {}
_lock = threading.Lock()


def known(url: str) -> Object:
    """`look`, of a minute ago at most: of a file that many samples name, or are parts of."""
    return recent(url) or look(url)


def recent(url: str) -> Object | None:
    """What a look of the last minute has found."""
    with _lock:
        at, found = _known.get(url, (0.0, None))
    return found if time.monotonic() - at < _REMEMBERED_S else None


def _remember(url: str, found: Object) -> None:
    with _lock:
        if len(_known) > _MOST_REMEMBERED:
            _known.clear()
        _known[url] = time.monotonic(), found


def forget() -> None:
    """What `known` has been told."""
    with _lock:
        _known.clear()


def read(url: str, start: int, stop: int, expected: Object) -> bytes:
    """Bytes start … stop-1 of the file that `expected` is. Raises MediumError, also where it has changed; NoRanges. A
    store, whose answers do not say what a file is, is asked for that once a minute, not before every window."""
    if start >= stop:
        return b""
    if _is_web(url):
        found, text = _tried(url, lambda limit: _web(url, start, stop, expected, limit), stop - start)
    else:
        found = expected if not expected.tag or recent(url) == expected else look(url)
        text = _tried(url, lambda limit: _cat(url, start, stop, limit), stop - start) if found == expected else b""
    _check_same(url, found, expected)
    return text


def save(url: str, expected: Object, write: Callable[[bytes], Any]) -> None:
    """The whole file that `expected` is, piece by piece. A server without ranges begins anew after an attempt that
    failed, behind write(b""), which is to forget what came. Raises MediumError."""
    at = 0
    while at < expected.size:
        try:
            text = read(url, at, min(expected.size, at + 8 * _PIECE), expected)
        except NoRanges:
            _save_whole(url, expected, write)
            return
        write(text)
        at += len(text)


def _save_whole(url: str, expected: Object, write: Callable[[bytes], Any]) -> None:
    async def work(limit: float) -> tuple[Object, bytes]:
        write(b"")
        return await _get(_system(url), url, 0, expected.size, expected, limit, write)

    found, _ = _tried(url, lambda limit: _wait(_system(url), work(limit), limit), expected.size)
    _check_same(url, found, expected)


def _check_same(url: str, found: Object, expected: Object) -> None:
    if found.size != expected.size:
        what = f"its size was {expected.size:,} bytes, is {found.size:,}"
    elif expected.tag and found.tag != expected.tag:
        what = "its ETag, or time of change, is another"
    else:
        return
    raise MediumError(url, f"has changed since it was indexed ({what}); build the index again with dhp index")


# ---- attempts -------------------------------------------------------------------------------------------------------


def _tried(url: str, request: Callable[[float], T], size: int = 0) -> T:
    """What the request, which may take so many seconds, gives at one of its attempts. All of them together have the
    time for the bytes once: others wait for this rank. Raises MediumError; NoRanges."""
    pause, problem, attempts = PAUSE_S, "", 0
    pauses = PAUSE_S * (2 ** (ATTEMPTS - 1) - 1)
    end = time.monotonic() + ATTEMPTS * TIMEOUT_S + pauses + size / LEAST_BYTES_PER_S
    while attempts < ATTEMPTS:
        if attempts:
            time.sleep(pause)
            pause *= 2
        left = end - time.monotonic()
        if left <= 0.0:
            break
        attempts += 1
        try:
            return request(min(left, _limit_s(size)))
        except _Again as error:
            problem = str(error)
        except _Final as error:
            raise MediumError(url, str(error)) from None
        except (DataError, NoRanges):
            raise
        except FileNotFoundError:
            raise MediumError(url, _GONE) from None
        except ValueError as error:  # an address that is none
            raise MediumError(url, f"cannot be read ({_said(error)}); mend the address") from None
        except PermissionError as error:
            raise MediumError(url, f"{_REFUSED} ({_said(error)})") from None
        except TimeoutError:
            problem = f"gave no answer within {_limit_s(size):.0f} s"
        except Exception as error:  # of any library that fsspec knows
            problem = f"cannot be read ({_said(error)})"
    raise MediumError(
        url, f"{problem}, {attempts} times; see whether the server can be reached, or copy the data nearer"
    )


_GONE = "is not there (404); mend the address, or take it out of the data"
_REFUSED = (
    "may not be read: the server refuses it; give fsspec credentials (docs/training.md), or sign the address anew"
)


def _said(error: BaseException) -> str:
    text = one_line(str(error).strip().partition("\n")[0][:200])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _limit_s(size: int) -> float:
    return TIMEOUT_S + size / LEAST_BYTES_PER_S


def _system(url: str) -> Any:
    """fsspec's file system of this protocol. Raises DataError where it, or a package that it needs, is missing."""
    protocol = protocol_of(url)
    try:
        import fsspec
    except ImportError:
        raise DataError(f'{shown_url(url)}: reading it needs fsspec: pip install "dhp[remote]"') from None
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        needs = f"needs {package}: pip install {package}" if package else f"needs another package ({_said(error)})"
        raise DataError(f"{shown_url(url)}: reading {protocol}:// {needs}") from None
    except ValueError as error:
        raise DataError(f"{shown_url(url)}: fsspec knows no {protocol}:// ({_said(error)})") from None


def _wait(system: Any, work: Coroutine[Any, Any, T], limit: float) -> T:
    """What becomes of it in the thread where the file system works. Raises TimeoutError where that takes too long."""
    coming = asyncio.run_coroutine_threadsafe(work, system.loop)
    try:
        return coming.result(limit)
    except BaseException:
        coming.cancel()
        raise


def _call(system: Any, name: str, limit: float, *args: Any, **options: Any) -> Any:
    """A method of a file system, with a limit of time."""
    if system.async_impl:
        return _wait(system, getattr(system, f"_{name}")(*args, **options), limit)
    box: list[Any] = []

    def work() -> None:
        try:
            box.append((getattr(system, name)(*args, **options), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=work, daemon=True, name="dhp-remote")  # who exits does not wait for it
    thread.start()
    thread.join(limit)
    if not box:
        raise TimeoutError
    value, error = box[0]
    if error is not None:
        raise error
    return value


# ---- object stores --------------------------------------------------------------------------------------------------


def _told(url: str, limit: float) -> Object:
    system = _system(url)
    about = _call(system, "info", limit, system._strip_protocol(url))
    if about.get("type") == "directory":
        raise _Final("is a folder, not a file")
    if type(about.get("size")) is not int:
        raise _Final("is of no known size; copy it to a disk")
    return Object(about["size"], _tag_of(about))


def _cat(url: str, start: int, stop: int, limit: float) -> bytes:
    system = _system(url)
    text = bytes(_call(system, "cat_file", limit, system._strip_protocol(url), start=start, end=stop))
    if len(text) != stop - start:
        raise _Again(f"was cut after {len(text):,} of {stop - start:,} bytes")
    return text


def _tag_of(about: Any) -> str:
    """Short, and of no odd characters: it stands in sources."""
    for name in _TAGS:
        if about.get(name):
            return hashlib.blake2b(f"{name} {about[name]}".encode(), digest_size=8).hexdigest()
    return ""


# ---- the web --------------------------------------------------------------------------------------------------------


def _is_web(url: str) -> bool:
    return protocol_of(url) in ("http", "https")


def _web(url: str, start: int, stop: int, expected: Object | None, limit: float) -> tuple[Object, bytes]:
    system = _system(url)
    return _wait(system, _get(system, url, start, stop, expected, limit), limit)


async def _get(
    system: Any,
    url: str,
    start: int,
    stop: int,
    expected: Object | None,
    limit: float,
    write: Callable[[bytes], Any] | None = None,
) -> tuple[Object, bytes]:
    """A range of a file, and what the server says of it. With `write`, which gets the bytes, no range is asked for."""
    import aiohttp
    from yarl import URL

    session = await system.set_session()
    times = aiohttp.ClientTimeout(limit, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    options = dict(system.kwargs)  # of fsspec's configuration, as a header that lets us in
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity"}
    headers |= {} if write else {"Range": f"bytes={start}-{stop - 1}"}
    options |= {"headers": headers, "timeout": times, "allow_redirects": False}
    place = URL(url, encoded="%" in url)
    for _ in range(_MOST_REDIRECTS + 1):
        async with session.get(place, **options) as answer:
            if answer.status in (301, 302, 303, 307, 308):
                place = _redirected(place, answer.headers.get("Location", ""))
                continue
            if answer.status == 416 and expected is None:  # of an empty file, no first byte can be read
                return Object(0, _tag_of(answer.headers)), b""
            _check_status(answer.status)
            return await _body(answer, start, stop, expected, write)
    raise _Final(f"leads from one address to the next, more than {_MOST_REDIRECTS} times")


def _redirected(place: Any, location: str) -> Any:
    """Where to, if that is the same host: whoever may name a file there may not have us ask another."""
    from yarl import URL

    to = URL(urljoin(str(place), location), encoded=True)
    becomes_safe = (to.scheme, to.host, to.port) == ("https", place.host, 443) and (place.scheme, place.port) == (
        "http",
        80,
    )
    if to.origin() != place.origin() and not becomes_safe:
        raise _Final(
            f"leads to another host, {one_line(str(to.origin()))[:100]}, which is not followed; name the file by its "
            "address there"
        )
    return to


def _check_status(status: int) -> None:
    if status in (404, 410):
        raise _Final(_GONE)
    if status in (401, 403):
        raise _Final(f"{_REFUSED} ({status})")
    if status == 416:
        raise _Final("has become shorter since it was indexed; build the index again with dhp index")
    if status in (408, 425, 429) or status >= 500:
        raise _Again(f"cannot be read: the server answers {status}")
    if status not in (200, 206):
        raise _Final(f"cannot be read: the server answers {status}")


async def _body(
    answer: Any, start: int, stop: int, expected: Object | None, write: Callable[[bytes], Any] | None
) -> tuple[Object, bytes]:
    headers, is_part = answer.headers, answer.status == 206
    if headers.get("Content-Encoding", "identity") not in ("", "identity"):
        raise _Final("is sent compressed, so that no part of it can be read alone; have the server send it as it is")
    stated = headers.get("Content-Range", "").rpartition("/")[2] if is_part else headers.get("Content-Length", "")
    if not stated.isdecimal():
        raise _Final("is of no known size: the server does not say it; copy it to a disk")
    if is_part and not headers["Content-Range"].lower().startswith(f"bytes {start}-"):
        raise _Final("is sent from another place in it than was asked for; copy it to a disk")
    found = Object(int(stated), _tag_of(headers))
    if expected and found != Object(expected.size, expected.tag or found.tag):
        return found, b""  # whoever asked says that it has changed
    if not is_part and not write and (start, min(stop, found.size)) != (0, found.size):
        raise NoRanges(found)
    wanted = min(stop, found.size) - start
    got, kept = 0, bytearray()
    try:
        while got < wanted and (piece := await answer.content.read(min(_PIECE, wanted - got))):
            got += len(piece)
            write(piece) if write else kept.extend(piece)
    except TimeoutError:
        raise _Again(f"gave nothing more for {TIMEOUT_S:.0f} s after {got:,} of {wanted:,} bytes") from None
    except Exception as error:
        if type(error).__module__.startswith("aiohttp"):
            raise _Again(f"was cut after {got:,} of {wanted:,} bytes") from None
        raise
    if got < wanted:
        raise _Again(f"was cut after {got:,} of {wanted:,} bytes")
    return found, bytes(kept)


__all__ = ["NoRanges", "forget", "head", "known", "look", "read", "recent", "save"]
