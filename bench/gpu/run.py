"""Runs the steps of bench/gpu, each in a process of its own: what one breaks, the next does not see. One table, and
FOLDER/result.json."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

sys.path.insert(0, str(Path(__file__).parent))
import replay
import steps
from place import Place, place_of

from dhp.run import build_ops
from dhp.run.ops import built_for

LIMIT_S = 240  # of a step
STEPS = {
    "library": steps.library,
    "flash": steps.flash,
    "ring": steps.ring,
    "group": steps.group,
    "train": steps.train,
    "waits": steps.waits,
    "packed": steps.packed,
    "alone": steps.alone,
    "calibrate": replay.calibrate,
    "replay": replay.replay,
    "two ranks": steps.two_ranks,
}


def build(folder: Path) -> str:
    """The op library for the torch at hand; sets where it is found."""
    if not os.environ.get("DHP_TORCH_LIBRARY"):
        output = folder / "libdhp_torch.so"
        compiler = build_ops._compiler(os.environ.get("CXX", "c++"))
        build_ops.build(output, compiler, os.cpu_count() or 1)
        os.environ["DHP_TORCH_LIBRARY"] = str(output)
    library = Path(os.environ["DHP_TORCH_LIBRARY"])
    return f"{library.name} of dhp {' for torch '.join(built_for(library))}"


def in_process(name: str, place: Place, pipe: Any) -> None:
    try:
        place.begin()
        pipe.send(("ok", STEPS[name](place)))
    except steps.Skipped as reason:
        pipe.send(("skipped", [str(reason)]))
    except BaseException:
        pipe.send(("FAILED", traceback.format_exc().splitlines()))
    pipe.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # no destructors: a device that has failed may wait in them


def run_step(name: str, place: Place) -> tuple[str, list[str]]:
    """Its end, and lines about it."""
    context = multiprocessing.get_context("fork")  # all is imported already; nothing has asked for the device
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=in_process, args=(name, place, theirs))
    process.start()
    theirs.close()
    try:
        end, lines = ours.recv() if ours.poll(LIMIT_S) else ("FAILED", [f"not done after {LIMIT_S} s: killed"])
    except EOFError:
        end, lines = "FAILED", ["its process died"]
    process.join(5.0)
    if process.is_alive():
        process.kill()
        process.join()
    return end, lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/gpu/run.sh", description="See docs/gpu.md.")
    parser.add_argument("--out", default="build/gpu", metavar="FOLDER", help="result.json, and what steps make")
    parser.add_argument("--steps", nargs="+", choices=[*STEPS], default=[*STEPS], help="only these, in their order")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    started, results = time.monotonic(), {}
    result: dict[str, Any] = {"date": str(date.today()), "torch": torch.__version__, "host": platform.machine()}
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        place = place_of(Path(scratch))
        try:
            result["library"] = build(out)
        except Exception as error:
            print(f"bench/gpu: the op library cannot be built: {error}", file=sys.stderr)
            return 1
        result["device"] = place.device
        print(f"torch {torch.__version__}, {result['library']}, on {place.device}", flush=True)
        for name in [name for name in STEPS if name in options.steps]:
            begun = time.monotonic()
            end, lines = run_step(name, place)
            took = time.monotonic() - begun
            results[name] = {"end": end, "seconds": round(took, 1), "found": lines}
            show(name, end, took, lines)
            (out / "result.json").write_text(json.dumps({**result, "steps": results}, indent=1) + "\n")
    failed = [name for name, row in results.items() if row["end"] == "FAILED"]
    print(f"{len(results)} steps in {time.monotonic() - started:.0f} s, {len(failed)} failed; {out}/result.json")
    return 1 if failed else 0


def show(name: str, end: str, took: float, lines: list[str]) -> None:
    shown = lines
    if end == "FAILED":  # the rest is in the file
        shown = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Failed)\b", line)][-1:] or lines[-1:]
    print(f"{name:<10} {end:<8}{took:>6.0f} s  {shown[0] if shown else ''}", flush=True)
    for line in shown[1:]:
        print(f"{'':<27}{line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
