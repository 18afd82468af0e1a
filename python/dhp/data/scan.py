"""Reading a whole data file: every sample with its exact counts, and every line that cannot be used, with its reason.

    for line in scan("train.jsonl", Encoder("checkpoint")):
        line.sample    # or a Problem

Lines are parsed and media opened in threads, a few lines ahead; tokens are counted in the calling thread. Whatever goes
wrong with a line, in whichever library, is that line's problem alone.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dhp._core import InputError
from dhp._core import Sequence as BatchSequence
from dhp.base.output import one_line
from dhp.data.errors import DataError
from dhp.data.grid import probe_medium
from dhp.data.lines import MAX_LINE_BYTES, read_lines
from dhp.data.media import Medium, read_units
from dhp.data.processor import Processor
from dhp.data.samples import Message, RawSample, parse_sample
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
        return max((medium.grid[1] * medium.grid[2] for medium in self.media), default=0)

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

    def check(self, sample: Sample) -> Problem | None:
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
class Line:
    """What became of a line of a data file."""

    sample: Sample | Problem
    ignored: tuple[str, ...] = ()  # its keys that mean nothing here


def scan(
    data: str | os.PathLike[str],
    encoder: Encoder,
    *,
    limits: Limits | None = None,
    workers: int = 0,
    verify: bool = False,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Iterator[Line]:
    """All lines of the data file that are not blank, in order. Raises DataError where the file as a whole is none."""
    probe = functools.partial(_parse_and_probe, str(data), encoder.processor, verify)
    threads = min(workers, MAX_WORKERS) or min(8, os.cpu_count() or 1)
    for sample, ignored in _ahead(probe, read_lines(data, max_line_bytes), threads):
        if isinstance(sample, Sample):
            sample = _guarded(str(data), sample.id, functools.partial(_count, sample, encoder))
        if isinstance(sample, Sample):
            sample = (limits or Limits()).check(sample) or sample
        yield Line(sample, ignored)


def describe(problems: Sequence[Problem], data: str | os.PathLike[str], total: int = 0) -> str:
    """The first problems, a line each, and how many more there are. `total`: of all, where `problems` are the first."""
    lines = [f"{data}:{problem.id}: {problem.message}" for problem in problems[:SHOWN]]
    if max(total, len(problems)) > SHOWN:
        lines.append(f"... and {max(total, len(problems)) - SHOWN:,} more")
    return "\n".join(lines)


def _ahead(work: Callable[[_IN], _OUT], items: Iterable[_IN], threads: int) -> Iterator[_OUT]:
    """work(item) of all items, in order, computed in threads a few items ahead. Nothing is begun after an exception,
    so that Ctrl-C waits for no queue."""
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
        pool.shutdown(wait=False, cancel_futures=True)


def _guarded(data: str, line: int, work: Callable[[], _OUT]) -> _OUT | Problem:
    """What `work` gives, or what went wrong with it."""
    try:
        return work()
    except InputError as error:  # the core's own says what a picture or clip is, not what the line is
        kind = error.kind if isinstance(error, DataError) else "media"
        return Problem(line, one_line(str(error).removeprefix(f"{data}:{line}: ")), kind)
    except Exception as error:
        return Problem(line, f"unexpected {type(error).__name__}: {one_line(str(error)[:300])}", "unexpected")


def _parse_and_probe(
    data: str, processor: Processor, verify: bool, numbered: tuple[int, str | DataError]
) -> tuple[Sample | Problem, tuple[str, ...]]:
    """Parses a line and opens its media; runs in a worker thread. Tokens are counted later. With it come the keys that
    mean nothing."""
    line, text = numbered
    if isinstance(text, DataError):
        return Problem(line, str(text)), ()
    raw = _guarded(data, line, lambda: parse_sample(text, data, line))
    if isinstance(raw, Problem):
        return raw, ()
    return _guarded(data, line, functools.partial(_with_media, raw, processor, verify)), raw.ignored


def _with_media(raw: RawSample, processor: Processor, verify: bool) -> Sample:
    media = tuple(probe_medium(ref, processor) for ref in raw.media)
    for medium in media if verify else ():
        read_units(medium, 0, medium.units, processor)
    return Sample(raw.line, 0, sum(medium.patches for medium in media), 0, raw.messages, media, raw.tools)


def _count(probed: Sample, encoder: Encoder) -> Sample:
    encoded = encoder.encode(probed)
    if encoded.label_tokens == 0:
        raise DataError("no token with a loss; give the assistant something to say")
    return replace(probed, tokens=len(encoded.input_ids), label_tokens=encoded.label_tokens)
