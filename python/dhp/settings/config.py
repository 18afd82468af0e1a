"""The settings of a training run: one dataclass, read from TOML, overridden from the command line."""

from __future__ import annotations

import math
import re
import tomllib
import typing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dhp._core import Freeze, InputError, plan_options, refuse_unused, validate_options
from dhp.data.access.media_cache import MediaCache
from dhp.data.formats.lines import MAX_LINE_BYTES
from dhp.data.sources import named, sources_of
from dhp.settings.old_names import DEVICES, RENAMED, todays_names

PRECISIONS = ("fp32", "bf16", "bf16_weights", "fp64")
MOST_STEPS = 10**9
MOST_FILE_BYTES = 1 << 20  # of a settings file: a larger one is something else


@dataclass(frozen=True)
class Limits:
    """What a setting may be; kept in the metadata of its field, where `check_settings` and tests find it.

    least, most   of a number, inclusive unless `open` says that the number must be above or below it
    choices       of a string
    is_path       of a string: not empty
    """

    least: float | None = None
    most: float | None = None
    open: str = ""  # least | most
    choices: tuple[str, ...] = ()
    is_path: bool = False


def number(default: float, least: float, most: float, *, open: str = "") -> Any:
    """A field that holds a finite number from `least` to `most`."""
    return field(default=default, metadata={"limits": Limits(least, most, open)})


def choice(default: str, *choices: str) -> Any:
    """A field that holds one of `choices`."""
    return field(default=default, metadata={"limits": Limits(choices=choices)})


def path(*default: str) -> Any:
    """A field that names a file or a folder, and must not be empty; required where no default is given."""
    metadata = {"limits": Limits(is_path=True)}
    return field(default=default[0], metadata=metadata) if default else field(metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """Paths are relative to the working directory. The names are those of Hugging Face's and ms-swift's arguments where
    these have one."""

    # What to train, on what
    model: str = path()  # Hugging Face checkpoint folder
    # JSONL file; or a list of them, and of tables {path, weight, index}: data/sources.py
    data: str | list[str | dict[str, Any]] = path()  # noqa: RUF009
    index: str = ""  # made beside the data when empty or missing
    output_dir: str = path("output")
    # bf16: fp32 weights, bf16 compute; bf16_weights: weights and gradients of 16 bits, fp32 copies in the optimizer
    precision: str = choice("fp32", *PRECISIONS)
    freeze_vit: bool = False
    freeze_aligner: bool = False
    freeze_llm: bool = False
    # What runs again in the backward pass: layers, or all of them but attention, whose messages are then sent once
    recompute: str = choice("none", "none", "full", "keep_attention")
    allow_unregistered: bool = False  # a family that DHP does not know, once a small model of it has proven exact
    compile: bool = False  # the language model's layers through torch.compile
    gradient_checkpointing: bool = False  # transformers' name for recompute = "full"
    lora_rank: int = number(0, 0, 1 << 16)  # of LoRA's adapters, which alone train then; 0: none
    lora_alpha: float = number(16.0, 0, 10**6, open="least")  # adapters count alpha / rank times
    lora_target: str = path("all-linear")  # all-linear: of the language model's blocks; else a regular expression that
    # whole names of linear layers match
    lora_merge: bool = False  # at the end, the whole model with its adapters added, as output_dir/merged

    # Batches and plans
    ranks: int = number(1, 1, 1024)  # local ranks that `dhp train` starts (torchrun: its own count)
    global_batch_size: int = number(8, 1, 10**7)
    steps: int = number(100, 1, MOST_STEPS)
    num_train_epochs: float = number(0.0, 0, 10**6)  # instead of steps: so many times through the data; 0: steps count
    seed: int = number(0, 0, 2**32 - 1)
    planner: str = "free"  # a planner of `dhp plan`
    plan: dict[str, Any] = field(default_factory=dict)  # table [plan]: further options of `dhp plan`, max_degree = 8
    capacity_tokens: int = number(0, 0, 10**12)  # that a rank may hold in a task; 0: what cost and cluster files say
    cluster: str = ""  # dhp.cluster/1 file; empty: one node of the local ranks
    device: str = choice("auto", *DEVICES)  # of the ranks; auto: the accelerator that torch finds, else the CPU
    cost: str = ""  # dhp.cost/1 file; empty: counted from the model's config.json for `cost_device`
    cost_device: str = ""  # of the counted cost, as `dhp cost --device`; empty: the preset of `device`
    recalibrate_every: int = number(0, 0, MOST_STEPS)  # steps after which the cost is fitted anew to the run's own
    # tasks; 0: never
    on_malformed: str = choice("fail", "skip", "fail")  # a line of the data that cannot be understood
    max_dropped_share: float = number(0.1, 0, 1)  # of the last 1,000 samples; where more cannot be read, the run ends
    on_bad_media: str = choice("skip", "skip", "fail")  # a picture or clip that cannot be read
    media_roots: list[str] = field(default_factory=list)  # media lie below these folders and addresses (https://…,
    # s3://…); empty: any local path
    media_cache: str = ""  # folder that keeps media read from addresses, for all ranks of a host; empty: none does
    media_cache_gb: float = number(100.0, 0, 10**6, open="least")  # 10^9 bytes that it may hold
    max_line_bytes: int = number(MAX_LINE_BYTES, 1, 10**9)  # of the data; a longer line is malformed
    on_too_long: str = choice("fail", "skip", "fail")  # a sample that all ranks together cannot hold
    data_workers: int = number(0, 0, 256)  # processes of each rank that decode media; 0: a thread of the rank
    frame_cache: str = ""  # folder for decoded frames, which the ranks of a host share; empty: none are kept
    frame_cache_gb: float = number(50.0, 0, 10**6, open="least")  # 10^9 bytes that it may hold; those used last stay

    # Optimizer: AdamW, linear warm-up, cosine to min_learning_rate
    learning_rate: float = number(1e-4, 0, 1000)
    min_learning_rate: float = number(0.0, 0, 1000)  # at most learning_rate
    warmup_steps: int = number(0, 0, MOST_STEPS)
    weight_decay: float = number(0.01, 0, 1000)
    adam_beta1: float = number(0.9, 0, 1, open="most")
    adam_beta2: float = number(0.999, 0, 1, open="most")
    adam_epsilon: float = number(1e-8, 0, 1, open="least")
    max_grad_norm: float = number(1.0, 0, 10**9)  # 0: no clipping
    on_nonfinite: str = choice("stop", "stop", "skip")  # a step whose loss or gradient is not finite
    check_weights_every: int = number(0, 0, MOST_STEPS)  # steps after which ranks compare weights; 0: at the start only

    # Saving and watching
    save_steps: int = number(0, 0, MOST_STEPS)  # 0: at the end only
    save_total_limit: int = number(2, 0, MOST_STEPS)  # checkpoints kept; 0: all
    resume: bool = False  # continue from the newest checkpoint in output_dir
    timeout_s: float = number(600.0, 1, 10**6)  # longest wait for a peer
    traceback: bool = False  # where an error arose, for developers
    log_every: int = number(1, 0, MOST_STEPS)  # one step in so many has a line; 0: as --quiet

    @property
    def recomputed(self) -> str:
        return "full" if self.gradient_checkpointing and self.recompute == "none" else self.recompute

    @property
    def cache_of_media(self) -> MediaCache | None:
        return MediaCache(self.media_cache, int(self.media_cache_gb * 1e9)) if self.media_cache else None

    @property
    def data_name(self) -> str:
        """For messages and names of results: of the first file, and how many more there are."""
        return named(sources_of(self.data))

    @property
    def frozen(self) -> Freeze:
        return Freeze(vit=self.freeze_vit, aligner=self.freeze_aligner, llm=self.freeze_llm)


def read_config(file: str | Path, overrides: list[str] | None = None) -> TrainConfig:
    """Reads a TOML file and applies overrides ("key=value"). Raises InputError naming file, key, value and remedy."""
    table = _read_toml(file)
    names = todays_names(str(file), table)
    values = {names[key]: _typed(str(file), names[key], value) for key, value in table.items()}
    given = [override.partition("=") for override in overrides or []]
    names = todays_names("command line", {key: text for key, _, text in given})
    for key, equals, text in given:
        if not equals:
            raise InputError(f'--set: found "{_word(key)}", expected key=value')
        key = names[key]
        table_key, dot, option = key.partition(".")
        if dot and table_key == "plan":
            values["plan"] = {**values.get("plan", {}), option: _parse(key, text)}
        else:
            values[key] = _typed("--set", key, _parse(key, text))
    for required in ("model", "data"):
        if required not in values:
            raise InputError(f"{file}: {required}: missing; set it to a path")
    config = TrainConfig(**values)
    check_settings(str(file), config)
    if config.num_train_epochs and "steps" in values:
        raise InputError(
            f"{file}: num_train_epochs: found {config.num_train_epochs:g}, and steps {config.steps}; give one of them"
        )
    return config


def _read_toml(file: str | Path) -> dict[str, Any]:
    try:
        with open(file, "rb") as source:
            content = source.read(MOST_FILE_BYTES + 1)
        if len(content) > MOST_FILE_BYTES:
            raise ValueError(f"larger than {MOST_FILE_BYTES:,} bytes")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise InputError(f"{file}: not valid TOML: nested too deeply") from None
    except ValueError as error:  # TOML, UTF-8, a number of too many digits, a name with a NUL
        raise InputError(f"{file}: not valid TOML: {error}") from None


_TYPES: dict[str, type] = typing.get_type_hints(TrainConfig)


def _typed(source: str, key: str, value: Any) -> Any:
    if key not in _TYPES:
        close = ", ".join(name for name in _TYPES if name.startswith(key[:4])) or ", ".join(_TYPES)
        raise InputError(f"{source}: {_word(key)}: unknown setting; did you mean one of: {close}?")
    if key == "data":
        if type(value) not in (str, list):
            raise InputError(f"{source}: data: found {_shown(value)}, expected str, or a list of paths and tables")
        return value
    wanted = typing.get_origin(_TYPES[key]) or _TYPES[key]
    if wanted is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise InputError(f"{source}: {key}: found {_shown(value)}, expected a finite number") from None
    if type(value) is not wanted:
        raise InputError(f"{source}: {key}: found {_shown(value)}, expected {wanted.__name__}")
    if isinstance(value, list) and any(type(item) is not str for item in value):
        raise InputError(f"{source}: {key}: found {_shown(value)}, expected a list of strings")
    return value


def _parse(key: str, text: str) -> Any:
    """A command-line value in TOML's notation; strings may go without quotes."""
    is_text = _TYPES.get(key) is str or (key == "data" and not text.startswith("["))
    if is_text and not text.startswith(('"', "'")):
        return text
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def _shown(value: Any) -> str:
    """A value as Python writes it, cut where it is long: it stands in a line that people read."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python prints
        return f"a number of {value.bit_length():,} bits" if isinstance(value, int) else "too long a value"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text):,} characters)"


def _word(key: str) -> str:
    return key if key.isprintable() else _shown(key)


def check_settings(source: str, config: TrainConfig) -> None:
    """Raises InputError unless every setting is what its field allows, and they fit each other. Ranges and choices
    stand in the metadata of the fields, nowhere else."""
    for setting in fields(config):
        limits = setting.metadata.get("limits", Limits())
        problem = _outside(getattr(config, setting.name), limits)
        if problem:
            raise InputError(f"{source}: {setting.name}: found {_shown(getattr(config, setting.name))}, {problem}")
    try:
        sources_of(config.data, config.index)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    _check_plan_table(source, config.planner, config.plan)
    if config.min_learning_rate > config.learning_rate:
        raise InputError(
            f"{source}: min_learning_rate: found {config.min_learning_rate:g}, expected at most learning_rate, "
            f"which is {config.learning_rate:g}"
        )
    if config.lora_merge and not config.lora_rank:
        raise InputError(f"{source}: lora_merge: there are no adapters to merge; set lora_rank, or leave it out")
    if config.freeze_vit and config.freeze_aligner and config.freeze_llm:
        raise InputError(f"{source}: freeze_vit, freeze_aligner and freeze_llm together leave nothing to train")


def _outside(value: Any, limits: Limits) -> str:
    """What is wrong with a value: nothing where it is within the limits."""
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number"
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", item):
            return "expected text in UTF-8, without control characters"
        if isinstance(item, int) and item.bit_length() > 63:
            return "expected a number of 64 bits"
    if limits.choices and value not in limits.choices:
        return f"expected one of {', '.join(limits.choices)}"
    if limits.is_path and isinstance(value, str) and not value.strip():
        return "expected a path"
    if limits.least is not None and (value <= limits.least if limits.open == "least" else value < limits.least):
        return f"expected {'above' if limits.open == 'least' else 'at least'} {_plain(limits.least)}"
    if limits.most is not None and (value >= limits.most if limits.open == "most" else value > limits.most):
        return f"expected {'below' if limits.open == 'most' else 'at most'} {_plain(limits.most)}"
    return ""


def _plain(limit: float) -> str:
    return f"{limit:,}" if isinstance(limit, int) else f"{limit:g}"


def _check_plan_table(source: str, planner: str, table: dict[str, Any]) -> None:
    for name in ("planner", *RENAMED):
        if name in table:
            raise InputError(f"{source}: plan.{name}: not here; `planner` stands at the top")
    known = [option.name for option in plan_options() if option.name != "planner"]
    for name, value in table.items():
        if name not in known:
            raise InputError(f"{source}: plan.{_word(name)}: unknown option; expected one of {', '.join(known)}")
        if problem := _outside(value, Limits()):
            raise InputError(f"{source}: plan.{name}: found {_shown(value)}, {problem}")
    try:
        validate_options(**table)
    except InputError as error:
        raise InputError(f"{source}: plan.{error}") from None
    try:
        refuse_unused(planner=planner, **table)
    except InputError as error:
        raise InputError(f"{source}: {_in_words_of_settings(str(error), table)}") from None


def _in_words_of_settings(text: str, table: dict[str, Any]) -> str:
    """A complaint about flags of `dhp plan`, as the settings call them."""
    for name in table:
        text = text.replace("--" + name.replace("_", "-"), f"plan.{name}")
    return text.replace("--planner", "planner")


__all__ = ["PRECISIONS", "Limits", "TrainConfig", "check_settings", "choice", "number", "path", "read_config"]
