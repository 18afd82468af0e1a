"""`dhp index`: what planning needs to know of every sample, before anything is read.

    dhp index DATA.jsonl --model FOLDER [-o DATA.index.jsonl]

Format `dhp.index/1`, JSON lines: a header (format, data file with size and hash, processor fingerprint, what was left
out), then a line per sample: id (its line in the data file, from 1), tokens, patches, label tokens, messages, media.
Paths below the data file's folder are stored relative to it. Counts are exact: `tokens` is what Encoder.encode()
gives, `patches` what read_units() gives. The training loop builds the index itself where it is missing.

Exit codes: 0 written; 1 samples do not fit (and --on-error fail); 2 bad input: arguments, data, media, checkpoint.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dhp._core import InputError
from dhp._core import Sequence as BatchSequence
from dhp.data.errors import DataError, StaleIndexError
from dhp.data.media import Medium, read_units
from dhp.data.place import place_medium
from dhp.data.processor import Processor, load_processor
from dhp.data.samples import Message, parse_sample, read_lines
from dhp.data.text import Encoder
from dhp.output import complain

FORMAT = "dhp.index/1"
_SHOWN = 20  # problems listed in a message; the rest is counted


@dataclass(frozen=True)
class Sample:
    id: int  # line in the data file, from 1
    tokens: int  # of the language model: text and merged visual tokens
    patches: int  # vision patches
    label_tokens: int  # tokens with a loss
    messages: tuple[Message, ...]
    media: tuple[Medium, ...]  # in the order in which the text mentions them

    @property
    def frame_patches(self) -> int:
        """Of its largest picture or temporal patch; 0 without media. Follows from the grids, which any index has."""
        return max((medium.grid[1] * medium.grid[2] for medium in self.media), default=0)

    def as_sequence(self) -> BatchSequence:
        """What planners see of it."""
        return BatchSequence(self.id, self.tokens, self.patches, self.frame_patches)


@dataclass(frozen=True)
class Problem:
    """A sample that is not in the index, and why."""

    id: int
    message: str
    too_long: bool = False  # readable, but beyond the limits
    tokens: int = 0  # of a sample that is too long
    degree: int = 0  # ranks it needs, where the capacity of one is known


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
        return Problem(sample.id, f"{sample.tokens} tokens, {' and '.join(why)}{fits}", True, sample.tokens, degree)


@dataclass(frozen=True)
class Index:
    path: Path
    data: Path
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = field(default=())

    @functools.cached_property
    def by_id(self) -> dict[int, Sample]:
        return {sample.id: sample for sample in self.samples}


def default_path(data: str | os.PathLike[str]) -> Path:
    """DATA.jsonl -> DATA.index.jsonl, beside it."""
    path = Path(data)
    return path.with_name(path.name.removesuffix(".jsonl") + ".index.jsonl")


def build_index(
    data: str | os.PathLike[str],
    model: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    limits: Limits | None = None,
    on_error: str = "fail",
    workers: int = 0,
    verify: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Index:
    """Builds and writes the index. Media are opened in `workers` threads (0: one a core, at most 8).

    on_error  "skip" leaves bad and too long samples out and lists them in Index.problems; "fail" raises DataError
              naming them, and writes nothing. TooLongError where too long samples are the only ones.
    verify    also decodes every picture and every frame that training would read
    """
    samples, problems = scan(data, model, limits or Limits(), workers, verify, progress)
    if problems and on_error != "skip":
        raise (TooLongError if all(p.too_long for p in problems) else DataError)(describe(problems, data))
    if not samples:
        raise DataError(f"{data}: no sample can be used; {describe(problems, data) if problems else 'it is empty'}")
    index = Index(Path(output) if output else default_path(data), Path(data), samples, problems)
    _write(index, load_processor(model))
    return index


class TooLongError(DataError):
    """Samples are fine, but longer than the limits allow: an answer, not bad input."""


def scan(
    data: str | os.PathLike[str],
    model: str | os.PathLike[str],
    limits: Limits,
    workers: int = 0,
    verify: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[tuple[Sample, ...], tuple[Problem, ...]]:
    """All samples of the data file, and those that cannot be used."""
    encoder = Encoder(model)
    processor = encoder.processor
    samples: list[Sample] = []
    problems: list[Problem] = []
    place = functools.partial(_place, str(data), processor, verify)
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for count, placed in enumerate(pool.map(place, read_lines(data)), start=1):
            try:
                sample = _count(placed, encoder, str(data)) if isinstance(placed, Sample) else placed
                problem = sample if isinstance(sample, Problem) else limits.check(sample)
            except InputError as error:
                problem = Problem(placed.id, f"{data}:{placed.id}: {error}")
            if problem is not None:
                problems.append(problem)
            elif isinstance(sample, Sample):
                samples.append(sample)
            if progress is not None:
                progress(count)
    return tuple(samples), tuple(problems)


def _place(data: str, processor: Processor, verify: bool, numbered: tuple[int, str]) -> Sample | Problem:
    """Parses a line and opens its media; runs in a worker thread. Tokens are counted later."""
    line, text = numbered
    try:
        raw = parse_sample(text, data, line)
    except DataError as error:
        return Problem(line, str(error))
    try:
        media = tuple(place_medium(ref, processor) for ref in raw.media)
        for medium in media if verify else ():
            read_units(medium, 0, medium.units, processor)
    except InputError as error:
        return Problem(line, f"{data}:{line}: {error}")
    return Sample(line, 0, sum(medium.patches for medium in media), 0, raw.messages, media)


def _count(placed: Sample, encoder: Encoder, data: str) -> Sample:
    encoded = encoder.encode(placed)
    if encoded.label_tokens == 0:
        raise DataError("no token with a loss; give the assistant something to say")
    return replace(placed, tokens=len(encoded.input_ids), label_tokens=encoded.label_tokens)


def describe(problems: Sequence[Problem], data: str | os.PathLike[str]) -> str:
    """The problems, a line each."""
    lines = [p.message if not p.too_long else f"{data}:{p.id}: {p.message}" for p in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"... and {len(problems) - _SHOWN} more")
    return "\n".join(lines)


# ---- files ----------------------------------------------------------------------------------------------------------


def _write(index: Index, processor: Processor) -> None:
    folder = index.data.resolve().parent
    header = {
        "format": FORMAT,
        "data": {"path": _portable(str(index.data.resolve()), index.path.resolve().parent), **_identity(index.data)},
        "processor": processor.fingerprint,
        "samples": len(index.samples),
        "problems": [_compact(p.__dict__) for p in index.problems],
    }
    index.path.parent.mkdir(parents=True, exist_ok=True)
    partial = index.path.with_name(f".{index.path.name}.{os.getpid()}")
    with open(partial, "w", encoding="utf-8") as file:
        for row in (header, *(_sample_json(sample, folder) for sample in index.samples)):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(partial, index.path)  # whole or not at all, also where several ranks build it at once


def load_index(
    path: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    model: str | os.PathLike[str] | None = None,
) -> Index:
    """Reads an index. Raises StaleIndexError where the data file, or the checkpoint's tokenizer or processor (`model`,
    where given), is not what the index was built from; DataError where the file is not an index."""
    lines = read_lines(path)
    try:
        header = json.loads(next(lines, (0, "null"))[1])
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise DataError(f"{path}: is not an index (format {FORMAT}); build it with dhp index")
        source = Path(data) if data else Path(path).resolve().parent / header["data"]["path"]
        _check_fresh(path, header, source, model)
        folder = source.resolve().parent
        samples = tuple(_sample_from(json.loads(text), folder) for _, text in lines)
        problems = tuple(Problem(**row) for row in header["problems"])
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(
            f"{path}: is damaged ({type(error).__name__}: {error}); build it again with dhp index"
        ) from error
    if len(samples) != header["samples"]:
        raise DataError(
            f"{path}: is cut off: {len(samples)} of {header['samples']} samples; build it again with dhp index"
        )
    return Index(Path(path), source, samples, problems)


def load_or_build_index(
    data: str | os.PathLike[str],
    model: str | os.PathLike[str],
    index: str | os.PathLike[str] | None = None,
    *,
    on_error: str = "fail",
) -> Index:
    """The index at its usual place, or at `index`; built there where it is missing (`on_error`: see build_index)."""
    path = Path(index) if index else default_path(data)
    return load_index(path, data, model) if path.exists() else build_index(data, model, path, on_error=on_error)


def _check_fresh(
    path: str | os.PathLike[str], header: dict[str, Any], data: Path, model: str | os.PathLike[str] | None
) -> None:
    again = "build it again with dhp index"
    now = _identity(data)
    for key, what in (("bytes", "size"), ("sha256", "content")):
        if header["data"][key] != now[key]:
            raise StaleIndexError(
                f"{path}: is stale: the {what} of {data} was {header['data'][key]}, is {now[key]}; {again}"
            )
    if model is not None and header["processor"] != load_processor(model).fingerprint:
        raise StaleIndexError(
            f"{path}: is stale: built with another tokenizer or processor than that of {model}; {again}"
        )


def _identity(data: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    try:
        with open(data, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return {"bytes": data.stat().st_size, "sha256": digest.hexdigest()}
    except OSError as error:
        raise DataError(f"{data}: cannot be read: {error.strerror or error}") from error


def _sample_json(sample: Sample, folder: Path) -> dict[str, Any]:
    media = []
    for medium in sample.media:
        row = _compact(medium.__dict__)
        paths = [medium.source] if isinstance(medium.source, str) else list(medium.source)
        portable = [_portable(path, folder) for path in paths]
        media.append({**row, "source": portable[0] if isinstance(medium.source, str) else portable})
    head = {key: getattr(sample, key) for key in ("id", "tokens", "patches", "label_tokens")}
    return {**head, "messages": [message.to_json() for message in sample.messages], "media": media}


def _sample_from(row: dict[str, Any], folder: Path) -> Sample:
    media = []
    for value in row["media"]:
        value = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
        source = value["source"]
        absolute = str(folder / source) if isinstance(source, str) else tuple(str(folder / path) for path in source)
        media.append(Medium(**{**value, "source": absolute}))
    messages = tuple(Message.from_json(message) for message in row["messages"])
    return Sample(row["id"], row["tokens"], row["patches"], row["label_tokens"], messages, tuple(media))


def _compact(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != ()}


def _portable(path: str, folder: Path) -> str:
    absolute = Path(path)
    return str(absolute.relative_to(folder)) if absolute.is_relative_to(folder) else str(absolute)


# ---- command line ---------------------------------------------------------------------------------------------------


def summary(index: Index) -> str:
    """What a person wants to see: counts, and how uneven the lengths are."""
    lengths = sorted(sample.tokens for sample in index.samples)
    middle = lengths[len(lengths) // 2]
    media = [medium for sample in index.samples for medium in sample.media]
    clips = sum(medium.kind == "video" for medium in media)
    lines = [
        f"{len(lengths):,} samples, {len(media) - clips:,} pictures, {clips:,} clips",
        f"{sum(lengths):,} tokens, {sum(s.label_tokens for s in index.samples):,} with a loss, "
        f"{sum(s.patches for s in index.samples):,} patches",
        f"tokens a sample: {lengths[0]:,} … {middle:,} … {lengths[-1]:,} (least, median, most; "
        f"{lengths[-1] / lengths[0]:.0f}x)",
        *_histogram(lengths),
    ]
    return "\n".join(lines)


def _histogram(lengths: Sequence[int], width: int = 40) -> Iterable[str]:
    """Bars over powers of two."""
    counts: dict[int, int] = {}
    for length in lengths:
        counts[length.bit_length()] = counts.get(length.bit_length(), 0) + 1
    for bits in range(min(counts), max(counts) + 1):
        count = counts.get(bits, 0)
        bar = "#" * math.ceil(width * count / max(counts.values()))
        yield f"  {1 << (bits - 1):>9,} … {(1 << bits) - 1:>9,} {count:>7,} {bar}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhp index", description="Count the tokens and patches of every sample, by the checkpoint's own rules."
    )
    parser.add_argument("data", metavar="DATA.jsonl", help="ms-swift, ShareGPT or OpenAI style JSON lines")
    parser.add_argument("--model", required=True, metavar="FOLDER", help="Hugging Face checkpoint folder")
    parser.add_argument("-o", "--output", metavar="FILE", help="the index; default: DATA.index.jsonl")
    parser.add_argument("--max-tokens", type=_positive, metavar="N", help="a longer sample is too long")
    parser.add_argument("--max-degree", type=_positive, metavar="D", help="a sample that needs more ranks is too long")
    parser.add_argument("--capacity-tokens-per-rank", type=_positive, metavar="N", help="tokens one rank can hold")
    parser.add_argument("--on-error", choices=("skip", "fail"), default="fail", help="bad or too long samples (fail)")
    parser.add_argument("--verify", action="store_true", help="decode every medium, not just its header")
    parser.add_argument("--workers", type=_positive, default=0, metavar="N", help="threads (one a core, at most 8)")
    parser.add_argument("--output-format", choices=("text", "json"), default="text")
    return parser


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, must be a whole number from 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.max_degree and not args.capacity_tokens_per_rank:
        parser.error("--max-degree needs --capacity-tokens-per-rank")
    limits = Limits(args.max_tokens, args.max_degree, args.capacity_tokens_per_rank)
    try:
        index = build_index(
            args.data,
            args.model,
            args.output,
            limits=limits,
            on_error=args.on_error,
            workers=args.workers,
            verify=args.verify,
            progress=_progress() if args.output_format == "text" and sys.stderr.isatty() else None,
        )
    except InputError as error:
        too_long = isinstance(error, TooLongError)
        hint = "; raise the limits, or leave these samples out with --on-error skip" if too_long else ""
        if args.output_format == "json":
            print(json.dumps({"error": str(error)}))
        complain(f"dhp index: {'too long' if too_long else 'error'}: {error}{hint}")
        return 1 if too_long else 2
    if args.output_format == "json":
        lengths = [sample.tokens for sample in index.samples]
        result = {
            "index": str(index.path),
            "samples": len(lengths),
            "tokens": {"total": sum(lengths), "least": min(lengths), "most": max(lengths)},
            "patches": sum(sample.patches for sample in index.samples),
            "label_tokens": sum(sample.label_tokens for sample in index.samples),
            "skipped": [_compact(problem.__dict__) for problem in index.problems],
        }
        print(json.dumps(result))
        return 0
    if index.problems:
        complain(f"skipped {len(index.problems)}:\n{describe(index.problems, args.data)}")
    print(f"{summary(index)}\nwrote {index.path}")
    return 0


def _progress() -> Callable[[int], None]:
    def show(count: int) -> None:
        if count % 100 == 0:
            print(f"\r{count:,} samples", end="\r", file=sys.stderr, flush=True)

    return show


if __name__ == "__main__":
    sys.exit(main())
