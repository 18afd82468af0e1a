"""The index: what planning needs to know of every sample, before anything is read. `dhp index` makes it.

Format `dhp.index/1`, JSON lines: a header (format, data file with size and hash, processor fingerprint, what was left
out and why, keys that were ignored), then a line per sample: id (its line in the data file, from 1), tokens, patches,
label tokens, messages, media, and tools where it has some.
Paths below the data file's folder are stored relative to it. Counts are exact: `tokens` is what Encoder.encode()
gives, `patches` what read_units() gives. The training loop builds the index itself where it is missing.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dhp.base.output import check_apart, check_writable, one_line, printable, write_atomically
from dhp.data.errors import DataError, MediumError, StaleIndexError
from dhp.data.files import check_root, resolved_roots
from dhp.data.lines import MAX_LINE_BYTES, opened
from dhp.data.media import Medium
from dhp.data.processor import RULES_VERSION, Processor, load_processor
from dhp.data.samples import Message
from dhp.data.scan import SHOWN, Limits, Problem, Sample, describe, scan
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

FORMAT = "dhp.index/1"
_OUTPUT = "the index (-o of dhp index, `index` of dhp train)"
_AGAIN = "build it again with dhp index"


@dataclass(frozen=True)
class Index:
    path: Path
    data: Path
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = field(default=())
    ignored: dict[str, int] = field(default_factory=dict)  # lines by key that means nothing here
    media_roots: tuple[str, ...] = ()  # links resolved; media elsewhere were left out when it was built
    max_line_bytes: int = MAX_LINE_BYTES  # longer lines were
    content: str = ""  # SHA-256 of the data file
    processor: str = ""  # fingerprint of tokenizer, processor and token rules

    @functools.cached_property
    def by_id(self) -> dict[int, Sample]:
        return {sample.id: sample for sample in self.samples}

    def identity(self) -> dict[str, str]:
        """What ranks that read other files than each other must have alike, by name."""
        lengths = hashlib.sha256()
        for sample in self.samples:
            lengths.update(f"{sample.id} {sample.tokens} {sample.patches} {sample.label_tokens}\n".encode())
        return {
            "contents of the data file": self.content,
            "tokenizer or processor": self.processor,
            "samples that can be used, or their lengths": lengths.hexdigest(),
        }

    def left_out(self) -> str:
        """What a run says at its start of the lines that it does not train on; empty where there are none."""
        if not self.problems:
            return ""
        kinds = collections.Counter(problem.kind.replace("_", " ") for problem in self.problems)
        counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        return (
            f"{self.data}: {len(self.problems):,} left out ({counted}):\n{describe(self.problems, self.data)}\n"
            f"found when {self.path} was built; after mending, remove it to look again"
        )

    def ignored_keys(self) -> str:
        """What is said of keys of the data that nothing is made of; empty where there are none."""
        named = [f"{one_line(key)} ({count:,})" for key, count in self.ignored.items()]
        more = f", and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
        text = f"keys that mean nothing here, and their lines: {', '.join(named[:SHOWN])}{more}"
        return printable(text) if named else ""


def default_path(data: str | os.PathLike[str]) -> Path:
    """DATA.jsonl -> DATA.index.jsonl, beside it."""
    return Path(str(Path(data)).removesuffix(".jsonl") + ".index.jsonl")


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
    max_line_bytes: int = MAX_LINE_BYTES,
    progress: Callable[[int], None] | None = None,
) -> Index:
    """Builds and writes the index. Media are opened in `workers` threads (0: one a core, at most 8).

    on_error      "skip" leaves out samples that are too long or whose media cannot be read, and lists them in
                  Index.problems; "fail" raises DataError naming them, and writes nothing. TooLongError where too long
                  samples are the only ones
    on_malformed  the same for lines that cannot be understood; empty: as on_error
    verify        also decodes every picture and every frame that training would read
    media_roots   folders; media elsewhere, links resolved, are not read. Empty: any local file is
    progress      called again and again with the number of lines that are done
    """
    path = Path(output) if output else default_path(data)
    if not os.path.exists(data):
        raise DataError(f"{data}: cannot be read: no such file; give the path of a JSONL file")
    check_apart({_OUTPUT: str(path)}, {"the data": str(data)}, "" if path == default_path(data) else str(model))
    check_writable(_OUTPUT, str(path))
    encoder = Encoder(model, media_roots)
    found = scan(
        data,
        encoder,
        limits=limits,
        workers=workers,
        verify=verify,
        max_line_bytes=max_line_bytes,
        progress=progress,
    )
    roots = encoder.processor.media_roots
    index = Index(path, Path(data), found.samples, found.problems, found.ignored, roots, max_line_bytes)
    _refuse(index, on_error, on_malformed or on_error, too_long=on_error)
    if not index.samples:
        why = describe(index.problems, data) if index.problems else "it is empty"
        raise DataError(f"{data}: no sample can be used; {why}")
    return _write(index, encoder.processor, progress)


class TooLongError(DataError):
    """Samples are fine, but longer than the limits allow: an answer, not bad input."""


def _refuse(index: Index, media: str, malformed: str, too_long: str) -> None:
    """Raises DataError for problems of a kind that is to "fail"."""
    choices = {"media": media, "too_long": too_long}
    wrong = [problem for problem in index.problems if choices.get(problem.kind, malformed) != "skip"]
    if not wrong:
        return
    if all(problem.too_long for problem in wrong):
        raise TooLongError(describe(wrong, index.data))
    settings = {"media": 'on_bad_media = "skip"', "too_long": "--on-error skip"}
    kinds = sorted({settings.get(problem.kind, 'on_malformed = "skip"') for problem in wrong})
    raise DataError(
        f"{describe(wrong, index.data)}; mend these lines, or leave them out: dhp index --on-error skip, "
        f"dhp train {' and '.join(kinds)}"
    )


# ---- files ----------------------------------------------------------------------------------------------------------


def _write(index: Index, processor: Processor, progress: Callable[[int], None] | None) -> Index:
    """The index with what it was built from."""
    folder = index.data.resolve().parent
    advance = functools.partial(progress or _ignore, len(index.samples) + len(index.problems))
    content = _identity(index.data, advance)
    header = {
        "format": FORMAT,
        "rules": RULES_VERSION,
        "data": {
            "path": _portable(str(index.data.resolve()), index.path.resolve().parent),
            **content,
        },
        "processor": processor.fingerprint,
        "samples": len(index.samples),
        "problems": [compact(p.__dict__) for p in index.problems],
        "ignored": index.ignored,
        "media_roots": list(index.media_roots),
        "max_line_bytes": index.max_line_bytes,
    }

    def row(sample: Sample) -> dict[str, Any]:
        advance()
        return _sample_json(sample, folder)

    rows = itertools.chain([header], map(row, index.samples))
    write_atomically(_OUTPUT, str(index.path), (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return replace(index, content=content["sha256"], processor=processor.fingerprint)


def _ignore(lines: int) -> None:
    """Nobody asks for the progress."""


def load_index(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Index:
    """Reads an index. Raises StaleIndexError where the data file, or the checkpoint's tokenizer or processor (`model`,
    where given), is not what the index was built from; DataError where the file is not an index. `progress`: see
    build_index."""
    tell = progress or _ignore
    try:
        with opened(path) as file:
            header = json.loads(next(file, b"null"))
            if not isinstance(header, dict) or header.get("format") != FORMAT:
                raise DataError(f"{path}: is not an index (format {FORMAT}); build it with dhp index")
            source = Path(data) if data else Path(path).resolve().parent / header["data"]["path"]
            _check_fresh(path, header, source, model, lambda: tell(0))
            folder = source.resolve().parent
            samples = []
            for text in file:
                samples.append(_sample_from(json.loads(text), folder))
                tell(len(samples))
        problems = tuple(Problem(**row) for row in header["problems"])
        ignored = dict(header["ignored"])
        roots, longest = tuple(header.get("media_roots", ())), header.get("max_line_bytes", MAX_LINE_BYTES)
        content, processor = header["data"]["sha256"], header["processor"]
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}; {_AGAIN}") from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); {_AGAIN}") from error
    if len(samples) != header["samples"]:
        raise DataError(f"{path}: is cut off: {len(samples)} of {header['samples']} samples; {_AGAIN}")
    return Index(Path(path), source, tuple(samples), problems, ignored, roots, longest, content, processor)


def load_or_build_index(
    data: str | os.PathLike[str],
    model: str | os.PathLike[str],
    index: str | os.PathLike[str] | None = None,
    *,
    on_error: str = "fail",
    on_malformed: str = "",
    media_roots: Iterable[str] = (),
    max_line_bytes: int = MAX_LINE_BYTES,
    progress: Callable[[int], None] | None = None,
) -> Index:
    """The index at its usual place, or at `index`; built there where it is missing. `on_error` and the rest: see
    build_index; they hold for an index that is there too, but for samples that its own limits left out."""
    path = Path(index) if index else default_path(data)
    malformed = on_malformed or on_error
    if not os.path.exists(path):  # Path.exists() raises for a name that is too long
        options: dict[str, Any] = {"media_roots": media_roots, "max_line_bytes": max_line_bytes}
        return build_index(data, model, path, on_error=on_error, on_malformed=malformed, progress=progress, **options)
    roots = resolved_roots(media_roots)
    loaded = load_index(path, data, model, progress)
    _check_reach(loaded, roots, max_line_bytes)
    found = _below_roots(loaded, roots)
    _refuse(found, on_error, malformed, too_long="skip")
    if not found.samples:
        raise DataError(f"{data}: no sample can be used; {describe(found.problems, data)}")
    return found


def _check_reach(index: Index, roots: tuple[str, ...], max_line_bytes: int) -> None:
    """Raises StaleIndexError where the index has left out what these settings may let in. What they shut out is no
    matter: see _below_roots, and a line that is read is read."""
    kinds = {problem.kind for problem in index.problems}
    then, now = index.media_roots, roots or ("/",)
    if then and "media" in kinds and not all(any(os.path.commonpath((a, b)) == b for b in then) for a in now):
        was = f"media_roots was {list(then)}, is {list(roots)}"
    elif "malformed" in kinds and index.max_line_bytes < max_line_bytes:
        was = f"max_line_bytes was {index.max_line_bytes:,}, is {max_line_bytes:,}"
    else:
        return
    raise StaleIndexError(f"{index.path}: is stale: {was}, and lines were left out; remove it, or {_AGAIN}")


def _below_roots(index: Index, roots: tuple[str, ...]) -> Index:
    """Without the samples whose media lie outside the roots; reading checks that again."""
    if not roots:
        return index
    samples, problems = [], list(index.problems)
    for sample in index.samples:
        sources = [medium.source for medium in sample.media]
        try:
            for path in itertools.chain.from_iterable([s] if isinstance(s, str) else s for s in sources):
                check_root(path, roots)
            samples.append(sample)
        except MediumError as error:
            problems.append(Problem(sample.id, str(error), error.kind))
    return replace(index, samples=tuple(samples), problems=tuple(sorted(problems, key=lambda problem: problem.id)))


def _check_fresh(
    path: str | os.PathLike[str],
    header: dict[str, Any],
    data: Path,
    model: str | os.PathLike[str] | None,
    advance: Callable[[], None],
) -> None:
    if header.get("rules") != RULES_VERSION:
        raise StaleIndexError(f"{path}: is stale: it was written by another version of dhp; {_AGAIN}")
    now = _identity(data, advance)
    for key, what in (("bytes", "size"), ("sha256", "content")):
        if header["data"][key] != now[key]:
            raise StaleIndexError(
                f"{path}: is stale: the {what} of {data} was {header['data'][key]}, is {now[key]}; {_AGAIN}"
            )
    if model is not None and header["processor"] != load_processor(model).fingerprint:
        raise StaleIndexError(
            f"{path}: is stale: built with another tokenizer or processor than that of {model}; {_AGAIN}"
        )


def _identity(data: Path, advance: Callable[[], None]) -> dict[str, Any]:
    digest = hashlib.sha256()
    with opened(data) as file:
        while block := file.read(1 << 20):
            digest.update(block)
            advance()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest.hexdigest()}


def _sample_json(sample: Sample, folder: Path) -> dict[str, Any]:
    media = []
    for medium in sample.media:
        row = compact(medium.__dict__)
        paths = [medium.source] if isinstance(medium.source, str) else list(medium.source)
        portable = [_portable(path, folder) for path in paths]
        media.append({**row, "source": portable[0] if isinstance(medium.source, str) else portable})
    head = {key: getattr(sample, key) for key in ("id", "tokens", "patches", "label_tokens")}
    tools = {"tools": list(sample.tools)} if sample.tools else {}
    return {**head, **tools, "messages": [message.to_json() for message in sample.messages], "media": media}


def _sample_from(row: dict[str, Any], folder: Path) -> Sample:
    """Raises TypeError or KeyError for what no index of ours holds: planners and readers count on it."""
    counts = [row[key] for key in ("id", "tokens", "patches", "label_tokens")]
    _check_whole(counts)
    media = []
    for value in row["media"]:
        value = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
        source = value["source"]
        absolute = str(folder / source) if isinstance(source, str) else tuple(str(folder / path) for path in source)
        _check_whole([*value["grid"], value["height"], value["width"], *value.get("frame_indices", ())])
        if value["kind"] not in ("image", "video") or len(value["grid"]) != 3:
            raise TypeError(f"a medium of kind {value['kind']} and grid {value['grid']}")
        media.append(Medium(**{**value, "source": absolute}))
    messages = tuple(Message.from_json(message) for message in row["messages"])
    tools = tuple(row.get("tools", ()))
    number, tokens, patches, label_tokens = counts
    return Sample(number, tokens, patches, label_tokens, messages, tuple(media), tools)


def _check_whole(values: Iterable[Any]) -> None:
    for value in values:
        if type(value) is not int or not 0 <= value < 1 << 50:
            raise TypeError(f"found {json.dumps(value)[:40]} for a whole number")


def compact(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != ()}


def _portable(path: str, folder: Path) -> str:
    absolute = Path(path)
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)
