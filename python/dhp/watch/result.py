"""Results of runs, `dhp.result/1`: what `dhp simulate` and, by `Result.to_json`, `dhp train --result` write and
`dhp report` reads.

docs/report.md documents the format. Long lists become columns (numpy arrays), one a field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dhp._core import InputError

FORMAT = "dhp.result/1"
KINDS = ("simulated", "measured")
CLOCKS = ("simulated", "emulated", "wall")
CAUSES = ("peer", "transfer", "data", "no_task")  # why a rank is idle
SPANS = ("compute", "transfer", "peer", "data", "reduce", "optimizer", "save")
MAX_RANKS = 1_000_000
MAX_WHOLE = 2**53  # what every reader of JSON holds exactly
MOST_BYTES = 500_000_000  # of a file: reading takes some six times as much memory
MOST = 1e18  # of any other number, seconds or bytes
NUMBER = f"a number from 0 to {MOST:g}"

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """One step. Fields that a writer did not know are None; idle_s holds the causes that it knew."""

    step: int  # from 1
    seconds: float  # the whole of it
    tasks_s: float | None  # from the first task's start to the last one's end: what predicted_s predicts
    predicted_s: float | None
    expected_s: float | None  # predicted_s under the errors that the cost expects, on average
    lower_bound_s: float | None
    tokens: int | None
    planning_s: float | None
    idle_s: dict[str, float]  # rank-seconds a cause, summed over ranks


class TaskTime(NamedTuple):
    """A task of a step, as it was planned and as it went."""

    step: int
    id: int
    degree: int
    sequences: int
    tokens: int
    predicted_s: float
    seconds: float


class Span(NamedTuple):
    """What a rank did from `start_s` to `end_s` of a step: one of SPANS; task -1: for none."""

    rank: int
    kind: str
    start_s: float
    end_s: float
    task: int = -1


@dataclass(frozen=True)
class Timeline:
    """What every rank did in one step; its start is 0."""

    step: int
    spans: Columns  # of Span, but kind is an index into SPANS

    @staticmethod
    def of(step: int, spans: Sequence[Span]) -> Timeline:
        """Of at least one span."""
        kinds = np.array([SPANS.index(span.kind) for span in spans])
        return Timeline(step, columns(spans) | {"kind": kinds})


@dataclass(frozen=True)
class Memory:
    budget_bytes: float | None
    peak_bytes: np.ndarray | None  # one a rank
    over_time: Columns | None  # rank, time_s, bytes


@dataclass(frozen=True)
class Result:
    """A `dhp.result/1` file."""

    source: str
    kind: str
    name: str
    planner: str
    ranks: int
    ranks_in_service: int
    ranks_per_node: int | None
    clock: str
    steps: list[Step]
    tasks: Columns | None  # of TaskTime; NaN or -1 where unknown
    timeline: Timeline | None
    memory: Memory | None
    lengths: np.ndarray | None  # tokens of every sequence of the timeline's step

    def to_json(self) -> str:
        """The result as a `dhp.result/1` file, without unknown fields."""
        return json.dumps({"format": FORMAT} | _plain(self))


def columns(rows: Sequence[Any]) -> Columns:
    """Of named tuples of one kind, at least one."""
    return {name: np.array(column) for name, column in zip(rows[0]._fields, zip(*rows, strict=True), strict=True)}


def _plain(value: Any) -> Any:
    """What JSON can hold: columns become rows again, and what is not known goes."""
    if is_dataclass(value):
        known = {key: of for key, of in vars(value).items() if of is not None and key != "source"}
        return {key: _plain(of) for key, of in known.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict) and value and all(isinstance(of, np.ndarray) for of in value.values()):
        lists = [[SPANS[i] for i in of] if key == "kind" else of.tolist() for key, of in value.items()]
        rows = zip(*lists, strict=True)
        return [{key: of for key, of in zip(value, row, strict=True) if of != -1 and of == of} for row in rows]
    return value


def read_result(file: str | Path) -> Result:
    """Reads a `dhp.result/1` file. Raises InputError naming file, place, found value and expectation."""
    try:
        with open(file, "rb") as stream:
            raw = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give the path of a {FORMAT} file") from None
    if len(raw) > MOST_BYTES:
        raise InputError(
            f"{file}: more than {MOST_BYTES // 10**6} MB; expected a {FORMAT} file, of fewer steps or tasks"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start}: not UTF-8 text; expected a {FORMAT} file") from None
    return parse_result(text, str(file))


def parse_result(text: str, source: str) -> Result:
    """Parses `dhp.result/1` JSON; `source` names the text in errors. Raises InputError."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise InputError(f"{source}: {place}: not JSON: {error.msg}; was the file cut off?") from None
    except RecursionError:
        raise InputError(f"{source}: not a {FORMAT} file: nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{source}: not JSON that can be read: {error}") from None
    root = _Object(document, source, "")
    found = root.text("format")
    if found != FORMAT:
        hint = "; this is another kind of file of dhp" if found.startswith("dhp.") else ""
        root.fail("format", f'found {_shown(found)}, expected "{FORMAT}"{hint}')
    ranks = root.whole("ranks", 1, MAX_RANKS)
    is_old = root.has("schedule") and not root.has("planner")  # of the release before "planner"
    return Result(
        source=source,
        kind=root.choice("kind", KINDS),
        name=root.text("name"),
        planner=root.text("schedule" if is_old else "planner"),
        ranks=ranks,
        ranks_in_service=root.whole("ranks_in_service", 1, ranks) if root.has("ranks_in_service") else ranks,
        ranks_per_node=root.whole("ranks_per_node", 1, MAX_RANKS) if root.has("ranks_per_node") else None,
        clock=root.choice("clock", CLOCKS),
        steps=_steps(root),
        tasks=_tasks(root, ranks),
        timeline=_timeline(root, ranks),
        memory=_memory(root, ranks),
        lengths=_lengths(root),
    )


def _steps(root: _Object) -> list[Step]:
    steps: list[Step] = []
    for entry in root.rows("steps"):
        idle = entry.object("idle_s") if entry.has("idle_s") else None
        number = entry.whole("step", 0, MAX_WHOLE)
        if steps and number <= steps[-1].step:
            entry.fail("step", f"found {number} after {steps[-1].step}, expected ascending numbers")
        steps.append(
            Step(
                step=number,
                seconds=entry.number("seconds"),
                tasks_s=entry.number_or_none("tasks_s"),
                predicted_s=entry.number_or_none("predicted_s"),
                expected_s=entry.number_or_none("expected_s"),
                lower_bound_s=entry.number_or_none("lower_bound_s"),
                tokens=entry.whole("tokens", 0, MAX_WHOLE) if entry.has("tokens") else None,
                planning_s=entry.number_or_none("planning_s"),
                idle_s={cause: idle.number(cause) for cause in CAUSES if idle.has(cause)} if idle else {},
            )
        )
    if not steps:
        root.fail("steps", "found no step, expected at least one")
    return steps


def _tasks(root: _Object, ranks: int) -> Columns | None:
    if not root.has("tasks"):
        return None
    tasks = root.rows("tasks")
    return {
        "step": tasks.whole("step", 0, MAX_WHOLE, None),
        "id": tasks.whole("id", 0, MAX_WHOLE, None),
        "degree": tasks.whole("degree", 1, ranks, -1),
        "sequences": tasks.whole("sequences", 0, MAX_WHOLE, -1),
        "tokens": tasks.whole("tokens", 0, MAX_WHOLE, -1),
        "predicted_s": tasks.number("predicted_s", math.nan),
        "seconds": tasks.number("seconds", math.nan),
    }


def _timeline(root: _Object, ranks: int) -> Timeline | None:
    if not root.has("timeline"):
        return None
    timeline = root.object("timeline")
    spans = timeline.rows("spans")
    columns = {
        "rank": spans.whole("rank", 0, ranks - 1, None),
        "kind": spans.choice("kind", SPANS),
        "start_s": spans.number("start_s", None),
        "end_s": spans.number("end_s", None),
        "task": spans.whole("task", 0, MAX_WHOLE, -1),
    }
    backwards = np.flatnonzero(columns["end_s"] < columns["start_s"])
    if backwards.size:
        span = spans[int(backwards[0])]
        span.fail("end_s", f"found {span.value['end_s']!r}, expected at least start_s, {span.value['start_s']!r}")
    return Timeline(timeline.whole("step", 0, MAX_WHOLE), columns)


def _memory(root: _Object, ranks: int) -> Memory | None:
    if not root.has("memory"):
        return None
    memory = root.object("memory")
    peak = None
    if memory.has("peak_bytes"):
        peak = memory.numbers("peak_bytes")
        if len(peak) != ranks:
            memory.fail("peak_bytes", f"found {len(peak)} numbers, expected one a rank: {ranks}")
    over_time = None
    if memory.has("over_time"):
        points = memory.rows("over_time")
        over_time = {
            "rank": points.whole("rank", 0, ranks - 1, None),
            "time_s": points.number("time_s", None),
            "bytes": points.number("bytes", None),
        }
    return Memory(memory.number_or_none("budget_bytes"), peak, over_time)


def _lengths(root: _Object) -> np.ndarray | None:
    if not root.has("lengths"):
        return None
    lengths = root.array("lengths", "a list of whole numbers")
    for i, value in enumerate(lengths):
        if not _is_whole(value, 0, MAX_WHOLE):
            root.fail(f"lengths[{i}]", f"found {_shown(value)}, expected a whole number from 0")
    return np.array(lengths, dtype=np.int64)


@dataclass
class _Object:
    """A JSON object and where it stands, so that every complaint names file, place, found value and expectation."""

    value: Any
    source: str
    path: str

    def __post_init__(self) -> None:
        if type(self.value) is not dict:
            place = f"{self.path}: " if self.path else ""
            raise InputError(f"{self.source}: {place}found {_shown(self.value)}, expected an object")

    def has(self, key: str) -> bool:
        """Is the field there and not null?"""
        return self.value.get(key) is not None

    def fail(self, key: str, problem: str) -> Any:
        place = f"{self.path}.{key}" if self.path else key
        raise InputError(f"{self.source}: {place}: {problem}")

    def _get(self, key: str, expected: str) -> Any:
        if key not in self.value:
            self.fail(key, f"missing, expected {expected}")
        return self.value[key]

    def text(self, key: str) -> str:
        value = self._get(key, "a text")
        if type(value) is not str or value != _encodable(value):
            self.fail(key, f"found {_shown(value)}, expected a text")
        return str(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        expected = "one of " + ", ".join(choices)
        value = self._get(key, expected)
        if type(value) is not str or value not in choices:
            self.fail(key, f"found {_shown(value)}, expected {expected}")
        return str(value)

    def whole(self, key: str, low: int, high: int) -> int:
        expected = f"a whole number from {low} to {high}"
        value = self._get(key, expected)
        if not _is_whole(value, low, high):
            self.fail(key, f"found {_shown(value)}, expected {expected}")
        return int(value)

    def number(self, key: str) -> float:
        """A number from 0 to MOST."""
        value = self._get(key, NUMBER)
        number = _finite(value)
        if number is None:
            self.fail(key, f"found {_shown(value)}, expected {NUMBER}")
        return number or 0.0

    def number_or_none(self, key: str) -> float | None:
        return self.number(key) if self.has(key) else None

    def array(self, key: str, expected: str) -> list[Any]:
        value = self._get(key, expected)
        return value if type(value) is list else self.fail(key, f"found {_shown(value)}, expected {expected}")

    def numbers(self, key: str) -> np.ndarray:
        values = self.array(key, "a list of numbers")
        for i, value in enumerate(values):
            if _finite(value) is None:
                self.fail(f"{key}[{i}]", f"found {_shown(value)}, expected {NUMBER}")
        return np.array(values, dtype=np.float64)

    def object(self, key: str) -> _Object:
        return _Object(self._get(key, "an object"), self.source, f"{self.path}.{key}" if self.path else key)

    def rows(self, key: str) -> _Rows:
        values = self.array(key, "a list of objects")
        return _Rows(values, self.source, f"{self.path}.{key}" if self.path else key)


@dataclass
class _Rows:
    """A list of objects, of which there may be a million: whole columns are read at once; entries are looked at one by
    one only to say what is wrong with one of them."""

    values: list[Any]
    source: str
    path: str

    def __post_init__(self) -> None:
        if set(map(type, self.values)) - {dict}:
            list(self)  # raises

    def __iter__(self) -> Iterator[_Object]:
        return (_Object(value, self.source, f"{self.path}[{i}]") for i, value in enumerate(self.values))

    def __getitem__(self, i: int) -> _Object:
        return _Object(self.values[i], self.source, f"{self.path}[{i}]")

    def whole(self, key: str, low: int, high: int, without: int | None) -> np.ndarray:
        """The field of every row; `without` stands for one that is not there (None: it must be)."""
        found = [value.get(key, without) for value in self.values]
        if set(map(type, found)) == {int}:
            column = np.array(found)
            outside = int(((column < low) | (column > high)).sum()) if column.dtype == np.int64 else -1
            if outside == 0 or (without is not None and outside == sum(key not in value for value in self.values)):
                return column
        rows = [row.whole(key, low, high) if without is None or row.has(key) else without for row in self]
        return np.array(rows, dtype=np.int64)

    def number(self, key: str, without: float | None) -> np.ndarray:
        found = [value.get(key, without) for value in self.values]
        if found and set(map(type, found)) <= {int, float}:
            column = np.array(found, dtype=np.float64)
            if ((column >= 1 / MOST) & (column <= MOST) | (column == 0.0)).all():
                return column
        rows = [row.number(key) if without is None or row.has(key) else without for row in self]
        return np.array(rows, dtype=np.float64)

    def choice(self, key: str, choices: tuple[str, ...]) -> np.ndarray:
        """Index into choices."""
        index = {choice: i for i, choice in enumerate(choices)}
        found = [value.get(key) for value in self.values]
        if set(map(type, found)) <= {str} and set(found) <= index.keys():
            return np.array([index[value] for value in found], dtype=np.int64)
        return np.array([index[row.choice(key, choices)] for row in self], dtype=np.int64)


def _is_whole(value: Any, low: int, high: int) -> bool:
    """A whole number within bounds, if written as 1e6 or 3.0 too."""
    whole = type(value) is int or (type(value) is float and value.is_integer())
    return whole and low <= value <= high


def _finite(value: Any) -> float | None:
    """A number from 0 to MOST, else None. What is finer than any clock counts as 0, so that ratios stay finite."""
    if type(value) not in (int, float) or not 0 <= value <= MOST:  # NaN is neither
        return None
    return float(value) if value >= 1 / MOST else 0.0


def _shown(value: Any) -> str:
    """A found value for an error message: JSON, cut to what a line holds."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    try:
        text = _encodable(json.dumps(value, ensure_ascii=False))
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "…"


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can spell and no file can hold."""
    return text.encode("utf-8", "replace").decode()


__all__ = ["CAUSES", "CLOCKS", "FORMAT", "KINDS", "SPANS", "Memory", "Result", "Span", "Step", "TaskTime", "Timeline",
           "columns", "parse_result", "read_result"]  # fmt: skip
