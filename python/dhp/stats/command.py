"""`dhp index`, with `--stats`: what the samples look like, and what training on them will.

    dhp index DATA --model FOLDER --stats            builds the index, if something has changed, and tells
    dhp index DATA --stats                           tells what an index says that is there; DATA may be the index
    … --cluster h100-2x8 --cost qwen3-vl-8b@h100     plans batches, and says how long steps will take
    … --page FILE.html                               as a page, too

Exit codes: those of `dhp index`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dhp._core import InputError, planners, read_cluster, read_cost_model
from dhp.base.output import check_apart, check_writable, complain, say, write_atomically
from dhp.data.indexing import index_command
from dhp.data.indexing.index import Index, default_path, load_index
from dhp.data.indexing.index_file import FORMAT
from dhp.stats.figures import Asked, Stats, stats_of
from dhp.stats.text import text_of

_NEED_STATS = ("batch_size", "batches", "seed", "cluster", "cost", "planner", "page")


def main(argv: Sequence[str] | None = None) -> int:
    parser = index_command.index_parser()
    _add_options(parser)
    args = index_command.parsed(parser, argv)
    if not args.stats:
        given = [name for name in _NEED_STATS if getattr(args, name) is not None]
        if given:
            parser.error(f"argument --{given[0].replace('_', '-')}: is for --stats")
        return index_command.index_files(parser, args)
    if (args.cluster is None) != (args.cost is None):
        parser.error("--cluster and --cost belong together: steps need both")
    try:
        if args.page:
            _check_page(args)
        asked = _asked(args)
        if args.model:
            for file in args.files:
                if code := index_command.index_file(args, file, is_quiet=True):
                    return code
        stats = stats_of([_opened(args, file) for file in args.files], asked)
        if args.page:
            from dhp.stats.page import page_of

            write_atomically("--page", args.page, page_of(stats))
    except InputError as error:
        complain(f"dhp index: error: {error}")
        return 2
    return say(json.dumps(_as_json(stats)) if args.output_format == "json" else _text(stats, args.page))


def _add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stats")
    group.add_argument("--stats", action="store_true", help="say what the samples and batches look like")
    group.add_argument("--batch-size", type=index_command.positive, metavar="N", help="samples of a batch (64)")
    group.add_argument("--batches", type=index_command.positive, metavar="N", help="batches that are drawn (20)")
    group.add_argument("--seed", type=_seed, metavar="N", help="of the batches (0)")
    group.add_argument("--cluster", metavar="FILE", help="how long steps take there: dhp.cluster/1 JSON, or a preset")
    group.add_argument("--cost", metavar="FILE", help="dhp.cost/1 JSON, or MODEL@DEVICE (qwen3-vl-8b@h100)")
    group.add_argument("--planner", choices=[one.name for one in planners()], metavar="P", help="as of dhp plan (free)")
    group.add_argument("--page", metavar="FILE", help="write it as a page of HTML, too")


def _seed(text: str) -> int:
    value = int(text) if text.isdecimal() and len(text) < 11 else -1
    if not 0 <= value < 1 << 32:
        raise argparse.ArgumentTypeError(f"found {text!r}, must be a whole number from 0 to 4,294,967,295")
    return value


def _check_page(args: argparse.Namespace) -> None:
    """Before the work. Raises InputError."""
    try:
        import plotly  # noqa: F401
    except ImportError:
        raise InputError('--page: needs plotly: pip install "dhp[report]"') from None
    indexes = {f"the index of {file}": str(args.output or default_path(file)) for file in args.files}
    check_apart({"--page": args.page}, {"the data": args.data, **indexes}, args.model or "")
    check_writable("--page", args.page)


def _asked(args: argparse.Namespace) -> Asked:
    cluster = read_cluster(args.cluster) if args.cluster else None
    cost = read_cost_model(args.cost, cluster) if args.cost and cluster else None
    usual = Asked()
    return Asked(
        batch_size=args.batch_size or usual.batch_size,
        batches=args.batches or usual.batches,
        seed=args.seed or 0,
        planner=args.planner or usual.planner,
        cluster=cluster,
        cost=cost,
        cluster_name=args.cluster or "",
        cost_name=args.cost or "",
    )


def _opened(args: argparse.Namespace, data: str) -> Index:
    """The index of a data file, or the file, where it is an index itself."""
    if _is_index(data):
        return load_index(data)
    path = args.output or default_path(data)
    if not os.path.exists(path):
        raise InputError(f"{data}: has no index ({path}); give --model to build it, or -o where it is elsewhere")
    return load_index(path, data)  # with --model, it was made for that just now


def _is_index(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return f'"{FORMAT}"'.encode() in file.read(64)
    except (OSError, ValueError):
        return False


def _text(stats: Stats, page: str | None) -> str:
    return text_of(stats) + (f"\nwrote {page}" if page else "")


def _as_json(stats: Stats) -> dict[str, Any]:
    return {key: value for key, value in asdict(stats).items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
