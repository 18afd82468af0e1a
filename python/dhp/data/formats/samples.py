"""Samples as users have them: ms-swift JSONL, ShareGPT `conversations`, OpenAI content lists.

    {"messages": [{"role": "user", "content": "<image>What is this?"}, {"role": "assistant", "content": "A cat."}],
     "images": ["cat.png"]}
    {"messages": [{"role": "user", "content": "<video>What happens?"}, …],
     "videos": [{"video": "ride.mp4", "video_start": 2.0, "video_end": 6.5, "fps": 2, "max_pixels": 65536}]}

A medium is a path, a list of paths (the frames of a video), or an object whose path stands under `image`, `video` or
`path`. Per-media keys are those of qwen-vl-utils: `fps` or `nframes`, `video_start`, `video_end` (seconds),
`max_pixels` (of one picture or frame). A relative path is looked up beside the JSONL file, then in the working folder.

A key whose value is null is not there. Keys that change what is learned are followed or refused (fields.py); turns.py
reads the turns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dhp.data.access.pieces import Piece
from dhp.data.access.urls import folder_of, is_url, joined
from dhp.data.errors import DataError, Location, Verbatim
from dhp.data.formats import fields
from dhp.data.formats.lines import MAX_LINE_BYTES, parse_json, read_lines
from dhp.data.formats.turns import Message, Turn, read_tools, read_turns

__all__ = ["Kind", "MediumRef", "Message", "RawSample", "Within", "parse_sample", "read_samples"]

Kind = Literal["image", "video", "audio"]
_TAG = re.compile(r"<(image|video)>")
_HEARD_TAG = re.compile(r"<(image|video|audio)>")
# ms-swift's tags of what is not read here; as text of their own they may stand in a list of parts
_OTHER_TAG = re.compile(r"<(?:audio|bbox|ref-object|cot-process|start-image)>")
_OTHER_HEARD_TAG = re.compile(r"<(?:bbox|ref-object|cot-process|start-image)>")
_MEDIUM_KEYS = {"type", "image", "video", "audio", "path", "url", "image_url", "video_url", "audio_url"}
_OPTIONS: dict[str, set[str]] = {
    "image": {"max_pixels"},
    "video": {"max_pixels", "fps", "nframes", "video_start", "video_end"},
    "audio": set(),
}
_MOST = {"nframes": 1 << 20, "max_pixels": 1 << 50}  # as the core's rule has them


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
    alone: bool = field(default=True, compare=False)  # of a picture: its sample has no other


@dataclass(frozen=True)
class RawSample:
    """A line of the data file, checked. Media stand in the order in which the text mentions them."""

    line: int  # counted from 1
    messages: tuple[Message, ...]
    media: tuple[MediumRef, ...]
    tools: tuple[dict[str, Any], ...] = ()  # what the chat template gets as `tools`
    ignored: tuple[str, ...] = ()  # keys that mean nothing here: `id`, `messages.time`


class _Media:
    """The media a line lists, and those that its text has mentioned so far."""

    def __init__(self, row: dict[str, Any], location: Location) -> None:
        self.location = location
        kinds: tuple[Kind, ...] = ("image", "video", "audio") if location.hears else ("image", "video")
        self.listed = {kind: _listed(row, f"{kind}s", kind, location) for kind in kinds}
        self.used = dict.fromkeys(kinds, 0)
        self.mentioned: list[MediumRef] = []

    def put(self, ref: MediumRef) -> int:
        self.mentioned.append(ref)
        return len(self.mentioned) - 1

    def next_listed(self, kind: Kind) -> MediumRef | None:
        if self.used[kind] >= len(self.listed[kind]):
            return None
        self.used[kind] += 1
        return self.listed[kind][self.used[kind] - 1]

    def check_all_used(self) -> None:
        for kind, refs in self.listed.items():
            if self.used[kind] != len(refs):
                raise self.location.error(
                    f"{kind}s",
                    Verbatim(f"{len(refs)} listed, but the text has {self.used[kind]} <{kind}> tag(s)"),
                    f"write one <{kind}> for each entry, in the same order",
                )


def read_samples(path: str | os.PathLike[str], max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[RawSample]:
    """Yields the samples of a JSONL file in order; raises DataError at the first bad one."""
    for line, text in read_lines(path, max_line_bytes):
        if isinstance(text, DataError):
            raise DataError(f"{path}:{line}: {text}")
        yield parse_sample(text, str(path), line)


@dataclass(frozen=True)
class Within:
    """How a row names media that are parts of its data file.

    members  their sources by name
    file     and `text`, which begins at `begin` there, or nowhere if that is below 0: for base64 that stands in it
    """

    members: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    text: str = ""
    begin: int = -1


def parse_sample(text: str, file: str, line: int, within: Within | None = None, hears: bool = False) -> RawSample:
    """Parses one line of the data file `file`. `hears`: sounds may be given; otherwise they are refused. Raises
    DataError naming file, line, field and value."""
    location = Location(file, line, folder_of(file))
    location.hears = hears
    location.within = within or Within()
    row = _row(text, location)
    allowed = fields.ROW | fields.SOUND if hears else fields.ROW
    refused, ignored = fields.sort_out(row, allowed)
    if refused:
        why = fields.why_refused(refused.strip().lower(), allowed)
        raise location.error(refused, row[refused], f"not supported: {why}; remove the key if it means nothing here")
    turns, more_ignored = read_turns(row, location)
    media = _Media(row, location)
    messages = tuple(_message(turn, media) for turn in turns)
    media.check_all_used()
    if not any(message.role == "assistant" and message.loss for message in messages):
        raise location.error("messages", Verbatim("no assistant turn to learn from"), "add one, or drop the sample")
    several = sum(ref.kind == "image" for ref in media.mentioned) > 1
    mentioned = tuple(replace(ref, alone=not several) for ref in media.mentioned)
    return RawSample(line, messages, mentioned, read_tools(row, location), tuple(sorted({*ignored, *more_ignored})))


def _row(text: str, location: Location) -> dict[str, Any]:
    try:
        row = parse_json(text)
    except DataError as error:
        raise location.error("", Verbatim(str(error)), "every line must be one JSON object") from None
    if not isinstance(row, dict):
        raise location.error("", row, "every line must be one JSON object")
    return fields.present(row)


def _message(turn: Turn, media: _Media) -> Message:
    parts = _parts(turn, media)
    return Message(turn.role, parts, turn.loss, turn.tool_calls, turn.reasoning, turn.name, turn.tool_call_id)


def _parts(turn: Turn, media: _Media) -> tuple[str | int, ...]:
    """Splits a turn into texts and media positions, taking media from the lists in the order of their tags."""
    if isinstance(turn.content, str):
        return _tagged(turn.content, turn.field, media)
    if not isinstance(turn.content, list):
        raise media.location.error(turn.field, turn.content, "must be text, or a list of parts")
    parts: list[str | int] = []
    for i, item in enumerate(turn.content):
        at = f"{turn.field}[{i}]"
        if isinstance(item, str):
            parts.append(item)
            continue
        item = fields.present(item) if isinstance(item, dict) else item
        if isinstance(item, dict) and item.get("type") == "text":
            parts.append(_text_of(item, at, media.location))
            continue
        kind = next((k for k in media.listed if isinstance(item, dict) and item.get("type") in (k, f"{k}_url")), None)
        if kind is None:
            types = ", ".join(["text", *media.listed, *(f"{k}_url" for k in media.listed)])
            raise media.location.error(at, item, f"must be a part of type {types}")
        ref = media.next_listed(kind) if _path_of(item, kind) is None else None  # {"type": "image"}: the next listed
        parts.append(media.put(ref or _medium(item, kind, at, media.location)))
    return tuple(parts)


def _text_of(item: dict[str, Any], at: str, location: Location) -> str:
    refused, _ = fields.sort_out(item, fields.PART)
    if refused:
        raise location.error(f"{at}.{refused}", item[refused], "a part of type text has only its text")
    text = item.get("text")
    if not isinstance(text, str):
        raise location.error(f"{at}.text", text, "must be text")
    return text


def _tagged(content: str, field: str, media: _Media) -> tuple[str | int, ...]:
    other = (_OTHER_HEARD_TAG if media.location.hears else _OTHER_TAG).search(content)
    if other:
        raise media.location.error(
            field,
            Verbatim(f"holds the tag {other.group()}, which is not supported"),
            'remove it; where it is text, write the content as [{"type": "text", "text": …}]',
        )
    parts: list[str | int] = []
    last = 0
    for tag in (_HEARD_TAG if media.location.hears else _TAG).finditer(content):
        kind: Kind = tag.group(1)  # type: ignore[assignment]
        ref = media.next_listed(kind)
        if ref is None:
            raise media.location.error(
                f"{kind}s",
                Verbatim(f"{len(media.listed[kind])} listed, but {field} has one more <{kind}> tag"),
                f"write one <{kind}> for each entry, in the same order; where it is text, write the content as a list "
                'of parts: [{"type": "text", "text": …}]',
            )
        if tag.start() > last:
            parts.append(content[last : tag.start()])
        parts.append(media.put(ref))
        last = tag.end()
    if last < len(content) or not parts:
        parts.append(content[last:])
    return tuple(parts)


def _listed(row: dict[str, Any], key: str, kind: Kind, location: Location) -> list[MediumRef]:
    both = [[value] if isinstance(value, (str, dict)) else value for value in (row.get(key), row.get(kind)) if value]
    if len(both) == 2 and both[0] != both[1]:
        raise location.error(kind, row[kind], f"`{key}` is given too, and says otherwise; give one of the two")
    value = both[0] if both else []
    if not isinstance(value, list):
        raise location.error(key, value, "must be a list of paths or objects")
    return [_medium(entry, kind, f"{key}[{i}]", location) for i, entry in enumerate(value) if entry is not None]


def _path_of(entry: dict[str, Any], kind: Kind) -> Any:
    for key in (kind, "path", f"{kind}_url", "url"):
        value = entry.get(key)
        if isinstance(value, dict):
            value = value.get("url")
        if value is not None:
            return value
    return None


def _medium(entry: Any, kind: Kind, field: str, location: Location) -> MediumRef:
    options: dict[str, Any] = {}
    path = entry
    if isinstance(entry, dict):
        entry = fields.present(entry)
        path = _path_of(entry, kind)
        if path is None:
            raise location.error(field, entry, f"must name its file under `{kind}` or `path`")
        allowed = _OPTIONS[kind]
        for key in sorted(entry.keys() - _MEDIUM_KEYS):
            if key not in allowed:
                raise location.error(
                    f"{field}.{key}", entry[key], f"unknown; {kind} keys are {', '.join(sorted(allowed)) or 'none'}"
                )
        options = {key: entry[key] for key in allowed if key in entry}
    if isinstance(path, list) and kind == "video":
        path = [p for p in path if p is not None]
        if not path or not all(isinstance(p, str) and p for p in path):
            raise location.error(field, path, "the frames of a video must be a list of paths")
        source: str | tuple[str, ...] = tuple(_resolve(p, field, location) for p in path)
    elif isinstance(path, str) and path:
        source = _resolve(path, field, location)
    else:
        raise location.error(field, path, "must be a path or a list of frames" if kind == "video" else "must be a path")
    return MediumRef(kind, source, **_options(options, source, field, location))


def _options(options: dict[str, Any], source: str | tuple[str, ...], field: str, location: Location) -> dict[str, Any]:
    """What a line says about a medium, checked. A whole number may be written with a point, as pandas does."""
    checked: dict[str, Any] = {}
    for key, value in options.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if key in _MOST:
            whole = is_number and value == value // 1
            if not (whole and 1 <= value <= _MOST[key]):
                raise location.error(f"{field}.{key}", value, f"must be a positive whole number up to {_MOST[key]:,}")
            checked[key] = int(value)
        else:
            if not (is_number and 0 <= value < 1e9 and (value > 0 or key == "video_start")):
                raise location.error(f"{field}.{key}", value, "must be a positive number, below 1e9")
            checked[key] = value
    if "fps" in checked and "nframes" in checked:
        both = Verbatim(f"both fps {checked['fps']} and nframes {checked['nframes']}")
        raise location.error(field, both, "give one of the two")
    start, end = checked.get("video_start"), checked.get("video_end")
    if start is not None and end is not None and start >= end:
        raise location.error(f"{field}.video_end", end, f"must lie after video_start ({start} s)")
    for key in ("nframes", "video_start", "video_end"):
        if isinstance(source, tuple) and key in checked:
            raise location.error(f"{field}.{key}", checked[key], "does not apply to a list of frames: all are used")
    return checked


def _resolve(path: str, field: str, location: Location) -> str:
    if path in location.within.members:
        return location.within.members[path]
    if path.startswith("data:") and location.within.begin >= 0:
        return _base64(path, field, location)
    if "\0" in path:
        raise location.error(field, path, "a path must not hold a NUL")
    if re.match(r"data:", path, re.IGNORECASE):
        raise location.error(field, f"{path[:40]}...", "base64 is read in JSON lines only; give a path")
    path = path.removeprefix("file://")
    if is_url(path) or os.path.isabs(path):
        return path
    beside = joined(location.folder, path)
    if is_url(beside):
        return beside
    if not os.path.exists(beside) and os.path.exists(path):
        return os.path.abspath(path)
    return beside


def _base64(url: str, field: str, location: Location) -> str:
    """The source of a data URL: where its base64 stands in the data file."""
    head, _, payload = url.partition(",")
    if not head.endswith(";base64") or not payload:
        raise location.error(field, f"{url[:40]}...", "a data URL must be data:TYPE;base64, with base64 behind it")
    within = location.within
    for written in (payload, payload.replace("/", "\\/")):  # some write a backslash before a slash
        at = within.text.find(written)
        if at >= 0:
            begin = within.begin + len(within.text[:at].encode())
            return Piece(within.file, begin, len(written), field, is_base64=True).source()
    raise location.error(field, f"{url[:40]}...", "write base64 without escapes")
