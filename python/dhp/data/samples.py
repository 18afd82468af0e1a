"""Samples as users have them: ms-swift JSONL, ShareGPT `conversations`, OpenAI content lists.

    {"messages": [{"role": "user", "content": "<image>What is this?"}, {"role": "assistant", "content": "A cat."}],
     "images": ["cat.png"]}
    {"messages": [{"role": "user", "content": "<video>What happens?"}, …],
     "videos": [{"video": "ride.mp4", "video_start": 2.0, "video_end": 6.5, "fps": 2, "max_pixels": 65536}]}

A medium is a path, a list of paths (the frames of a video), or an object whose path stands under `image`, `video` or
`path`. Per-media keys are those of qwen-vl-utils: `fps` or `nframes`, `video_start`, `video_end` (seconds),
`max_pixels` (of one picture or frame). A relative path is looked up beside the JSONL file, then in the working folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dhp.data.errors import DataError

Kind = Literal["image", "video"]
ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_TAG = re.compile(r"<(image|video)>")
_MEDIUM_KEYS = {"type", "image", "video", "path", "url", "image_url", "video_url"}
_IMAGE_KEYS = {"max_pixels"}
_VIDEO_KEYS = {"max_pixels", "fps", "nframes", "video_start", "video_end"}


@dataclass(frozen=True)
class MediumRef:
    """A medium as the data file names it, path resolved, nothing opened yet."""

    kind: Kind
    source: str | tuple[str, ...]  # a tuple: the frames of a video
    fps: float | None = None  # of a file: sampled frames per second; of a frame list: the rate it was taken at
    nframes: int | None = None
    video_start: float | None = None  # seconds
    video_end: float | None = None  # seconds
    max_pixels: int | None = None  # height x width of one picture or frame


@dataclass(frozen=True)
class Message:
    """One turn. `parts` are texts and, in between, positions in the sample's list of media."""

    role: str
    parts: tuple[str | int, ...]
    loss: bool = True  # ms-swift's per-message switch; means something for assistant turns only

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"role": self.role, "content": list(self.parts)}
        if not self.loss:
            out["loss"] = False
        return out

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Message:
        return cls(value["role"], tuple(value["content"]), value.get("loss", True))


@dataclass(frozen=True)
class RawSample:
    """A line of the data file, checked. Media stand in the order in which the text mentions them."""

    line: int  # counted from 1
    messages: tuple[Message, ...]
    media: tuple[MediumRef, ...]


class _Place:
    """Where we are in the file, for messages: `data.jsonl:7: images[1].fps`."""

    def __init__(self, file: str, line: int, folder: Path) -> None:
        self.prefix = f"{file}:{line}"
        self.folder = folder

    def error(self, field: str, found: object, hint: str) -> DataError:
        shown = found if isinstance(found, _Verbatim) else _show(found)
        return DataError(f"{self.prefix}: {field}: {shown}; {hint}" if field else f"{self.prefix}: {shown}; {hint}")


class _Verbatim(str):
    """Text that goes into a message as it is, unquoted."""


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "found " + (text if len(text) <= 80 else text[:77] + "...")


def read_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, text) of every line that is not blank."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; give the path of a JSONL file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); give a JSONL file") from error


def read_samples(path: str | os.PathLike[str]) -> Iterator[RawSample]:
    """Yields the samples of a JSONL file in order; raises DataError at the first bad one."""
    for line, text in read_lines(path):
        yield parse_sample(text, str(path), line)


def parse_sample(text: str, file: str, line: int) -> RawSample:
    """Parses one line of the data file `file`. Raises DataError naming file, line, field and value."""
    place = _Place(file, line, Path(file).resolve().parent)
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise place.error(
            "", _Verbatim(f"not valid JSON at column {error.colno}: {error.msg}"), "every line must be one JSON object"
        ) from error
    if not isinstance(row, dict):
        raise place.error("", row, "every line must be one JSON object")
    turns = _turns(row, place)
    named = {"image": _listed(row, "images", "image", place), "video": _listed(row, "videos", "video", place)}
    media: list[MediumRef] = []
    used = {"image": 0, "video": 0}
    messages = []
    for field, role, content, loss in turns:
        parts = _parts(content, field, named, used, media, place)
        messages.append(Message(role, parts, loss))
    for kind in ("image", "video"):
        if used[kind] != len(named[kind]):
            raise place.error(
                f"{kind}s",
                _Verbatim(f"{len(named[kind])} listed, but the text has {used[kind]} <{kind}> tag(s)"),
                f"write one <{kind}> for each entry, in the same order",
            )
    if not any(m.role == "assistant" and m.loss for m in messages):
        raise place.error("messages", _Verbatim("no assistant turn to learn from"), "add one, or drop the sample")
    return RawSample(line, tuple(messages), tuple(media))


def _turns(row: dict[str, Any], place: _Place) -> list[tuple[str, str, Any, bool]]:
    """(field for messages, role, content, loss) of each turn, of either layout."""
    if "messages" in row:
        key, role_key, text_key, roles = "messages", "role", "content", {r: r for r in ROLES}
    elif "conversations" in row:
        key, role_key, text_key, roles = "conversations", "from", "value", _SHAREGPT_ROLES
    else:
        raise place.error(
            "", _Verbatim("neither `messages` nor `conversations`"), f"found the fields {', '.join(sorted(row)) or '-'}"
        )
    turns = row[key]
    if not isinstance(turns, list) or not turns:
        raise place.error(key, turns, "must be a list of at least one turn")
    out = []
    if isinstance(row.get("system"), str) and row["system"]:
        out.append(("system", "system", row["system"], True))
    for i, turn in enumerate(turns):
        field = f"{key}[{i}]"
        if not isinstance(turn, dict):
            raise place.error(field, turn, f"must be an object with `{role_key}` and `{text_key}`")
        role = turn.get(role_key)
        if not isinstance(role, str) or role not in roles:
            raise place.error(f"{field}.{role_key}", role, f"must be one of {', '.join(roles)}")
        loss = turn.get("loss")
        if loss is not None and not isinstance(loss, bool):
            raise place.error(f"{field}.loss", loss, "must be true or false")
        out.append((f"{field}.{text_key}", roles[role], turn.get(text_key), loss is not False))
    return out


def _parts(
    content: Any,
    field: str,
    named: dict[str, list[MediumRef]],
    used: dict[str, int],
    media: list[MediumRef],
    place: _Place,
) -> tuple[str | int, ...]:
    """Splits a turn into texts and media positions, taking media from the lists in the order of their tags."""
    parts: list[str | int] = []
    if isinstance(content, str):
        last = 0
        for tag in _TAG.finditer(content):
            kind = tag.group(1)
            if used[kind] >= len(named[kind]):
                raise place.error(
                    f"{kind}s",
                    _Verbatim(f"{len(named[kind])} listed, but {field} has one more <{kind}> tag"),
                    f"write one <{kind}> for each entry, in the same order",
                )
            if tag.start() > last:
                parts.append(content[last : tag.start()])
            parts.append(len(media))
            media.append(named[kind][used[kind]])
            used[kind] += 1
            last = tag.end()
        if last < len(content) or not parts:
            parts.append(content[last:])
        return tuple(parts)
    if not isinstance(content, list):
        raise place.error(field, content, "must be text, or a list of parts")
    for i, item in enumerate(content):
        at = f"{field}[{i}]"
        if isinstance(item, str) or (isinstance(item, dict) and item.get("type") == "text"):
            text = item if isinstance(item, str) else item.get("text")
            if not isinstance(text, str):
                raise place.error(f"{at}.text", text, "must be text")
            parts.append(text)
            continue
        if not isinstance(item, dict) or item.get("type") not in ("image", "video", "image_url", "video_url"):
            raise place.error(at, item, "must be a part of type text, image, video, image_url or video_url")
        item_kind: Kind = "image" if str(item["type"]).startswith("image") else "video"
        if _path_of(item, item_kind) is None and used[item_kind] < len(named[item_kind]):
            ref = named[item_kind][used[item_kind]]  # {"type": "image"} takes the next entry of `images`
            used[item_kind] += 1
        else:
            ref = _medium(item, item_kind, at, place)
        parts.append(len(media))
        media.append(ref)
    return tuple(parts)


def _listed(row: dict[str, Any], key: str, kind: Kind, place: _Place) -> list[MediumRef]:
    value = row.get(key, row.get(kind))
    if value is None:
        return []
    if isinstance(value, (str, dict)):
        value = [value]
    if not isinstance(value, list):
        raise place.error(key, value, "must be a list of paths or objects")
    return [_medium(entry, kind, f"{key}[{i}]", place) for i, entry in enumerate(value)]


def _path_of(entry: dict[str, Any], kind: Kind) -> Any:
    for key in (kind, "path", f"{kind}_url", "url"):
        value = entry.get(key)
        if isinstance(value, dict):
            value = value.get("url")
        if value is not None:
            return value
    return None


def _medium(entry: Any, kind: Kind, field: str, place: _Place) -> MediumRef:
    options: dict[str, Any] = {}
    path = entry
    if isinstance(entry, dict):
        path = _path_of(entry, kind)
        if path is None:
            raise place.error(field, entry, f"must name its file under `{kind}` or `path`")
        allowed = _IMAGE_KEYS if kind == "image" else _VIDEO_KEYS
        for key in sorted(entry.keys() - _MEDIUM_KEYS):
            if key not in allowed:
                raise place.error(
                    f"{field}.{key}", entry[key], f"unknown; {kind} keys are {', '.join(sorted(allowed))}"
                )
        options = {key: entry[key] for key in allowed if entry.get(key) is not None}
    if isinstance(path, list) and kind == "video":
        if not path or not all(isinstance(p, str) and p for p in path):
            raise place.error(field, path, "the frames of a video must be a list of paths")
        source: str | tuple[str, ...] = tuple(_resolve(p, field, place) for p in path)
    elif isinstance(path, str) and path:
        source = _resolve(path, field, place)
    else:
        raise place.error(field, path, "must be a path" if kind == "image" else "must be a path or a list of frames")
    return _checked(MediumRef(kind, source, **options), field, place)


def _checked(ref: MediumRef, field: str, place: _Place) -> MediumRef:
    for key in ("fps", "video_start", "video_end"):
        value = getattr(ref, key)
        low_ok = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (low_ok and 0 <= value < 1e9 and (value > 0 or key == "video_start")):
            raise place.error(f"{field}.{key}", value, "must be a positive number")
    for key in ("nframes", "max_pixels"):
        value = getattr(ref, key)
        if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            raise place.error(f"{field}.{key}", value, "must be a positive whole number")
    if ref.fps is not None and ref.nframes is not None:
        raise place.error(field, _Verbatim(f"both fps {ref.fps} and nframes {ref.nframes}"), "give one of the two")
    if ref.video_start is not None and ref.video_end is not None and ref.video_start >= ref.video_end:
        raise place.error(f"{field}.video_end", ref.video_end, f"must lie after video_start ({ref.video_start} s)")
    if isinstance(ref.source, tuple):
        for key in ("nframes", "video_start", "video_end"):
            if getattr(ref, key) is not None:
                raise place.error(
                    f"{field}.{key}", getattr(ref, key), "does not apply to a list of frames: all are used"
                )
    return ref


def _resolve(path: str, field: str, place: _Place) -> str:
    if (re.match(r"[a-z][a-z0-9+.-]*://", path) and not path.startswith("file://")) or path.startswith("data:"):
        raise place.error(field, path, "only local files are read; download it and give its path")
    path = path.removeprefix("file://")
    if os.path.isabs(path):
        return path
    beside = place.folder / path
    if not beside.exists() and os.path.exists(path):
        return os.path.abspath(path)
    return str(beside)
