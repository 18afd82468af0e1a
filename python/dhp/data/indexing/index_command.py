"""`dhp index`: counts the tokens and patches of every sample of a data file.

    dhp index DATA --model FOLDER [-o DATA.index]

Exit codes: 0 written; 1 samples do not fit (and --on-error fail); 2 bad input: arguments, data, media, checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from dhp._core import InputError
from dhp.base.old_flags import todays_flags
from dhp.base.output import complain, printable, say
from dhp.data.access.media_cache import MediaCache
from dhp.data.formats.lines import MAX_LINE_BYTES
from dhp.data.indexing.building import compact
from dhp.data.indexing.index import Index, TooLongError, build_index
from dhp.data.indexing.index_file import Column
from dhp.data.indexing.scan import MAX_WORKERS, Limits
from dhp.data.sources import files_in

RENAMED = {"--capacity-tokens-per-rank": "--capacity-tokens"}


def summary(index: Index) -> str:
    """What a person wants to see: counts, and how uneven the lengths are."""
    samples = index.samples
    lengths: Column = np.sort(samples.tokens)  # type: ignore[assignment]
    least, middle, most = int(lengths[0]), int(lengths[len(lengths) // 2]), int(lengths[-1])
    lines = [
        f"{len(samples):,} samples, {samples.column('pictures').sum():,} pictures, "
        f"{samples.column('clips').sum():,} clips",
        f"{lengths.sum():,} tokens, {samples.label_tokens.sum():,} with a loss, {samples.patches.sum():,} patches",
        f"tokens a sample: {least:,} … {middle:,} … {most:,} (least, median, most; {most / least:.0f}x)",
        *_histogram(lengths),
    ]
    if index.ignored:
        lines.append(index.ignored_keys())
    return "\n".join(lines)


def _histogram(lengths: Column, width: int = 40) -> Iterable[str]:
    """Bars over powers of two, of lengths in order."""
    least, most = int(lengths[0]).bit_length(), int(lengths[-1]).bit_length()
    edges = np.searchsorted(lengths, [1 << bits for bits in range(least - 1, most + 1)])
    counts = np.diff(edges).tolist()
    for bits, count in zip(range(least, most + 1), counts, strict=True):
        bar = "#" * math.ceil(width * count / max(counts))
        yield f"  {1 << (bits - 1):>9,} … {(1 << bits) - 1:>9,} {count:>7,} {bar}"


def index_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dhp index", description="Count the tokens and patches of every sample, by the checkpoint's own rules."
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        help="JSON lines in the style of ms-swift, ShareGPT or OpenAI; tar, Arrow or Parquet; or a folder of them",
    )
    parser.add_argument("--model", metavar="FOLDER", help="Hugging Face checkpoint folder")
    parser.add_argument("-o", "--output", metavar="FILE", help="the index; default: DATA.index")
    parser.add_argument("--max-tokens", type=positive, metavar="N", help="a sample with more tokens is too long")
    parser.add_argument("--max-degree", type=positive, metavar="D", help="a sample that needs more ranks is too long")
    parser.add_argument("--capacity-tokens", type=positive, metavar="N", help="tokens a rank may hold")
    parser.add_argument("--on-error", choices=("skip", "fail"), default="fail", help="bad or too long samples (fail)")
    parser.add_argument("--on-malformed", choices=("skip", "fail"), help="malformed lines (default: as --on-error)")
    parser.add_argument(
        "--media-root",
        action="append",
        default=[],
        metavar="DIR",
        help="read media only in this folder, or below this address; repeatable",
    )
    parser.add_argument("--media-cache", metavar="DIR", help="keep media that are read from addresses in this folder")
    parser.add_argument(
        "--media-cache-gb", type=positive, default=100, metavar="N", help="10^9 bytes that it may hold (100)"
    )
    parser.add_argument(
        "--max-line-bytes", type=positive, default=MAX_LINE_BYTES, metavar="N", help=f"default: {MAX_LINE_BYTES:,}"
    )
    parser.add_argument("--verify", action="store_true", help="decode every medium, not just its header")
    parser.add_argument(
        "--workers",
        type=positive,
        default=0,
        metavar="N",
        help=f"processes, up to {MAX_WORKERS} (one a core, at most 8)",
    )
    parser.add_argument("--output-format", choices=("text", "json"), default="text")
    return parser


def positive(text: str) -> int:
    value = int(text) if text.isdecimal() and len(text) < 19 else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, must be a whole number from 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    parser = index_parser()
    return index_files(parser, parsed(parser, argv))


def index_files(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Builds or renews the indexes of all files; returns the exit code."""
    if not args.model:
        parser.error("the following arguments are required: --model")
    return max(index_file(args, file) for file in args.files)


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; `files` are those that the data stand for. Exits where they do not fit each other."""
    try:
        args = parser.parse_args(todays_flags(sys.argv[1:] if argv is None else argv, RENAMED))
    except InputError as error:
        parser.error(str(error))
    if args.max_degree and not args.capacity_tokens:
        parser.error("--max-degree needs --capacity-tokens")
    if args.workers > MAX_WORKERS:
        parser.error(f"argument --workers: found {args.workers}, must be at most {MAX_WORKERS}")
    args.files = files_in(args.data) or [args.data]
    if len(args.files) > 1 and args.output:
        parser.error(
            f"argument --output: {args.data} holds {len(args.files)} data files, each with an index of its own"
        )
    return args


def index_file(args: argparse.Namespace, data: str, is_quiet: bool = False) -> int:
    """Builds the index of one file and says what it holds, unless that `is_quiet`; returns the exit code."""
    progress = _Progress()
    try:
        index = build_index(
            data,
            args.model,
            args.output,
            limits=Limits(args.max_tokens, args.max_degree, args.capacity_tokens),
            on_error=args.on_error,
            on_malformed=args.on_malformed or "",
            media_roots=args.media_root,
            media_cache=MediaCache(args.media_cache, args.media_cache_gb * 10**9) if args.media_cache else None,
            max_line_bytes=args.max_line_bytes,
            workers=args.workers,
            verify=args.verify,
            share=progress.show if args.output_format == "text" else None,
        )
    except InputError as error:
        progress.end()
        too_long = isinstance(error, TooLongError)
        hint = "; raise the limits, or leave these samples out with --on-error skip" if too_long else ""
        if args.output_format == "json":
            say(json.dumps({"error": str(error)}))
        complain(f"dhp index: {'too long' if too_long else 'error'}: {error}{hint}")
        return 1 if too_long else 2
    progress.end()
    if args.output_format == "json":
        return 0 if is_quiet else say(json.dumps(_as_json(index)))
    if counts := index.problem_counts:
        complain(f"skipped {sum(counts.values())}:\n{index.described(counts)}")
    return 0 if is_quiet else say(f"{summary(index)}\nwrote {printable(str(index.path))}")


def _as_json(index: Index) -> dict[str, Any]:
    tokens = index.samples.tokens
    return {
        "index": str(index.path),
        "samples": len(tokens),
        "tokens": {"total": int(tokens.sum()), "least": int(tokens.min()), "most": int(tokens.max())},
        "patches": int(index.samples.patches.sum()),
        "label_tokens": int(index.samples.label_tokens.sum()),
        "skipped": [compact(problem.__dict__) for problem in index.problems],
        "ignored": index.ignored,
    }


class _Progress:
    """Lines, rate and time left on standard error: ten times a second on a terminal, once a minute elsewhere."""

    def __init__(self, terminal: bool | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._now = now
        self._began = self._shown = now()
        self._is_shown = False  # on the terminal's last line

    def show(self, lines: int, share: float) -> None:
        """`share` of the file has been read. Lines that are taken over from an earlier index count too."""
        now = self._now()
        if now - self._shown < (0.1 if self._terminal else 60.0):
            return
        self._shown = now
        seconds = now - self._began
        left = seconds * (1 - share) / share if share else 0.0
        text = f"{lines:,} lines, {lines / seconds:,.0f} a second, {share:.0%} of the file, {_duration(left)} left"
        self._is_shown = self._terminal
        if self._terminal:
            text = f"\r{text:<78}\r"
        print(text, end="" if self._terminal else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Takes it off a terminal."""
        if self._is_shown:
            print(f"\r{'':<78}", end="\r", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
