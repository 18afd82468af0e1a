"""Whether an index still belongs to its data file and its checkpoint.

A data file at an address is the same if its size and its tag (ETag, or time of change) are; where its server tells no
tag, it is read.

A data file is the same if size and SHA-256 are. That is not worked out again for a file whose size and time of change
are those it had when it was indexed, unless it had changed just before: its time of change may be too coarse to tell.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dhp.data.access import remote
from dhp.data.access.pieces import shown
from dhp.data.access.urls import is_url, path_of
from dhp.data.errors import StaleIndexError
from dhp.data.formats.lines import opened
from dhp.data.formats.rows import TARS
from dhp.data.formats.tars import digest_of_tar
from dhp.data.indexing.index_file import AGAIN
from dhp.data.processor import RULES_VERSION, load_processor

_COARSE_NS = 2_000_000_000  # file systems keep times of change in steps of at most so much


def identity(data: Path | str, advance: Callable[[], None]) -> dict[str, Any]:
    """What the index keeps of its data file, which is read to its end."""
    began = time.time_ns()
    if is_url(data):
        now = remote.look(str(data))
        if now.tag:
            return {"bytes": now.size, "sha256": _of_tag(now.tag), "changed_ns": 0, "settled": True}
    if path_of(str(data)).endswith(TARS):  # media in it are not read
        size, changed = _version_of(data)
        found = {"bytes": size, "sha256": digest_of_tar(data, advance), "changed_ns": changed}
        return {**found, "settled": 0 < changed < began - _COARSE_NS}
    digest, size = hashlib.sha256(), 0
    with opened(data) as file:
        changed = 0 if is_url(data) else os.fstat(file.fileno()).st_mtime_ns
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
            advance()
    is_settled = 0 < changed < began - _COARSE_NS
    return {"bytes": size, "sha256": digest.hexdigest(), "changed_ns": changed, "settled": is_settled}


def check_fresh(
    path: str | os.PathLike[str],
    header: dict[str, Any],
    data: Path | str,
    model: str | os.PathLike[str] | None,
    advance: Callable[[], None],
) -> None:
    """Raises StaleIndexError unless the index of this header is of this data file and this model's processor."""
    if header.get("rules") != RULES_VERSION:
        raise StaleIndexError(f"{path}: is stale: it was written by another version of dhp; {AGAIN}")
    then = header["data"]
    if not _unchanged(data, then):
        now = identity(data, advance)
        for key, what in (("bytes", "size"), ("sha256", "content")):
            if then[key] != now[key]:
                raise StaleIndexError(
                    f"{path}: is stale: the {what} of {shown(str(data))} was {then[key]}, is {now[key]}; {AGAIN}"
                )
    if model is not None and header["processor"] != load_processor(model).fingerprint:
        raise StaleIndexError(
            f"{path}: is stale: built with another tokenizer or processor than that of {model}; {AGAIN}"
        )


def _unchanged(data: Path | str, then: dict[str, Any]) -> bool:
    if is_url(data):
        now = remote.look(str(data))
        return bool(now.tag) and (now.size, _of_tag(now.tag)) == (then["bytes"], then["sha256"])
    return then["settled"] is True and _version_of(data) == (then["bytes"], then["changed_ns"])


def _of_tag(tag: str) -> str:
    return hashlib.sha256(f"tag {tag}".encode()).hexdigest()


def _version_of(data: Path | str) -> tuple[int, int]:
    """Size, and time of change in ns, which is 0 at an address."""
    if is_url(data):
        return remote.known(str(data)).size, 0
    with opened(data) as file:
        about = os.fstat(file.fileno())
    return about.st_size, about.st_mtime_ns


__all__ = ["check_fresh", "identity"]
