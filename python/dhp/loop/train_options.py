"""The command line of `dhp train`."""

from __future__ import annotations

import argparse

from dhp.settings.config import TrainConfig, read_config
from dhp.watch.record import CLOCKS


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="dhp train", description="Trains a vision-language model; docs/training.md")
    p.add_argument("config", help="TOML file (examples/demo.toml)")
    p.add_argument("--ranks", type=int, help="local ranks to start (under torchrun: its own)")
    p.add_argument("--planner", help="a planner of `dhp plan`: free, lockstep, paper, static:CP, ...")
    p.add_argument("--schedule", help=argparse.SUPPRESS)  # settings/old_names.py
    p.add_argument("--steps", type=int, help="optimizer steps in all")
    p.add_argument("--metrics", default="", metavar="FILE.jsonl", help="append one JSON object a step")
    p.add_argument("--trace", default="", metavar="PATH", help="Chrome trace: FILE.json, or a folder of files a rank")
    p.add_argument("--result", default="", metavar="FILE.json", help="write what the run was like, for dhp report")
    p.add_argument("--result-step", type=int, default=0, metavar="K", help="whose timeline it holds (default: 2)")
    p.add_argument(
        "--result-clock", choices=CLOCKS, default="auto", help="auto: emulated where ranks outnumber cores, else wall"
    )
    p.add_argument("--output-format", choices=("text", "json"), default="text", help="json: the metrics on stdout")
    p.add_argument("--quiet", action="store_true", help="no lines but errors")
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
