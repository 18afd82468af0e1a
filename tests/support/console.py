"""Console blocks of README and docs, and whether commands print what they show."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field

from command_line import ROOT

# What a clock measured. Columns are as wide as their widest entry, so that spaces count as one.
_TIME = re.compile(r"(?<![\d.])[\d,.]+ (ms|µs)(?=\s*$| \||   )")
_NUMBER = re.compile(r"(?<![\w.])[-+]?[\d,]*\d(\.\d+)?(e-?\d+)?")
LEFT_OUT = "…"


@dataclass
class Shown:
    command: str
    lines: list[str] = field(default_factory=list)  # as printed; LEFT_OUT stands for any number of lines


def shown_in(file: str) -> list[Shown]:
    """The commands of all console blocks of a file, each with what it prints there. `$ NAME=...` is put before those
    that follow. A blank line before the next command is none that was printed."""
    commands: list[Shown] = []
    before = ""
    for block in re.findall(r"^ *```console\n(.*?)```", (ROOT / file).read_text(), re.DOTALL | re.MULTILINE):
        for line in textwrap.dedent(block.rstrip(" ")).splitlines():
            if re.match(r"\$ [A-Z]+=", line):
                before += line[2:] + "\n"
            elif line.startswith("$ "):
                if commands and commands[-1].lines[-1:] == [""]:
                    commands[-1].lines.pop()
                commands.append(Shown(before + line[2:]))
            else:
                commands[-1].lines.append(line)
    return commands


def masked(line: str, *, measured: bool = False) -> str:
    """Without times that planning took; where all is `measured`, without any number."""
    return " ".join((_NUMBER.sub("#", line) if measured else _TIME.sub("TIME", line)).split())


def check(shown: Shown, printed: list[str]) -> None:
    """Asserts that these lines are what is shown."""
    told = [masked(line) for line in shown.lines]
    actual = [masked(line) for line in printed]
    if LEFT_OUT not in told:
        assert actual == told, shown.command
        return
    position = 0
    for number, part in enumerate(_split(told)):
        while position <= len(actual) and actual[position : position + len(part)] != part:
            assert number > 0, f"{shown.command}: begins otherwise: {actual[: len(part)]}"
            position += 1
        assert position <= len(actual), f"{shown.command}: prints no such lines: {part}"
        position += len(part)
    assert told[-1] == LEFT_OUT or position == len(actual), f"{shown.command}: goes on: {actual[position:]}"


def _split(told: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for line in told:
        if line == LEFT_OUT:
            parts.append([])
        else:
            parts[-1].append(line)
    return parts
