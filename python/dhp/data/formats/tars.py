"""Samples of a WebDataset: a tar whose members with a common name, up to the first dot of its last part, are a sample.

    000017.json   a row as in a JSON lines file; its `images` and `videos` name members of the sample, in full or by
                  what follows the first dot. Without such lists, all its pictures and clips are meant, in order
    000017.txt    instead of the JSON: a caption, which is learned behind the sample's one picture or clip
    000017.jpg

Only headers and texts are read; media are pieces of the tar (pieces.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from dhp.data.access import remote
from dhp.data.access.pieces import Piece, shown
from dhp.data.access.urls import is_url
from dhp.data.errors import DataError
from dhp.data.formats.lines import opened, parse_json
from dhp.data.formats.rows import Numbered

_IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm"}
_VIDEOS = {"mp4", "mkv", "webm", "avi", "mov", "m4v", "mpg", "mpeg", "flv"}
_TEXTS = {"json", "txt"}


def read_tar(path: str | os.PathLike[str], max_text_bytes: int, at: Callable[[int], None]) -> Iterator[Numbered]:
    """Yields the samples, numbered from 1; an error in place of one that cannot be understood, and at the end where the
    tar is damaged there. `at` is told how far in the file it is. Raises DataError for what is no tar."""
    number, key = 0, ""
    group: list[tarfile.TarInfo] = []
    try:
        with opened_tar(path) as tar:
            for member in tar:
                at(member.offset_data)
                if member.isdir():
                    continue
                of = key_of(member.name)
                if group and of != key:
                    number += 1
                    yield _sample(str(path), tar, number, group, max_text_bytes)
                    group = []
                key = of
                group.append(member)
            if problem := _problem_at_end(path, tar.offset):
                raise tarfile.ReadError(problem)
            if group:
                number += 1
                yield _sample(str(path), tar, number, group, max_text_bytes)
    except DataError:  # of an address
        raise
    except (tarfile.TarError, EOFError, ValueError) as error:
        if number == 0 and not group:  # nothing of it could be read
            raise DataError(f"{shown(str(path))}: is no tar file, or damaged from its beginning ({error})") from None
        yield Numbered(number + 1, DataError(f"the tar is damaged behind sample {number} ({error}); the rest is lost"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def opened_tar(path: str | os.PathLike[str]) -> Iterator[tarfile.TarFile]:
    if not is_url(path):
        with tarfile.open(path, "r:") as tar:
            yield tar
        return
    with opened(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        yield tar


def _problem_at_end(path: str | os.PathLike[str], offset: int) -> str:
    """What is wrong where tarfile has stopped: it takes what is no header for the end."""
    with opened(path) as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return "it is cut off: its end is not marked"
    return "what follows is no header" if block.strip(b"\0") else ""


def key_of(name: str) -> str:
    """What members of a sample have in common."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def ending_of(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[2]


def _sample(
    path: str, tar: tarfile.TarFile, number: int, members: list[tarfile.TarInfo], max_text_bytes: int
) -> Numbered:
    texts: dict[str, str] = {}
    whole = remote.known(path) if is_url(path) else None
    media: dict[str, tuple[str, str]] = {}  # kind and source by name
    for member in members:
        ending = ending_of(member.name).lower()
        kind = ending.rpartition(".")[2]
        if not member.isreg():
            continue
        if ending in _TEXTS:
            if member.size > max_text_bytes:
                return Numbered(number, DataError(f"{member.name} is longer than {max_text_bytes:,} bytes"))
            file = tar.extractfile(member)
            try:
                texts[ending] = file.read().decode() if file else ""
            except UnicodeDecodeError:
                return Numbered(number, DataError(f"{member.name} is not UTF-8 text"))
        elif kind in _IMAGES | _VIDEOS:
            source = Piece(path, member.offset_data, member.size, member.name, whole=whole).source()
            media[member.name] = ("image" if kind in _IMAGES else "video", source)
    try:
        row = _row(texts, media)
    except DataError as error:
        return Numbered(number, DataError(f"{members[0].name}: {error}"))
    names = {name: source for name, (_, source) in media.items()}
    names |= {ending_of(name): source for name, source in names.items()}
    return Numbered(number, json.dumps(row, ensure_ascii=False), names)


def _row(texts: dict[str, str], media: dict[str, tuple[str, str]]) -> Any:
    """The row that a JSON lines file would have."""
    of_kind = {kind: [name for name, (one, _) in media.items() if one == kind] for kind in ("image", "video")}
    if "json" in texts:
        row = parse_json(texts["json"])
        if isinstance(row, dict) and not any(row.get(key) for key in ("images", "image", "videos", "video")):
            row |= {f"{kind}s": names for kind, names in of_kind.items() if names}
        return row
    if "txt" not in texts:
        raise DataError("a sample has a member .json, or .txt for a caption; found neither")
    if len(media) != 1:
        raise DataError(f"a sample with a caption has one picture or clip, found {len(media)}; write a .json")
    ((name, (kind, _)),) = media.items()
    turns = [{"role": "user", "content": f"<{kind}>"}, {"role": "assistant", "content": texts["txt"].strip()}]
    return {"messages": turns, f"{kind}s": [name]}


def digest_of_tar(path: str | os.PathLike[str], advance: Callable[[], None]) -> str:
    """SHA-256 of what a tar says of its members, and of its texts. Media are not read."""
    digest = hashlib.sha256()
    try:
        with opened_tar(path) as tar:
            for member in tar:
                about = (member.name, member.offset_data, member.size, member.mtime, member.type, member.chksum)
                digest.update(repr(about).encode(errors="surrogatepass"))
                if member.isreg() and ending_of(member.name).lower() in _TEXTS and member.size < 1 << 28:
                    file = tar.extractfile(member)
                    digest.update(file.read() if file else b"")
                advance()
    except DataError:
        raise
    except (tarfile.TarError, EOFError, ValueError) as error:
        digest.update(f"{error}".encode())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()


__all__ = ["digest_of_tar", "key_of", "read_tar"]
