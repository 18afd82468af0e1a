"""Addresses of files that are not on a disk: `https://host/folder/a.jpg`, `s3://bucket/a.tar`, whatever fsspec knows.

Nothing here opens anything. An address may be read if it lies below a root, which is an address itself: same protocol,
same host and port (for object stores: the bucket), and a path below the root's. What could mean another place to a
server than to us, as `..` or an escaped slash, is refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from dhp.base.output import one_line

_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True)
class Object:
    """What a file of an object store was when it was looked at. tag: changes when the contents do, as an ETag does; ""
    where the server tells none."""

    size: int
    tag: str = ""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Of what fsspec is to read. `file://` is a path."""
    found = _PROTOCOL.match(str(path))
    return found is not None and found.group(1).lower() != "file"


def protocol_of(url: str) -> str:
    found = _PROTOCOL.match(url)
    return found.group(1).lower() if found else ""


def shown_url(url: str) -> str:
    """For messages: without a user's name, and without a query, which may sign the request."""
    head, _, rest = url.partition("://")
    rest, query, _ = rest.partition("?") if protocol_of(url) in ("http", "https") else (rest, "", "")
    host, slash, path = rest.partition("/")
    return one_line(f"{head}://{host.rpartition('@')[2]}{slash}{path}{'?…' if query else ''}")


def path_of(url: str) -> str:
    """What names end with: the path, without a query."""
    return url.partition("?")[0] if protocol_of(url) in ("http", "https") else url


def folder_of(data: str | os.PathLike[str]) -> Path | str:
    """Where relative paths of a data file begin: its folder, links resolved; of an address one that ends in a slash."""
    if is_url(data):
        return path_of(str(data)).rpartition("/")[0] + "/"
    return Path(data).resolve().parent


def joined(folder: Path | str, path: str) -> str:
    """A path of a data file in this folder."""
    if is_url(path) or os.path.isabs(path):
        return path
    return folder + path if isinstance(folder, str) else str(folder / path)


def as_root(root: str) -> str:
    """With a slash at its end, so that `s3://one` does not stand for `s3://one-more`."""
    return root if root.endswith("/") else root + "/"


def root_problem(root: str) -> str:
    """What is wrong with an address below which others may be read; empty where nothing is."""
    if protocol_of(root) in ("http", "https") and ("?" in root or "#" in root):
        return "has a query; give the address of a folder"
    if not _parts(root)[1] and protocol_of(root) != "memory":
        return "names no host or bucket"
    return _odd(root)


def is_below(url: str, root: str) -> bool:
    """Whether the address lies below this root, which ends in a slash."""
    if _odd(url):
        return False
    ours, theirs = _parts(url), _parts(root)
    return ours[:2] == theirs[:2] and ours[2].startswith(theirs[2])


def _parts(url: str) -> tuple[str, str, str]:
    """Protocol, host and path, which begins with a slash."""
    head, _, rest = path_of(url).partition("://")
    host, slash, path = rest.partition("/")
    is_web = head.lower() in ("http", "https")  # names of hosts are the same in capitals, those of buckets are not
    return head.lower(), host.lower() if is_web else host, slash + path


def _odd(url: str) -> str:
    """What could make an address mean another place than it seems to."""
    if "::" in url:
        return "is a chain of addresses (::), which is not read"
    if re.search(r"[\x00-\x1f\x7f\\]", url):
        return "holds a backslash or a control character"
    plain = _parts(url)[2]
    for _ in range(3):  # escaped more than once, too
        plain = unquote(plain)
    if "\\" in plain or any(part in (".", "..") for part in plain.split("/")):
        return "holds . or .. as a part of its path"
    return ""


__all__ = [
    "Object",
    "as_root",
    "folder_of",
    "is_below",
    "is_url",
    "joined",
    "path_of",
    "protocol_of",
    "root_problem",
    "shown_url",
]
