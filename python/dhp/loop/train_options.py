"""The command line of `dhp train`."""

from __future__ import annotations

import argparse

from dhp.settings.config import TrainConfig, read_config
from dhp.watch.record import CLOCKS


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="dhp train", description="Train a vision-language model; see docs/training.md")
    p.add_argument("config", help="TOML file (examples/demo.toml)")
    p.add_argument("--ranks", type=int, help="local ranks to start (torchrun sets its own)")
    p.add_argument("--planner", help="a planner of `dhp plan`: free, lockstep, paper, static:CP, ...")
    p.add_argument("--schedule", help=argparse.SUPPRESS)  # settings/old_names.py
    p.add_argument("--steps", type=int, help="optimizer steps in total (or num_train_epochs in CONFIG)")
    p.add_argument("--metrics", default="", metavar="FILE.jsonl", help="append one JSON object per step")
    p.add_argument("--trace", default="", metavar="PATH", help="Chrome trace: FILE.json, or a folder (a file per rank)")
    p.add_argument("--result", default="", metavar="FILE.json", help="write the results of the run, for dhp report")
    p.add_argument("--result-step", type=int, default=0, metavar="K", help="step whose timeline it holds (default: 2)")
    p.add_argument(
        "--result-clock", choices=CLOCKS, default="auto", help="auto: emulated if ranks outnumber cores, else wall"
    )
    p.add_argument("--output-format", choices=("text", "json"), default="text", help="json: the metrics on stdout")
    p.add_argument("--quiet", action="store_true", help="print only errors")
    p.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in output_dir")
    p.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override settings; after CONFIG"
    )
    return p


def settings_of(options: argparse.Namespace) -> TrainConfig:
    """Raises InputError."""
    given = {key: getattr(options, key) for key in ("ranks", "planner", "schedule", "steps")}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]  # 0 is given too
    overrides += ["resume=true"] * options.resume
    return read_config(options.config, [*options.set, *overrides])
