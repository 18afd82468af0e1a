"""What odd text becomes in messages: nothing that steers a terminal, no line that looks like one of dhp's own, nothing
too long to read."""

from __future__ import annotations

import re
import unicodedata

# Each brings "forged" to the beginning of a line, or what looks like a message of ours, unless it is escaped.
FORGERIES = (
    *("a\ndhp: error: forged", "a\r\ndhp: forged", "a\rdhp: forged", "\ndhp index: error: forged", "\nforged\n"),
    *("\ndata.jsonl:1: forged", "\nskipped 999:\nforged", "\n... and 999 more\nforged"),
    *("a\x0bdhp: forged", "a\x0cdhp: forged", "a\x85dhp: forged", "a\u2028dhp: forged", "a\u2029dhp: forged"),
    *("\x1b[2K\x1b[Gdhp: forged", "\x9b2Kdhp: forged", "\x1b]0;forged\x07", "\x08\x08\x08\x7f", "a\tdhp: forged"),
    *("\u202edegrof", "\u2066forged", "\u061cforged", "\u200fforged", "\ufff9forged\ufffb"),
)
_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # of writing direction
_MARKS = "\u061c\u200e\u200f\ufff9\ufffa\ufffb"
_LIKE_OURS = re.compile(r"(dhp[^:]*: |\S*\.jsonl:\d+: )?(error: )?forged|\.\.\. and 999 more|skipped 999:$")


def steers(character: str) -> bool:
    """Whether a terminal, or whoever splits text into lines, acts on it. A line's end is none: messages have them."""
    odd = unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")
    turns = character in _MARKS or unicodedata.bidirectional(character) in _TURNS
    return (odd and character != "\n") or turns


def check_shown(said: str) -> None:
    assert "Traceback" not in said, said
    steering = {character for character in said if steers(character)}
    assert not steering, f"steers the terminal: {steering}: {said!r}"
    forged = [line for line in said.split("\n") if _LIKE_OURS.match(line)]
    assert not forged, f"a line that dhp has not written: {forged}: {said!r}"
    assert all(len(line) < 1200 for line in said.split("\n")), f"too long to read: {said[:3000]!r}"
