"""`dhp calibrate`: measures a model on the device it runs on, and fits a cost file to it; docs/calibration.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Ranks are forked: a tokenizer that had started threads in the parent would be broken in them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from dhp._core import Cluster, CostModel, ErrorSizes, Exchange, InputError, Link, Recompute, parse_freeze, to_json
from dhp.base.old_flags import todays_flags
from dhp.base.output import check_apart, check_writable, complain, say, write_atomically
from dhp.base.slow_ranks import slow_ranks_text
from dhp.cost.calibrate_data import fitting, planned_designs
from dhp.cost.calibrate_fit import GOOD_MEAN, GOOD_P95, Calibration, fit, measure
from dhp.cost.calibrate_links import measure_links, ranks_per_node
from dhp.cost.calibrate_options import RENAMED, check_options, parser
from dhp.cost.calibrate_tasks import Design, Range, UnitRule, make_designs, rule_of
from dhp.cost.counted import uncounted_cost
from dhp.cost.errors import sizes_text
from dhp.cost.fit import TERMS, NoFit
from dhp.cost.local import local_cluster, local_cost, no_room, preset_at_hand
from dhp.data.indexing.index import default_path, load_or_build_index
from dhp.models import attach, family_class, family_of, freeze, import_family
from dhp.models.attention import head_size, kernel_for
from dhp.models.model_folder import load_weights
from dhp.models.weights import DTYPES, compute_dtype
from dhp.run import commands, devices
from dhp.run.launch import BAD_INPUT, check_device, join, look_and_run
from dhp.run.made_once import made_once
from dhp.run.rendezvous import started_by_others
from dhp.run.runtime import RankFailed, Run

NO_FIT = 1  # the exit code where the measurements do not determine the coefficients
TEXT_TASKS = 6
MOST_DEGREE = 8  # of one process, unless asked otherwise


@dataclass(frozen=True)
class Found:
    """What a calibration found, to be written.

    file     the cost file: dhp.cost/1 with an object `fit`
    cluster  the ranks with their speeds and the links that were measured between them, if asked for
    """

    file: dict[str, Any]
    cluster: Cluster | None = None


def calibrate(options: argparse.Namespace, run: Run, progress: Callable[[int, int], None]) -> Found | NoFit | None:
    """Measures and fits; returns what was found on rank 0, None on others. Writes nothing. Raises InputError before
    anything is measured. Collective."""
    device = run.device
    if device.type == "cpu":
        torch.set_num_threads(1)  # CPU time of one thread is the clock
    options.device = options.device or preset_at_hand(device.type, "--device")
    _check_run(options, run)
    family_of(options.model)
    model = _load(options, device)
    kernel = attention_kernel(options.precision, model.config.get_text_config(), device)
    adapter = attach(model, run, cluster=_nodes(options, run))
    base = counted_cost(options, run)
    what, designs = _designs(options, model, run, base)

    def forward(loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            return loss()

    measured = measure(
        adapter,
        designs,
        options.repeats,
        run,
        exchange=Exchange[options.exchange],
        forward=forward,
        progress=progress,
    )
    links = measure_links(run) if run.world_size > 1 else (None, None)
    if run.rank != 0:
        return None
    result = fit(measured.tasks, base, Path(options.model).resolve().name, measured.rank_error)
    if isinstance(result, NoFit):
        return result
    file = describe(result, measured.rank_speed, what, options, device, run, links, kernel)
    return Found(file, _cluster(options, run, links, measured.rank_speed) if options.cluster_output else None)


def _check_run(options: argparse.Namespace, run: Run) -> None:
    """What depends on how many ranks there are, and the files that rank 0 will write. Raises InputError, the same on
    all ranks. Collective."""
    if options.max_degree > run.world_size > 1:
        raise InputError(
            f"--max-degree: found {options.max_degree}, but there are {run.world_size} ranks; take at most "
            f"{run.world_size}, or more ranks"
        )
    if options.cluster_output and run.world_size == 1:
        raise InputError(
            "--cluster-output: found 1 rank, but links are measured between ranks; take --ranks 2 or more, or leave "
            "it out"
        )
    if problem := run.from_rank_0(_unwritable(options) if run.rank == 0 else ""):
        raise InputError(problem)


def _unwritable(options: argparse.Namespace) -> str:
    """What is wrong with the files to write, or nothing."""
    try:
        outputs = {"-o": options.output, "--cluster-output": options.cluster_output}
        check_apart(outputs, {"the data": options.data}, options.model)
        for option, file in outputs.items():
            if file:
                check_writable(option, file)
    except InputError as error:
        return str(error)
    return ""


def counted_cost(options: argparse.Namespace, run: Run) -> CostModel:
    """Memory and bytes that travel, counted as a training run with these settings counts them; what the file has of
    them. Its seconds plan the tasks of --data before any are measured."""
    recompute = Recompute.full if options.recompute == "full" else Recompute.none
    try:
        return local_cost(
            options.model,
            run.world_size,
            device=options.device,
            recompute=recompute,
            freeze=parse_freeze(options.freeze, "--freeze"),
            capacity_tokens=options.capacity_tokens,
            precision=options.precision,
        )
    except InputError as error:
        if not options.capacity_tokens:
            raise InputError(f"{error}; or count tokens instead of bytes: --capacity-tokens") from None
        return uncounted_cost(options.model, options.device, recompute)


def _load(options: argparse.Namespace, device: torch.device) -> Any:
    model = load_weights(options.model, DTYPES[options.precision])
    model.train()
    freeze(model, parse_freeze(options.freeze, "--freeze"))
    if options.recompute == "full":
        model.activation_checkpointing_enable()
    return model.to(device)


def attention_kernel(precision: str, text: Any, device: torch.device) -> str:
    """The name of what attends in such a run. Raises InputError where it is plain algebra on a GPU, whose seconds and
    memory are those of no training."""
    kernel = kernel_for(text, compute_dtype(precision), device)
    if device.type != "cpu" and kernel == "reference":
        raise InputError(
            f"--torch-device: found {device.type} with --precision {precision} and heads of {head_size(text)}: there "
            "is no flash attention for these, and plain algebra would be timed, which keeps whole score matrices; take "
            "--precision bf16 and a model whose head size is a multiple of 8 up to 256, or --torch-device cpu"
        )
    return kernel


def _nodes(options: argparse.Namespace, run: Run) -> Cluster | None:
    """Which ranks share a node, where the exchange asks for it. Raises InputError where nothing says."""
    if options.exchange != "hierarchical":
        return None
    size = options.ranks_per_node or (ranks_per_node(run) if run.world_size > 1 else 0)
    if not size:
        raise InputError(
            "--exchange: hierarchical goes by nodes, and one process has none: add --ranks-per-node, as in 4, or take "
            "--ranks"
        )
    most = max(run.world_size, options.max_degree or MOST_DEGREE)
    cluster = local_cluster(size, device=options.device)
    cluster.nodes = -(-most // size)
    return cluster


def _designs(options: argparse.Namespace, model: Any, run: Run, base: CostModel) -> tuple[Range, list[Design]]:
    """What to measure: evenly over lengths and degrees, with clips whose frames can be dealt evenly; or, with --data,
    tasks as planners make them of the data. Raises InputError."""
    most = options.max_degree or (run.world_size if run.world_size > 1 else MOST_DEGREE)
    family = family_class(model)(model)
    rule = rule_of(family)
    counts = {"fit": options.samples, "left out": options.left_out, "text": TEXT_TASKS}
    if options.data:
        return _designs_of_data(options, run, most, base, counts, rule)
    degrees = tuple(d for d in (1, 2, 4, 8, 16, 32, 64) if d <= most)
    between = tuple(d for d in (3, 6, 12, 24, 48) if d <= most)
    what = Range(
        min_tokens=options.min_tokens,
        max_tokens=options.max_tokens,
        degrees=degrees,
        left_out_degrees=between or degrees,
        unit=_unit(options.unit, rule),
        label_share=options.label_share,
        rule=rule,
        vision_shares=Range.vision_shares if family.has_vision else (0.0,),
    )
    return what, make_designs(what, counts, options.seed)


def _unit(text: str, rule: UnitRule) -> tuple[int, int]:
    """Rows and columns of a frame, in patches, of which the model merges merge x merge to a token; where all tiles are
    of one size, that one."""
    if rule.tile_tokens:
        return rule.tile
    merge = rule.merge
    rows, columns = (int(side) for side in text.split("x"))
    if rows % merge or columns % merge:
        raise InputError(
            f"--unit: found {text!r}, expected multiples of {merge}, as in {8 * merge}x{12 * merge}: the model merges "
            f"{merge}x{merge} patches to a token"
        )
    return rows, columns


def _designs_of_data(
    options: argparse.Namespace, run: Run, most: int, base: CostModel, counts: dict[str, int], rule: UnitRule
) -> tuple[Range, list[Design]]:
    """Tasks of plans for `most` ranks. Raises InputError where there are none to fit to, or none to leave out."""
    index = made_once(
        run,
        default_path(options.data),
        lambda progress: load_or_build_index(options.data, options.model, on_error="skip", progress=progress),
    )
    if index.problems and run.rank == 0:
        complain(f"dhp: {index.left_out()}")
    samples = index.samples
    cluster = local_cluster(most, device=options.device, capacity_tokens=options.capacity_tokens)
    if why := no_room(base, cluster):
        raise InputError(f"--device: {options.device}: {why}; take a device with more, or --capacity-tokens")
    designs = planned_designs(samples, base, cluster, counts, options.batch_size, options.seed)
    by_use = {use: [d for d in designs if d.use == use] for use in ("fit", "left out")}
    if not all(by_use.values()):
        raise InputError(
            f"--data: {options.data}: {len(fitting(samples, base, cluster))} of its {len(samples)} samples fit on "
            f"{most} ranks, expected at least 2: some to fit to, others to see the error on; add samples, or take more "
            "--max-degree, --capacity-tokens, or a --device that holds more"
        )
    totals = [sum(shape.tokens for shape in design.shapes) for design in designs]
    degrees = {use: tuple(sorted({d.degree for d in tasks})) for use, tasks in by_use.items()}
    packings = {use: tuple(sorted({len(d.shapes) for d in tasks})) for use, tasks in by_use.items()}
    what = Range(
        min(totals),
        max(totals),
        degrees["fit"],
        degrees["left out"],
        packings["fit"],
        packings["left out"],
        rule=rule,
    )
    return what, designs


def _cluster(
    options: argparse.Namespace, run: Run, links: tuple[Link | None, Link | None], rank_speed: list[float]
) -> Cluster:
    cluster = local_cluster(run.world_size, device=options.device, capacity_tokens=options.capacity_tokens)
    inside, between = links
    if inside or between:
        size = ranks_per_node(run)
        cluster.nodes, cluster.ranks_per_node = run.world_size // size, size
        cluster.intra_node = inside or between or cluster.intra_node
        cluster.inter_node = between or inside or cluster.inter_node
    cluster.rank_speed = rank_speed
    return cluster


def describe(
    result: Calibration,
    rank_speed: list[float],
    what: Range,
    options: argparse.Namespace,
    device: torch.device,
    run: Run,
    links: tuple[Link | None, Link | None],
    kernel: str,
) -> dict[str, Any]:
    """The cost file: dhp.cost/1 with an object `fit`, which planners do not look at."""
    on_host = f"{platform.machine()} CPU, 1 thread" if device.type == "cpu" else ""
    frozen = parse_freeze(options.freeze, "--freeze")
    names = {"inside_node": links[0], "between_nodes": links[1]}
    return {
        **json.loads(to_json(result.cost)),
        "fit": {
            "good": result.good,
            "left_out": asdict(result.left_out),
            "left_out_by_degree": {str(degree): asdict(e) for degree, e in result.by_degree.items()},
            "text_alone": asdict(result.text),
            "fitted": asdict(result.fitted),
            "modules": [
                {
                    "module": part.module,
                    "pass": part.direction,
                    **{key: getattr(part.fit.seconds, key) for key in TERMS},
                    "error": asdict(part.fit.error),
                    "set_aside": part.fit.set_aside,
                }
                for part in result.parts
            ],
            "device": on_host or devices.model_of(device.type) or device.type,
            "clock": "CPU time of the compute thread" if on_host else "events of the device",
            "torch": torch.__version__,
            "precision": options.precision,
            "frozen": [part for part in ("vit", "aligner", "llm") if getattr(frozen, part)],
            "attention": kernel,
            "ranks": run.world_size,
            "exchange": options.exchange,
            "tokens": [what.min_tokens, what.max_tokens],
            "degrees": list(what.degrees),
            "left_out_degrees": list(what.left_out_degrees),
            "packings": sorted(set(what.packings)),
            "left_out_packings": sorted(set(what.left_out_packings)),
            "data": options.data,
            **({} if options.data else {"frame_patches": list(what.unit), "label_share": what.label_share}),
            "repeats": options.repeats,
            "links": {
                name: {"latency_s": link.latency_s, "bandwidth_bytes_per_s": link.bandwidth_bytes_per_s}
                for name, link in names.items()
                if link
            },
            "rank_speed": rank_speed,
        },
    }


def table(file: dict[str, Any]) -> str:
    """What was found, for people."""
    fitted = file["fit"]
    lines = [
        f"{file['name']} on {fitted['device']}, {fitted['precision']}, clock: {fitted['clock']}",
        f"tasks of {fitted['tokens'][0]:,} to {fitted['tokens'][1]:,} tokens, degrees "
        f"{_list(fitted['degrees'])}, packings {_list(fitted['packings'])}, {fitted['repeats']} repeats"
        + (f", {fitted['ranks']} ranks" if fitted["ranks"] > 1 else ", one process"),
        "",
        f"{'module':<10} {'pass':<9}{'task ms':>9}{'patch us':>10}{'p.pair ns':>11}{'token us':>10}{'pair ns':>9}"
        f"{'step ms':>9}{'seq ms':>8}{'error':>8}{'95 %':>7}{'out':>5}",
    ]
    for row in fitted["modules"]:
        lines.append(
            f"{row['module']:<10} {row['pass']:<9}{_cell(row['task_s'], 1e3):>9}{_cell(row['patch_s'], 1e6):>10}"
            f"{_cell(row['patch_pair_s'], 1e9):>11}"
            f"{_cell(row['token_s'], 1e6):>10}{_cell(row['pair_s'], 1e9):>9}{_cell(row['step_s'], 1e3):>9}"
            f"{_cell(row['sequence_step_s'], 1e3):>8}{row['error']['mean']:>7.1%} {row['error']['p95']:>6.1%}"
            f"{row['set_aside']:>5}"
        )
    lines += ["", f"{'whole tasks':<38}{'mean':>8}{'95 %':>8}{'worst':>8}{'tasks':>7}"]
    rows = [("of the fit", fitted["fitted"]), ("left out of the fit", fitted["left_out"])]
    rows += [(f"  degree {degree}", error) for degree, error in fitted["left_out_by_degree"].items()]
    rows += [("text alone", fitted["text_alone"])]
    rows = [row for row in rows if row[1]["samples"]]
    for name, error in rows:
        lines.append(f"{name:<38}{error['mean']:>8.1%}{error['p95']:>8.1%}{error['worst']:>8.1%}{error['samples']:>7}")
    for name, link in fitted["links"].items():
        lines.append(
            f"link {name.replace('_', ' ')}: {link['latency_s'] * 1e6:.0f} us, "
            f"{link['bandwidth_bytes_per_s'] / 1e9:.2f} GB/s"
        )
    if slow := slow_ranks_text(fitted["rank_speed"]):
        lines.append(slow)
    lines.append(sizes_text(ErrorSizes(**file["expected_error"])))
    return "\n".join(lines)


def _list(values: list[int]) -> str:
    return ", ".join(str(value) for value in values)


def _cell(seconds: float, unit: float) -> str:
    return f"{seconds * unit:.3g}" if seconds else "-"


def work(options: argparse.Namespace) -> int:
    """One rank; returns its exit code."""
    run = join(600.0, options.torch_device, "--torch-device")
    if isinstance(run, int):
        return run
    try:
        with run.at("calibration"):
            found = calibrate(options, run, _progress(options, run))
        run.close()
        if isinstance(found, NoFit):
            complain(f"dhp: no fit: {found.reason}")
            return NO_FIT
        return finish(found, options) if found else 0
    except InputError as error:
        run.say_once(f"dhp: error: {error}")
        return 2
    except RankFailed as error:
        run.say_once(f"dhp: error: {error}")
        return 1


def finish(found: Found, options: argparse.Namespace) -> int:
    """Says what was found, then writes it: it is seen even where it cannot be written any more. Returns the exit code.
    Raises InputError where a file cannot be written."""
    file = found.file
    text = json.dumps(file, indent=1, allow_nan=False)
    code = say(text if options.output_format == "json" else table(file))
    _warn(file)
    if options.output:
        write_atomically("-o", options.output, text + "\n")
    if found.cluster:
        write_atomically("--cluster-output", options.cluster_output, to_json(found.cluster))
    return code


def _warn(file: dict[str, Any]) -> None:
    if not file["fit"]["good"]:
        error = file["fit"]["left_out"]
        complain(
            f"dhp: warning: not a good fit: {error['mean']:.1%} off on average and {error['p95']:.1%} at the 95th "
            f"percentile on tasks left out of it, where {GOOD_MEAN:.0%} and {GOOD_P95:.0%} are accepted; the file says "
            '"good": false. Measure again on a quieter machine, with more --repeats, or over lengths nearer to yours'
        )


def _progress(options: argparse.Namespace, run: Run) -> Callable[[int, int], None]:
    def show(done: int, of: int) -> None:
        if run.rank == 0 and sys.stderr.isatty():
            bar = "#" * (30 * done // of)
            print(f"\rmeasuring [{bar:<30}] {done}/{of}", end="\n" if done == of else "", file=sys.stderr, flush=True)

    return show


def main(arguments: list[str] | None = None) -> int:
    try:
        options = parser().parse_args(todays_flags(sys.argv[1:] if arguments is None else arguments, RENAMED))
        check_options(options)
        by_others = started_by_others()
    except InputError as error:
        complain(f"dhp: error: {error}")
        return 2
    if by_others or options.ranks == 1:
        return work(options)
    import_family(options.model)
    return look_and_run(
        options.ranks,
        lambda: check_device(options.torch_device, options.ranks, "--torch-device"),
        lambda: work(options),
        arguments,
        looks="the process that looks at the devices",
        explained=(NO_FIT, BAD_INPUT),
    )


if __name__ == "__main__":
    commands.end(main())
