"""The settings of a training run: one dataclass, read from TOML, overridden from the command line."""

from __future__ import annotations

import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhp._core import Freeze, InputError, plan_options, validate_options

PRECISIONS = ("fp32", "bf16", "fp64")


@dataclass(frozen=True)
class TrainConfig:
    """Paths are relative to the working directory. The names are those of Hugging Face's and ms-swift's arguments where
    these have one."""

    # What to train, on what
    model: str  # Hugging Face checkpoint folder
    data: str  # ms-swift JSONL
    index: str = ""  # made beside the data when empty or missing
    output_dir: str = "output"
    precision: str = "fp32"  # fp32 | bf16 (fp32 weights, bf16 compute) | fp64
    freeze_vit: bool = False
    freeze_aligner: bool = False
    freeze_llm: bool = False
    gradient_checkpointing: bool = False

    # Batches and plans
    ranks: int = 1  # local ranks that `dhp train` starts (torchrun: its own count)
    global_batch_size: int = 8
    steps: int = 100
    seed: int = 0
    schedule: str = "free"  # a planner of `dhp plan`
    plan: dict[str, Any] = field(default_factory=dict)  # table [plan]: further options of `dhp plan`, max_degree = 8
    capacity_tokens: int = 0  # tokens a rank may hold in a task; 0: what the cost and cluster files say
    cluster: str = ""  # dhp.cluster/1 file; empty: one node of the local ranks
    cost: str = ""  # dhp.cost/1 file; empty: counted from the model's config.json for `device`
    device: str = "local-cpu"  # of the counted cost
    recalibrate_every: int = 0  # steps after which the cost is fitted anew to the run's own tasks; 0: never
    on_bad_media: str = "skip"  # skip | fail: a picture or clip that cannot be read
    on_too_long: str = "fail"  # skip | fail: a sample that all ranks together cannot hold

    # Optimizer: AdamW, linear warm-up, cosine to min_learning_rate
    learning_rate: float = 1e-4
    min_learning_rate: float = 0.0
    warmup_steps: int = 0
    weight_decay: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0  # 0: no clipping

    # Saving and watching
    save_steps: int = 0  # 0: at the end only
    save_total_limit: int = 2  # checkpoints kept; 0: all
    resume: bool = False  # continue from the newest checkpoint in output_dir
    timeout_s: float = 600.0  # longest wait for a peer
    traceback: bool = False  # where an error arose, for developers
    log_every: int = 0  # lines also where the output is no terminal, one in so many steps

    @property
    def frozen(self) -> Freeze:
        return Freeze(vit=self.freeze_vit, aligner=self.freeze_aligner, llm=self.freeze_llm)


def read_config(file: str | Path, overrides: list[str] | None = None) -> TrainConfig:
    """Reads a TOML file and applies overrides ("key=value"). Raises InputError naming file, key, value and remedy."""
    try:
        table = tomllib.loads(Path(file).read_text())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not valid TOML: {error}") from None
    values = {key: _typed(str(file), key, value) for key, value in table.items()}
    for override in overrides or []:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f'--set: found "{override}", expected key=value')
        table_key, dot, option = key.partition(".")
        if dot and table_key == "plan":
            values["plan"] = {**values.get("plan", {}), option: _parse(key, text)}
        else:
            values[key] = _typed("--set", key, _parse(key, text))
    for required in ("model", "data"):
        if required not in values:
            raise InputError(f"{file}: {required}: missing; set it to a path")
    config = TrainConfig(**values)
    _validate(str(file), config)
    return config


_TYPES: dict[str, type] = typing.get_type_hints(TrainConfig)


def _typed(source: str, key: str, value: Any) -> Any:
    if key not in _TYPES:
        close = ", ".join(name for name in _TYPES if name.startswith(key[:4])) or ", ".join(_TYPES)
        raise InputError(f"{source}: {key}: unknown setting; did you mean one of: {close}?")
    wanted = typing.get_origin(_TYPES[key]) or _TYPES[key]
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise InputError(f"{source}: {key}: found {value!r}, expected {wanted.__name__}")
    return value


def _parse(key: str, text: str) -> Any:
    """A command-line value in TOML's notation; strings may go without quotes."""
    if _TYPES.get(key) is str and not text.startswith(('"', "'")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _validate(source: str, config: TrainConfig) -> None:
    least: dict[str, float] = {
        "ranks": 1,
        "global_batch_size": 1,
        "steps": 1,
        "capacity_tokens": 0,
        "warmup_steps": 0,
        "save_steps": 0,
        "max_grad_norm": 0,
        "learning_rate": 0,
        "weight_decay": 0,
        "save_total_limit": 0,
        "log_every": 0,
        "recalibrate_every": 0,
        "timeout_s": 1,
    }
    for key, minimum in least.items():
        if getattr(config, key) < minimum:
            raise InputError(f"{source}: {key}: found {getattr(config, key)}, expected at least {minimum:g}")
    choices = {"precision": PRECISIONS, "on_bad_media": ("skip", "fail"), "on_too_long": ("skip", "fail")}
    for key, allowed in choices.items():
        if getattr(config, key) not in allowed:
            raise InputError(f"{source}: {key}: found {getattr(config, key)!r}, expected one of {', '.join(allowed)}")
    if "schedule" in config.plan:
        raise InputError(f"{source}: plan.schedule: not here; `schedule` stands at the top")
    known = [option.name for option in plan_options() if option.name != "schedule"]
    for name in config.plan:
        if name not in known:
            raise InputError(f"{source}: plan.{name}: unknown option; expected one of {', '.join(known)}")
    try:
        validate_options(**config.plan)
    except InputError as error:
        raise InputError(f"{source}: plan.{error}") from None
    if config.freeze_vit and config.freeze_aligner and config.freeze_llm:
        raise InputError(f"{source}: freeze_vit, freeze_aligner and freeze_llm together leave nothing to train")


__all__ = ["PRECISIONS", "TrainConfig", "read_config"]
