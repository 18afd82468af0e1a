"""The index: what planning needs to know of every sample, before anything is read. `dhp index` makes it.

It is a file (index_file.py) of columns, which are mapped into memory: id (a sample's line in the data file, from 1),
tokens, patches, patches of its largest frame, label tokens. Messages, media and tools are records, read one by one when
they are asked for. So an index of ten million samples is open in a second, and costs every rank some 40 bytes a sample,
which ranks of one machine share.

Its header says what it was built from (data file with size, time of change and hash; processor fingerprint), what was
left out, and which keys were ignored. Paths below the data file's folder are stored relative to it. Counts are exact:
`tokens` is what Encoder.encode() gives, `patches` what read_units() gives. The training loop builds the index itself
where it is missing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dhp._core import InputError
from dhp.base.output import check_apart, check_writable, one_line, printable
from dhp.data.access import remote
from dhp.data.access.files import check_root, lies_below, roots_of
from dhp.data.access.media_cache import MediaCache
from dhp.data.access.pieces import shown
from dhp.data.access.urls import folder_of, is_url, joined, path_of
from dhp.data.errors import DataError, MediumError, StaleIndexError
from dhp.data.formats.lines import MAX_LINE_BYTES
from dhp.data.formats.rows import read_rows
from dhp.data.indexing.building import OUTPUT, UNFINISHED, Found, problems_from, unfinished
from dhp.data.indexing.freshness import check_fresh, identity
from dhp.data.indexing.index_file import AGAIN, IndexFile, open_index, read_header
from dhp.data.indexing.index_pool import Pool, Setup, processes_for
from dhp.data.indexing.records import portable
from dhp.data.indexing.sample_list import Samples
from dhp.data.indexing.scan import MAX_WORKERS, SHOWN, Item, Limits, Line, Problem, Sample, describe, scan
from dhp.data.processor import RULES_VERSION
from dhp.data.text import Encoder

__all__ = [
    "Index",
    "Limits",
    "Problem",
    "Sample",
    "TooLongError",
    "build_index",
    "default_path",
    "load_index",
    "load_or_build_index",
]

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Index:
    """An open index. `samples` can be less than the file has: see load_or_build_index."""

    path: Path
    data: Path | str  # a str: its address
    samples: Samples
    file: IndexFile
    shut_out: tuple[Problem, ...] = ()  # samples of the file whose media today's media_roots do not allow

    @functools.cached_property
    def problems(self) -> tuple[Problem, ...]:
        """In order of their lines. Raises DataError where the file is damaged."""
        return tuple(sorted(self._problems(), key=lambda problem: problem.id))

    def _problems(self) -> Iterator[Problem]:
        yield from self.shut_out
        try:
            yield from problems_from(self.file.problem_lines())
        except (TypeError, ValueError) as error:
            raise _damaged(self.path, error) from None

    @property
    def problem_counts(self) -> dict[str, int]:
        """Lines left out, by kind of problem; known without reading the problems."""
        counts = dict(self.file.header["problems"])
        for problem in self.shut_out:
            counts[problem.kind] = counts.get(problem.kind, 0) + 1
        return dict(sorted(counts.items()))

    @property
    def ignored(self) -> dict[str, int]:
        """Lines by key that means nothing here."""
        return dict(self.file.header["ignored"])

    @property
    def media_roots(self) -> tuple[str, ...]:
        """Links resolved; media elsewhere were left out when it was built."""
        return tuple(self.file.header["media_roots"])

    @property
    def max_line_bytes(self) -> int:
        """Longer lines were left out."""
        return int(self.file.header["max_line_bytes"])

    def sample(self, sample_id: int) -> Sample:
        """The sample with this id. Raises KeyError for an unknown id."""
        return self.samples[self.samples.position(sample_id)]

    def identity(self) -> dict[str, str]:
        """What ranks that read other files than each other must have alike, by name."""
        lengths = hashlib.sha256(str(self.file.header["lengths"]).encode())
        for problem in self.shut_out:
            lengths.update(f" {problem.id}".encode())
        return {
            "contents of the data file": self.file.header["data"]["sha256"],
            "tokenizer or processor": self.file.header["processor"],
            "samples that can be used, or their lengths": lengths.hexdigest(),
        }

    def left_out(self) -> str:
        """What a run says at its start of the lines that it does not train on; empty where there are none."""
        counts = self.problem_counts
        if not counts:
            return ""
        counted = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in counts.items())
        return (
            f"{shown(str(self.data))}: {sum(counts.values()):,} left out ({counted}):\n{self.described(counts)}\n"
            f"found when {self.path} was built; after mending, run dhp index again"
        )

    def ignored_keys(self) -> str:
        """What is said of keys of the data that nothing is made of; empty where there are none."""
        named = [f"{one_line(key)} ({count:,})" for key, count in self.ignored.items()]
        more = f", and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
        text = f"keys that mean nothing here, and their lines: {', '.join(named[:SHOWN])}{more}"
        return printable(text) if named else ""

    def described(self, kinds: Collection[str]) -> str:
        """The first problems of these kinds, and how many more there are. No more of them are read, unless some are
        not in the file."""
        every = self.problems if self.shut_out else self._problems()
        first = list(itertools.islice((problem for problem in every if problem.kind in kinds), SHOWN))
        counts = self.problem_counts
        return describe(first, self.data, sum(counts.get(kind, 0) for kind in kinds))


def default_path(data: str | os.PathLike[str]) -> Path:
    """DATA.jsonl -> DATA.index, beside it; of an address, in the working folder, with a hash of the address."""
    if is_url(data):
        name = path_of(str(data)).rpartition("/")[2]
        stem = name.rpartition(".")[0] or name or "data"
        return Path(f"{stem}-{hashlib.sha256(str(data).encode()).hexdigest()[:8]}.index")
    return Path(str(Path(data)).removesuffix(".jsonl") + ".index")


def build_index(
    data: str | os.PathLike[str],
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    limits: Limits | None = None,
    on_error: str = "fail",
    on_malformed: str = "",
    workers: int = 0,
    verify: bool = False,
    media_roots: Iterable[str] = (),
    media_cache: MediaCache | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    progress: Progress | None = None,
    share: Callable[[int, float], None] | None = None,
) -> Index:
    """Builds and writes the index. What an earlier process was interrupted at is gone on with, and what an index that
    is there says of lines that have not changed, with media that have not, is taken over.

    workers       processes that parse lines, open media and count tokens; 1: this one alone, with some threads. 0: one
                  a core, at most 8, and this one alone for little data
    on_error      "skip" leaves out samples that are too long or whose media cannot be read, and lists them in
                  Index.problems; "fail" raises DataError naming them, and writes nothing. TooLongError where too long
                  samples are the only ones
    on_malformed  the same for lines that cannot be understood; empty: as on_error
    verify        also decodes every picture and every frame that training would read
    media_roots   folders and addresses; media elsewhere, links resolved, are not read. Empty: any local file is; of
                  data at an address, what lies beside it
    media_cache   keeps what is read as a whole of media at addresses
    progress      called again and again with the number of lines that are done
    share         the same, with the share of the file's bytes that are read

    After KeyboardInterrupt, what is done is kept; its argument says so.
    """
    path, source = _checked(data, model, output), str(data) if is_url(data) else Path(data)
    remote.forget()
    encoder = Encoder(model, roots_of([data], media_roots), media_cache)
    made_with = {
        "rules": RULES_VERSION,
        "processor": encoder.processor.fingerprint,
        "media_roots": list(encoder.processor.media_roots),
        "verified": verify,
    }
    tell = progress or _ignore
    with unfinished(path, made_with) as found:
        with contextlib.closing(_lines(source, encoder, found, workers, verify, max_line_bytes)) as lines:
            _collect(lines, found, limits or Limits(), tell, share or _ignore, path)
        _refuse(found.counts, functools.partial(found.describe, data), on_error, on_malformed or on_error, on_error)
        if not found.samples:
            why = describe(found.problems, data) if found.problems else "it is empty"
            raise DataError(f"{shown(str(data))}: no sample can be used; {why}")
        done = found.samples + len(found.problems)
        about = {"path": portable(_resolved(source), path.resolve().parent), **identity(source, lambda: tell(done))}
        found.write(path, {**made_with, "data": about, "max_line_bytes": max_line_bytes})
    return _index_of(open_index(path, lambda: tell(done)), source)


def _checked(
    data: str | os.PathLike[str], model: str | os.PathLike[str], output: str | os.PathLike[str] | None
) -> Path:
    """Where the index will be. Raises InputError where it cannot be written, or not without harm."""
    path = Path(output) if output else default_path(data)
    if is_url(data):
        remote.look(str(data))
    elif not os.path.exists(data):
        raise DataError(f"{data}: cannot be read: no such file; give the path of a JSONL file")
    check_apart({OUTPUT: str(path)}, {"the data": str(data)}, "" if path == default_path(data) else str(model))
    check_writable(OUTPUT, str(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{OUTPUT}: {path} is no regular file, which an index must be; give another path")
    return path


def _resolved(data: Path | str) -> str:
    return data if isinstance(data, str) else str(data.resolve())


def _collect(
    lines: Iterable[tuple[Line, float]],
    found: Found,
    limits: Limits,
    tell: Progress,
    share: Callable[[int, float], None],
    path: Path,
) -> None:
    """All lines, with the share of the file that is read, into `found`. KeyboardInterrupt says what is kept."""
    try:
        for count, (line, at) in enumerate(lines, start=1):
            problem = None if isinstance(line.sample, Problem) else limits.check(line.sample)
            found.add(Line(problem, line.ignored) if problem else line)
            tell(count)
            share(count, at)
    except KeyboardInterrupt:
        if not found.is_worth_it:
            raise
        kept = f"{found.samples:,} samples are kept in {path}{UNFINISHED}; the same command goes on from there"
        raise KeyboardInterrupt(kept) from None


def _lines(
    data: Path | str, encoder: Encoder, found: Found, workers: int, verify: bool, max_line_bytes: int
) -> Generator[tuple[Line, float], None, None]:
    """What becomes of the lines, and the share of the file that is read then. Close it: others work ahead."""
    size, at = remote.known(data).size if isinstance(data, str) else os.path.getsize(data), 0

    def note(offset: int) -> None:
        nonlocal at
        at = offset

    items = (Item(row, found.known(row.line)) for row in read_rows(data, max_line_bytes, note))
    processes = processes_for(workers, size)
    if processes == 1:
        for line in scan(items, data, encoder, verify=verify):
            yield line, at / max(1, size)
        return
    about = encoder.processor
    setup = Setup(str(data), about.folder, about.media_roots, about.media_cache, verify)
    with Pool(setup, min(processes, MAX_WORKERS)) as pool:
        for line in pool.read(items):
            yield line, at / max(1, size)


class TooLongError(DataError):
    """Samples are fine, but longer than the limits allow: an answer, not bad input."""


def _refuse(
    counts: Mapping[str, int], described: Callable[[Collection[str]], str], media: str, malformed: str, too_long: str
) -> None:
    """Raises DataError for problems of a kind that is to "fail"; `described` names those of some kinds."""
    choices = {"media": media, "too_long": too_long}
    wrong = [kind for kind in counts if choices.get(kind, malformed) != "skip"]
    if not wrong:
        return
    if wrong == ["too_long"]:
        raise TooLongError(described(wrong))
    settings = {"media": 'on_bad_media = "skip"', "too_long": "--on-error skip"}
    kinds = sorted({settings.get(kind, 'on_malformed = "skip"') for kind in wrong})
    raise DataError(
        f"{described(wrong)}; mend these lines, or leave them out: dhp index --on-error skip, "
        f"dhp train {' and '.join(kinds)}"
    )


def _ignore(lines: int, share: float = 0.0) -> None:
    """Nobody asks for the progress."""


# ---- reading --------------------------------------------------------------------------------------------------------


def load_index(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Index:
    """Opens an index. Raises StaleIndexError where the data file, or the checkpoint's tokenizer or processor (`model`,
    where given), is not what the index was built from; DataError where the file is not an index. `progress`: see
    build_index."""
    tell = progress or _ignore
    header = read_header(path)
    try:
        found = str(data) if data else joined(Path(path).resolve().parent, header["data"]["path"])
        source = found if is_url(found) else Path(found)
        check_fresh(path, header, source, model, lambda: tell(0))
        return _index_of(open_index(path, lambda: tell(0)), source)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(path, error) from None


def _index_of(file: IndexFile, data: Path | str) -> Index:
    """Raises TypeError and the like for a header that no index of ours has."""
    index = Index(file.path, data, Samples(file, folder_of(data)), file)
    if any(type(count) is not int for count in [*index.problem_counts.values(), *index.ignored.values()]):
        raise TypeError("a count is no whole number")
    texts = [*index.media_roots, *index.identity().values()]
    if not (index.max_line_bytes > 0 and all(isinstance(text, str) for text in texts)):
        raise TypeError("an odd header")
    return index


def _damaged(path: str | os.PathLike[str], error: Exception) -> DataError:
    return DataError(f"{path}: is damaged ({type(error).__name__}: {error}); {AGAIN}")


def load_or_build_index(
    data: str | os.PathLike[str],
    model: str | os.PathLike[str],
    index: str | os.PathLike[str] | None = None,
    *,
    on_error: str = "fail",
    on_malformed: str = "",
    media_roots: Iterable[str] = (),
    media_cache: MediaCache | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    progress: Progress | None = None,
) -> Index:
    """The index at its usual place, or at `index`; built there where it is missing. `on_error` and the rest: see
    build_index; they hold for an index that is there too, but for samples that its own limits left out."""
    path = Path(index) if index else default_path(data)
    malformed = on_malformed or on_error
    if not os.path.exists(path):  # Path.exists() raises for a name that is too long
        options: dict[str, Any] = {"media_roots": media_roots, "max_line_bytes": max_line_bytes}
        options["media_cache"] = media_cache
        return build_index(data, model, path, on_error=on_error, on_malformed=malformed, progress=progress, **options)
    roots = roots_of([data], media_roots)
    loaded = load_index(path, data, model, progress)
    _check_reach(loaded, roots, max_line_bytes)
    found = _below_roots(loaded, roots, progress or _ignore)
    _refuse(found.problem_counts, found.described, on_error, malformed, too_long="skip")
    if not found.samples:
        raise DataError(f"{shown(str(data))}: no sample can be used; {found.described(found.problem_counts)}")
    return found


def _check_reach(index: Index, roots: tuple[str, ...], max_line_bytes: int) -> None:
    """Raises StaleIndexError where the index has left out what these settings may let in. What they shut out is no
    matter: see _below_roots, and a line that is read is read."""
    kinds = index.problem_counts
    then, now = index.media_roots or ("/",), roots or ("/",)
    if "media" in kinds and not all(any(lies_below(a, b) for b in then) for a in now):
        was = f"media_roots was {list(index.media_roots)}, is {list(roots)}"
    elif "malformed" in kinds and index.max_line_bytes < max_line_bytes:
        was = f"max_line_bytes was {index.max_line_bytes:,}, is {max_line_bytes:,}"
    else:
        return
    raise StaleIndexError(f"{index.path}: is stale: {was}, and lines were left out; remove it, or {AGAIN}")


def _below_roots(index: Index, roots: tuple[str, ...], tell: Progress) -> Index:
    """Without the samples whose media lie outside the roots; reading checks that again. Where the index was built with
    roots that lie below these, all lie inside; otherwise every record is read."""
    then, now = index.media_roots or ("/",), roots or ("/",)
    if all(any(lies_below(a, b) for b in now) for a in then):
        return index
    outside = []
    for count, sample in enumerate(index.samples, start=1):
        sources = [medium.source for medium in sample.media]
        try:
            for path in itertools.chain.from_iterable([s] if isinstance(s, str) else s for s in sources):
                check_root(path, roots)
        except MediumError as error:
            outside.append(Problem(sample.id, str(error), error.kind))
        tell(count)
    kept = index.samples.without(problem.id for problem in outside)
    return replace(index, samples=kept, shut_out=tuple(outside))
