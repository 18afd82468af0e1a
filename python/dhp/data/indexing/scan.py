"""From lines of a data file to samples with their exact counts, and every line that cannot be used, with its reason.

Whatever goes wrong with a line, in whichever library, is that line's problem alone.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dhp._core import InputError
from dhp._core import Sequence as BatchSequence
from dhp.base.output import one_line
from dhp.data.access.files import check_file
from dhp.data.access.opening import pinned
from dhp.data.access.pieces import file_of, is_base64, shown
from dhp.data.access.urls import folder_of, is_url
from dhp.data.decoding.media import Medium, read_units
from dhp.data.errors import DataError
from dhp.data.formats.rows import Numbered
from dhp.data.formats.samples import MediumRef, Message, RawSample, Within, parse_sample
from dhp.data.grid import probe_medium
from dhp.data.indexing.records import digest_of, files_of, ignored_if_same, record_of
from dhp.data.text import Encoder

SHOWN = 20  # problems listed in a message; the rest is counted
MAX_WORKERS = 256
_IN = TypeVar("_IN")
_OUT = TypeVar("_OUT")


@dataclass(frozen=True)
class Sample:
    id: int  # line in the data file, from 1
    tokens: int  # of the language model: text and merged visual tokens
    patches: int  # vision patches
    label_tokens: int  # tokens with a loss
    messages: tuple[Message, ...]
    media: tuple[Medium, ...]  # in the order in which the text mentions them
    tools: tuple[dict[str, Any], ...] = ()  # what the chat template gets as `tools`

    @property
    def frame_patches(self) -> int:
        """Of its largest picture or temporal patch; 0 without media. Follows from the grids, which any index has."""
        return max((medium.unit_patches for medium in self.media), default=0)

    def as_sequence(self) -> BatchSequence:
        """What planners see of it."""
        return BatchSequence(self.id, self.tokens, self.patches, self.frame_patches)


@dataclass(frozen=True)
class Problem:
    """A line that is not in the index, and why.

    kind  malformed   cannot be understood, or asks for what is not there or not supported
          media       names a picture or clip that cannot be read
          too_long    readable, but beyond the limits
          unexpected  a fault of a library, or of dhp itself: the message names the exception
    """

    id: int
    message: str
    kind: str = "malformed"
    tokens: int = 0  # of a sample that is too long
    degree: int = 0  # ranks it needs, where the capacity of one is known

    @property
    def too_long(self) -> bool:
        return self.kind == "too_long"


@dataclass(frozen=True)
class Limits:
    """Which samples are too long: more than `max_tokens`, or than `max_degree` ranks of the given capacity hold."""

    max_tokens: int | None = None
    max_degree: int | None = None
    capacity_tokens_per_rank: int | None = None

    def check(self, sample: Sample | Row) -> Problem | None:
        capacity = self.capacity_tokens_per_rank
        degree = math.ceil(sample.tokens / capacity) if capacity else 0
        why = []
        if self.max_tokens is not None and sample.tokens > self.max_tokens:
            why.append(f"more than {self.max_tokens}")
        if self.max_degree is not None and degree > self.max_degree:
            why.append(f"more than {self.max_degree} ranks hold")
        if not why:
            return None
        fits = f"; fits at degree >= {degree} ({capacity} tokens a rank)" if degree else ""
        message = f"{sample.tokens} tokens, {' and '.join(why)}{fits}"
        return Problem(sample.id, message, "too_long", sample.tokens, degree)


@dataclass(frozen=True)
class Row:
    """A sample as the index keeps it."""

    id: int
    tokens: int
    patches: int
    frame_patches: int
    label_tokens: int
    pictures: int
    clips: int
    record: bytes

    def numbers(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in NUMBERS)

    @classmethod
    def of(cls, numbers: Mapping[str, int], record: bytes) -> Row:
        return cls(**numbers, record=record)


NUMBERS = ("id", "tokens", "patches", "frame_patches", "label_tokens", "pictures", "clips")


@dataclass(frozen=True)
class Item:
    """A line to be read. known: what it was when it was read before, perhaps with other contents or media."""

    read: Numbered
    known: Row | None = None


@dataclass(frozen=True)
class Line:
    """What became of a line of a data file."""

    sample: Row | Problem
    ignored: tuple[str, ...] = ()  # its keys that mean nothing here


class LineReader:
    """From lines of a data file to what the index keeps of them. `probe` may be called in several threads, `count` in
    one at a time."""

    def __init__(self, data: str | os.PathLike[str], encoder: Encoder, verify: bool = False) -> None:
        self._data, self._encoder, self._verify = str(data), encoder, verify
        self._folder = folder_of(data)

    def read(self, item: Item) -> Line:
        return self.count(self.probe(item))

    def probe(self, item: Item) -> Line | Probed:
        """Parses a line and opens its media; tokens are counted later. Where neither the line nor its media have
        changed, it is what it was."""
        line, text = item.read.line, item.read.text
        if isinstance(text, DataError):
            return Line(Problem(line, one_line(str(text))))
        digest = digest_of(text)
        known = item.known
        ignored = self._ignored_if_same(known.record, digest, item.read.begin) if known else None
        if known and ignored is not None:
            return Line(known, ignored)
        within = Within(item.read.members or {}, self._data, text, item.read.begin)
        hears = self._encoder.processor.sound is not None
        raw = self._guarded(line, lambda: parse_sample(text, self._data, line, within, hears))
        if isinstance(raw, Problem):
            return Line(raw)
        return self._guarded(line, functools.partial(self._with_media, raw, digest, item.read.begin), raw.ignored)

    def _ignored_if_same(self, record: bytes, digest: str, begin: int) -> tuple[str, ...] | None:
        return ignored_if_same(record, digest, begin, self._folder, self._encoder.processor.media_roots)

    def _with_media(self, raw: RawSample, digest: str, begin: int) -> Probed:
        raw = replace(raw, media=tuple(map(self._pinned, raw.media)))
        files = files_of(ref.source for ref in raw.media)  # before they are read
        seen: dict[str, Any] = {"line": digest, "files": files, "ignored": list(raw.ignored)}
        if any(isinstance(ref.source, str) and is_base64(ref.source) for ref in raw.media):
            seen["begin"] = begin
        processor = self._encoder.processor
        media = tuple(probe_medium(ref, processor) for ref in raw.media)
        for medium in media if self._verify else ():
            read_units(medium, 0, medium.units, processor)
        patches = sum(medium.patches for medium in media)
        sample = Sample(raw.line, 0, patches, 0, raw.messages, media, raw.tools)
        return Probed(sample, raw.ignored, seen)

    def _pinned(self, ref: MediumRef) -> MediumRef:
        """With what its files at addresses are now, if they may be asked for."""
        for path in [ref.source] if isinstance(ref.source, str) else ref.source:
            if is_url(file_of(path)):
                check_file(path, self._encoder.processor.media_roots)
        return replace(ref, source=pinned(ref.source))

    def count(self, probed: Line | Probed) -> Line:
        """Counts the tokens."""
        if isinstance(probed, Line):
            return probed
        found = self._guarded(probed.sample.id, functools.partial(self._row, probed), probed.ignored)
        return found if isinstance(found, Line) else Line(found, probed.ignored)

    def _row(self, probed: Probed) -> Row:
        sample = probed.sample
        encoded = self._encoder.encode(sample)
        if encoded.label_tokens == 0:
            raise DataError("no token with a loss; give the assistant something to say")
        seen = {key: value for key, value in probed.seen.items() if value != []}
        return Row(
            id=sample.id,
            tokens=len(encoded.input_ids),
            patches=sample.patches,
            frame_patches=sample.frame_patches,
            label_tokens=encoded.label_tokens,
            pictures=sum(medium.kind == "image" for medium in sample.media),
            clips=sum(medium.kind == "video" for medium in sample.media),
            record=record_of(sample.messages, sample.media, sample.tools, self._folder, seen),
        )

    def _guarded(self, line: int, work: Callable[[], _OUT], ignored: tuple[str, ...] | None = None) -> Any:
        """What `work` gives, or what went wrong with it: a Line of these ignored keys, where there are any to tell."""
        problem = guarded(self._data, line, work)
        return Line(problem, ignored) if isinstance(problem, Problem) and ignored is not None else problem


@dataclass(frozen=True)
class Probed:
    """A sample whose tokens are not counted yet, and what the next look at its line compares."""

    sample: Sample
    ignored: tuple[str, ...]
    seen: dict[str, Any]


def scan(
    items: Iterable[Item], data: str | os.PathLike[str], encoder: Encoder, *, workers: int = 0, verify: bool = False
) -> Iterator[Line]:
    """What becomes of these lines, in order, in this process: media are opened in threads (0: one a core, at most 8), a
    few lines ahead, and tokens counted in the calling one."""
    reader = LineReader(data, encoder, verify)
    threads = min(workers, MAX_WORKERS) or min(8, os.cpu_count() or 1)
    for probed in _ahead(reader.probe, items, threads):
        yield reader.count(probed)


def describe(problems: Sequence[Problem], data: str | os.PathLike[str], total: int = 0) -> str:
    """The first problems, a line each, and how many more there are. `total`: of all, where `problems` are the first."""
    lines = [f"{shown(str(data))}:{problem.id}: {problem.message}" for problem in problems[:SHOWN]]
    if max(total, len(problems)) > SHOWN:
        lines.append(f"... and {max(total, len(problems)) - SHOWN:,} more")
    return "\n".join(lines)


def guarded(data: str, line: int, work: Callable[[], _OUT]) -> _OUT | Problem:
    """What `work` gives, or what went wrong with it."""
    try:
        return work()
    except InputError as error:  # the core's own says what a picture or clip is, not what the line is
        kind = error.kind if isinstance(error, DataError) else "media"
        return Problem(line, one_line(str(error).removeprefix(f"{shown(data)}:{line}: ")), kind)
    except Exception as error:
        return Problem(line, f"unexpected {type(error).__name__}: {one_line(str(error)[:300])}", "unexpected")


def _ahead(work: Callable[[_IN], _OUT], items: Iterable[_IN], threads: int) -> Iterator[_OUT]:
    """work(item) of all items, in order, computed in threads a few items ahead. Once it is closed, as after an
    exception, nothing is begun and nothing goes on: Ctrl-C waits for what is under way, not for the queue."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="dhp-scan")
    coming: collections.deque[Future[_OUT]] = collections.deque()
    try:
        items = iter(items)
        coming.extend(pool.submit(work, item) for item in itertools.islice(items, 4 * threads))
        while coming:
            done = coming.popleft().result()
            coming.extend(pool.submit(work, item) for item in itertools.islice(items, 1))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)
