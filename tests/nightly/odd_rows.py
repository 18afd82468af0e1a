"""Lines of a data file: good ones of every form that is read, and what becomes of them when a few things are odd."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import odd_media
from hypothesis import strategies as st
from odd_values import as_json, changes, scratched


def turns(question: str, answer: str = "Yes, all of it.") -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def parts(*content: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": list(content)},
        {"role": "assistant", "content": [{"type": "text", "text": "A."}]},
    ]


# Must be read whatever stands beside them.
GOOD: tuple[dict[str, Any], ...] = (
    {"messages": turns("How are you?")},
    {"messages": turns("<image>What is it?"), "images": ["plain.png"]},
    {"messages": turns("<video>What moves?"), "videos": ["plain.mp4"]},
)
# One of each form, and of each field that changes what is learned; some of these may be refused, by name.
FUNCTION = {"name": "f", "arguments": {}}
CUT = {"video": "plain.mp4", "video_start": 0.2, "video_end": 0.9, "fps": 4}
FORMS: tuple[dict[str, Any], ...] = (
    *GOOD,
    {"messages": turns("<image><image>Which?"), "images": ["plain.jpg", {"image": "turned.jpg", "max_pixels": 65536}]},
    {"messages": turns("<image>One."), "image": "palette.png"},
    {"messages": turns("<image>One."), "images": {"path": "moving.gif", "bytes": None}},
    {"messages": turns("<video>Part."), "videos": [CUT]},
    {"messages": turns("<video>Few."), "videos": [{"video": "short.mkv", "nframes": 2, "max_pixels": 65536}]},
    {"messages": turns("<video>Frames."), "videos": [["plain.png", "plain.png", "plain.png"]]},
    {"messages": turns("<image>and<video>"), "images": ["deep.png"], "videos": ["one_frame.mp4"]},
    {"messages": parts({"type": "image", "image": "clear.png"}, {"type": "text", "text": "What?"})},
    {"messages": parts({"type": "image_url", "image_url": {"url": "file://plain.png"}}, "What?")},
    {"messages": parts({"type": "video", "video": "uneven.avi"}, {"type": "text", "text": "?", "image": None})},
    {"messages": parts({"type": "image"}, {"type": "text", "text": "What?"}), "images": ["grey.png"]},
    {"conversations": [{"from": "human", "value": "<image>Hi"}, {"from": "gpt", "value": "Ho."}], "image": "cmyk.jpg"},
    {"system": "Be brief.", "messages": [*turns("One?"), *turns("Two?")], "images": None, "id": 7},
    {"messages": [*turns("One?"), turns("Two?")[0], {**turns("Two?")[1], "loss": False}, *turns("Three?")]},
    {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "messages": [
            {"role": "user", "content": "Call."},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": FUNCTION}]},
            {"role": "tool", "content": "1"},
            {"role": "assistant", "content": "One.", "reasoning_content": "Hm."},
        ],
    },
    {
        "messages": turns("<image>Where is <ref-object>?", "<bbox>"),
        "images": ["plain.png"],
        "objects": {"ref": ["it"], "bbox": [[1, 2, 30, 40]]},
    },
    {"messages": [*turns("One?"), *turns("Two?")], "loss_scale": "last_round"},
    {"messages": turns("Good?"), "rejected_response": "Bad.", "label": True, "channel": "web"},
    {"query": "One?", "response": "Two.", "history": [["a", "b"]]},
)
NAMES = [
    "messages",
    "conversations",
    "images",
    "image",
    "videos",
    "video",
    "audios",
    "role",
    "content",
    "from",
    "value",
    "type",
    "text",
    "path",
    "bytes",
    "url",
    "image_url",
    "max_pixels",
    "fps",
    "nframes",
    "video_start",
    "video_end",
    "loss",
    "loss_scale",
    "system",
    "tools",
    "tool_calls",
    "reasoning_content",
    "objects",
    "bbox",
    "ref",
    "label",
    "rejected_response",
    "rejected_messages",
    "query",
    "response",
    "margin",
    "weight",
    "min_pixels",
    "resized_height",
    "id",
    "name",
    "_",
]
RAW = [
    *(b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b'{"messages": ' + b"9" * 5000 + b"}", b"x" * 100_000),
    *(b"null", b"[]", b"{}", b'""', b"\0", b"NaN", b"<html>", b'{"messages": [], "messages": [{"role": "user"}]}'),
    *(b"\xff\xfe{\0}\0", b"version https://git-lfs.github.com/spec/v1", b"PAR1\0\0", b"\x1f\x8b\x08\0\0"),
]


@dataclass(repr=False)
class Line:
    """A line of the file, without its end. Where it names a medium `fresh.*`, that is a damaged copy of `of`."""

    text: bytes
    of: str = ""
    damage: int = 0  # seed

    def __repr__(self) -> str:
        shown = repr(self.text) if len(self.text) < 2000 else f"{self.text[:40]!r} ... {len(self.text)} bytes"
        return f"Line({shown}, {self.of!r}, {self.damage})"

    def written(self, folder: Path, number: int) -> bytes:
        """Makes its medium, under a name of its own; the line with that name."""
        if not self.of:
            return self.text
        suffix = Path(self.of).suffix
        content = odd_media.damaged((folder / self.of).read_bytes(), random.Random(self.damage))
        (folder / f"fresh{number}{suffix}").write_bytes(content)
        return self.text.replace(f"fresh{suffix}".encode(), f"fresh{number}{suffix}".encode())


@st.composite
def lines(draw: st.DrawFn) -> Line:
    if draw(st.integers(0, 19)) == 19:
        return Line(draw(st.sampled_from(RAW)))
    row = draw(st.sampled_from(FORMS))
    damage = {}
    media = [value for value in _texts(row) if value in odd_media.PICTURES + odd_media.CLIPS]
    if media and draw(st.booleans()):
        old = draw(st.sampled_from(media))
        new = draw(st.sampled_from(odd_media.NAMES))
        if draw(st.booleans()):
            new, damage = "fresh" + Path(old).suffix, {"of": old, "damage": draw(st.integers(0, 2**32))}
        row = _replaced(row, old, new)
    row = draw(changes(row, NAMES))
    text = as_json(row).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 4:
        text = draw(scratched(text))
    return Line(text.replace(b"\n", b" ").replace(b"\r", b" "), **damage)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for child in inner for text in _texts(child)]


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(child, old, new) for key, child in value.items()}
    if isinstance(value, list):
        return [_replaced(child, old, new) for child in value]
    return new if value == old else value
