"""Changes to JSON-like documents and to text, as strategies of hypothesis."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from said import FORGERIES

# What stands where something else should: every type, and the edges of each.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 0.0, -0.0, 0.5, -1.5, 1e-300, 1e300, math.inf, -math.inf, math.nan),
    *(2**31, 2**63, -(2**63), 2**64, 10**30, 10**400),
    *("", " ", "a", "0", "1", "true", "null", "nan", "\n", "\0", "\x1b[31m", "\ud800", "\u202e", "\ufeff", "e\u0301"),
    *("\U0001d518" * 9, "x" * 9000, "{{ x }}", "{% for %}", "../..", "/"),
    *["<image>", "<video>", "<audio>", "<bbox>", "<ref-object>", "<|im_end|>", "<|image_pad|>"],
    *([], {}, [None], [[]], [{}], {"": ""}, {"a": None}, [1, 2], ["a", "b"], [["a"], ["b"]]),
    *({"url": None}, {"url": "plain.png"}),
    *FORGERIES,
    *({forgery: 1} for forgery in FORGERIES),
)
SCRATCHES = (b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"[", b"#", b"=", b",")


def odd_values() -> st.SearchStrategy[Any]:
    return st.sampled_from(ODD) | st.text(max_size=8) | st.integers() | st.floats()


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside, and of the whole: ()."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, child in inner for place in places(child, (*here, key)))]


def changed(value: Any, place: tuple[Any, ...], change: Any) -> Any:
    """A copy in which `change(container, key)` was called for the place; of the whole, with [whole] and 0."""
    holder = [json.loads(json.dumps(value))]
    container: Any = holder
    keys = (0, *place)
    for key in keys[:-1]:
        container = container[key]
    change(container, keys[-1])
    return holder[0] if holder else None


@st.composite
def changes(draw: st.DrawFn, value: Any, names: Sequence[str], most: int = 3) -> Any:
    """The document with up to `most` changes: values replaced, removed, renamed to one of `names`, wrapped, repeated,
    fields of `names` added. Only values that JSON can write and read again."""
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.sampled_from(places(value)))
        odd, name, kind = draw(odd_values()), draw(st.sampled_from(names)), draw(st.integers(0, 5))

        def change(container: Any, key: Any, odd: Any = odd, name: str = name, kind: int = kind) -> None:
            if kind == 0:
                container[key] = odd
            elif kind == 1:
                del container[key]
            elif kind == 2 and isinstance(container, dict):
                container[name] = container.pop(key)
            elif kind == 3:
                container[key] = [container[key]]
            elif kind == 4 and isinstance(container, list):
                container.append(container[key])
            elif isinstance(container[key], dict):
                container[key][name] = odd
            else:
                container[key] = odd

        value = changed(value, place, change)
        if not isinstance(value, (dict, list)):
            break
    return value


def as_json(value: Any, pretty: bool = False) -> str:
    """As programs write it: lone surrogates as escapes, 1e400 and nan as Python does."""
    return json.dumps(value, indent=1 if pretty else None)


@st.composite
def scratched(draw: st.DrawFn, text: bytes) -> bytes:
    """The bytes with one stretch cut, repeated or overwritten."""
    place = draw(st.integers(0, len(text)))
    length = draw(st.integers(0, 12))
    put = draw(st.binary(max_size=4) | st.sampled_from(SCRATCHES))
    match draw(st.integers(0, 3)):
        case 0:
            return text[:place]
        case 1:
            return text[:place] + put + text[place + length :]
        case 2:
            return text[:place] + text[place : place + length] + text[place:]
        case _:
            return text[:place] + put + text[place:]
