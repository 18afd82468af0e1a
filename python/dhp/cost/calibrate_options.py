"""The command line of `dhp calibrate`."""

from __future__ import annotations

import argparse
import re

from dhp._core import InputError, parse_freeze
from dhp.models import family_of
from dhp.models.weights import DTYPES

RENAMED = {
    "--device cpu": "--torch-device cpu",
    "--device cuda": "--torch-device cuda",
    "--memory-of": "--device",
    "--gradient-checkpointing": "--recompute full",
}


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="dhp calibrate",
        description="Measure a model on this device and fit a cost file; see docs/calibration.md",
    )
    p.add_argument("--model", required=True, metavar="FOLDER", help="Hugging Face checkpoint folder")
    p.add_argument("-o", "--output", default="", metavar="COST.json", help="where to write the cost file")
    p.add_argument(
        "--cluster-output", default="", metavar="CLUSTER.json", help="cluster file with the measured links and speeds"
    )
    p.add_argument("--ranks", type=int, default=1, help="local ranks: groups are real, and links are measured")
    p.add_argument(
        "--torch-device",
        choices=("auto", "cpu", "cuda", "npu"),
        default="auto",
        help="where to measure, as in dhp train",
    )
    p.add_argument("--data", default="", metavar="FILE.jsonl", help="measure tasks that planners make of this data")
    p.add_argument("--batch-size", type=int, default=16, help="samples of a planned batch, with --data")
    p.add_argument("--min-tokens", type=int, default=32, help="shortest task")
    p.add_argument("--max-tokens", type=int, default=2048, help="longest task")
    p.add_argument("--max-degree", type=int, default=0, help="widest group; default 8, or the ranks")
    p.add_argument("--samples", type=int, default=72, help="tasks to fit to")
    p.add_argument("--left-out", type=int, default=24, help="tasks of other lengths and degrees, to measure the error")
    p.add_argument("--repeats", type=int, default=7, help="runs of each task; their median counts")
    p.add_argument("--seed", type=int, default=0, help="seed that draws the tasks")
    p.add_argument("--unit", default="16x16", metavar="RxC", help="a frame, in patches: multiples of the merge size")
    p.add_argument("--label-share", type=float, default=0.25, help="share of tokens with a loss")
    p.add_argument("--exchange", choices=("ring", "direct", "hierarchical"), default="ring", help="how shards travel")
    p.add_argument("--ranks-per-node", type=int, default=0, help="for hierarchical; default: those of each machine")
    p.add_argument("--precision", choices=sorted(DTYPES), default="fp32", help="as in dhp train")
    p.add_argument("--freeze", default="", metavar="PARTS", help="parts that do not train, of vit,aligner,llm")
    p.add_argument("--recompute", choices=("full", "none"), default="none", help="as in dhp cost")
    p.add_argument("--capacity-tokens", type=int, default=0, help="tokens a rank may hold, as in dhp train")
    p.add_argument("--device", default="", help="a device of dhp cost, for its memory; default: the one at hand")
    p.add_argument("--output-format", choices=("text", "json"), default="text", help="json: the cost file on stdout")
    return p


def check_options(options: argparse.Namespace) -> None:
    """Raises InputError for values out of range, and for a model of no known family."""
    least = {
        "ranks": 1,
        "min_tokens": 16,
        "samples": 1,
        "left_out": 1,
        "repeats": 1,
        "max_tokens": 16,
        "batch_size": 1,
        "max_degree": 0,
        "ranks_per_node": 0,
    }
    for key, minimum in least.items():
        if getattr(options, key) < minimum:
            flag = "--" + key.replace("_", "-")
            raise InputError(f"{flag}: found {getattr(options, key)}, expected at least {minimum}")
    if options.max_tokens < options.min_tokens:
        raise InputError(
            f"--max-tokens: found {options.max_tokens}, expected at least --min-tokens, which is {options.min_tokens}"
        )
    if not 0.0 <= options.label_share <= 1.0:
        raise InputError(f"--label-share: found {options.label_share}, expected a share from 0 to 1")
    if not re.fullmatch("[1-9][0-9]*x[1-9][0-9]*", options.unit):
        raise InputError(f"--unit: found {options.unit!r}, expected ROWSxCOLUMNS in patches, as in 16x24")
    parse_freeze(options.freeze, "--freeze")
    family_of(options.model)
