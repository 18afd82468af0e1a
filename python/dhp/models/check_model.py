"""`dhp check-model`: whether a checkpoint's kind of model trains on shards exactly what it trains alone.

    dhp check-model FOLDER

Makes a small random model of the same kind from config.json, with every kind of its layers, and compares losses and
all gradients of made-up samples: Hugging Face's own forward, one sample at a time, against tasks on groups of one to
four ranks, which are threads of this process. No weights are read.

Exit codes: 0 exact; 1 it is not, or the model cannot be attached; 2 bad input.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

import torch

from dhp._core import InputError
from dhp.base import unregistered
from dhp.base.json_file import first_line
from dhp.base.output import complain, say
from dhp.models import family_class, family_of
from dhp.models.families import Family
from dhp.models.model_folder import auto_class, plain_config, quiet, read_config
from dhp.models.shrink import described, shrunk
from dhp.models.trial import TASKS, Difference, alone, difference, made_samples, on_shards, units_differ

# Of losses, and of a gradient. transformers computes some of it in fp32 whatever the weights are.
TOLERANCE = 1e-6


class NotExactError(Exception):
    """The model cannot be attached, or not be run."""


def check_model(folder: str, seed: int = 0) -> tuple[str, Difference, float]:
    """What was compared; the difference in fp64; and how far rows of units that are encoded one by one are from those
    that are encoded together. Raises InputError for a folder that is none, NotExactError for a model that cannot be
    attached."""
    family_of(folder)
    return check_config(config_of(folder), seed, named=f"{folder}/config.json")


def check_config(config: Any, seed: int = 0, named: str = "") -> tuple[str, Difference, float]:
    """The same of a transformers config, which messages call `named`, or by the folder that it was read from. Raises
    InputError where no small model can be made of it."""
    named = named or os.path.join(getattr(config, "name_or_path", "") or "", "config.json")
    try:
        small = shrunk(config)
        model = _random_model(small, seed)
    except Exception as error:  # whatever transformers makes of odd values
        raise InputError(f"{named}: no small model can be made of it ({first_line(error)})") from None
    family: Family = family_class(model)(model)
    try:
        samples = made_samples(family, seed)
        found = difference(alone(model, samples), on_shards(model, samples, TASKS), floor=TOLERANCE)
        return described(config, small), found, units_differ(family, samples)
    except Exception as error:  # of guards, or of whatever a model makes of the attempt
        raise NotExactError(f"{described(config, small)}: {first_line(error)}") from None


def config_of(folder: str) -> Any:
    """Raises InputError."""
    plain_config(folder)
    try:
        with quiet():
            return read_config(folder)
    except Exception as error:  # whatever transformers makes of odd values
        raise InputError(f"{folder}/config.json: describes no model ({first_line(error)})") from None


def _random_model(small: Any, seed: int) -> Any:
    """In fp64, with no weight at an accidental zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with quiet():
            model = auto_class(small.model_type).from_config(small).double().train()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1 or parameter.std() < 1e-3:
                    parameter.add_(0.05 * torch.randn_like(parameter))
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the others have no fp64
    return model


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dhp check-model",
        description="Compare a small random model of a checkpoint's kind on shards with itself alone: losses and all "
        "gradients. Exit code 0: exact; 1: not; 2: bad input.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="Hugging Face checkpoint folder; only config.json is read")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and samples (0)")
    parser.add_argument(
        "--allow-unregistered", action="store_true", help="try a family that is not registered (docs/models.md)"
    )
    options = parser.parse_args(arguments)
    if options.allow_unregistered:
        unregistered.allow()
    from dhp.run import ops

    ops.load()
    try:
        what, found, units = check_model(options.folder, options.seed)
    except InputError as error:
        complain(f"dhp check-model: error: {error}")
        return 2
    except NotExactError as error:
        complain(f"dhp check-model: not exact: {error}")
        return 1
    exact = found.within(TOLERANCE) and units <= TOLERANCE
    say(
        f"{what}\n"
        f"6 samples on groups of 1 to 4 ranks against the model alone, fp64\n"
        f"loss        {found.loss:.1e} off\n"
        f"gradients   {found.gradient:.1e} off, the worst of {found.parameters}: {found.parameter}\n"
        f"units       {units:.1e} off, encoded one by one and together\n"
        f"{'exact' if exact else f'NOT exact: more than {TOLERANCE:.0e} off'}"
    )
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
