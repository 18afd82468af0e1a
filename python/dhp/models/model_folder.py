"""Checkpoint folders of Hugging Face: whether every weight that the model has is there, and fits. Reads headers alone,
so that what is wrong is named before any rank computes."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dhp._core import InputError
from dhp.base.json_file import first_line, pointer_problem, read_object
from dhp.models import family_of

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
MOST_LAYERS = 1000  # a larger number in a config is a slip, and a model of so many would take for ever to make
SHOWN = 3  # names in one message
SPEECH = ("talker.", "token2wav.")  # weights of Qwen2.5-Omni's parts that speak, which are not trained

Shape = tuple[int, ...]


def check_model_folder(folder: str | Path) -> None:
    """Raises InputError unless the folder holds all weights of the model that its config.json describes, in the sizes
    that this says, and no others. Names file, weights and remedy."""
    family_of(folder)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); give a folder that can be listed") from None
    for entry in (os.path.join(folder, name) for name in names):  # os.path: Path's questions raise for odd links
        odd = os.path.exists(entry) and not os.path.isfile(entry) and not os.path.isdir(entry)
        if odd:  # transformers would wait for a pipe for ever
            raise InputError(f"{entry}: is no regular file; remove it, or download it again")
    config = plain_config(folder)
    model = empty_model(folder, config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found: dict[str, Shape] = {}
    for file in weight_files(folder):
        found.update(_shapes(file))
    found = {name: shape for name, shape in found.items() if not name.startswith(SPEECH)}
    if not found.keys() <= wanted.keys():  # older releases and hubs have names of their own
        found = _as_transformers_names_them(folder, model, found)
    prefix = f"{model.base_model_prefix}."
    named = {_name_in_model(name, wanted, prefix): shape for name, shape in found.items()}
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    missing = [name for name in wanted if name not in named and tied.get(name) not in named]
    unexpected = [name for name in named if name not in wanted]
    other = [
        f"{name} ({_by(named[name])} in the file, {_by(shape)} by config.json)"
        for name, shape in wanted.items()
        if name in named and named[name] != shape
    ]
    refuse_weights(folder, missing, unexpected, other)


def _as_transformers_names_them(folder: str | Path, model: Any, found: dict[str, Shape]) -> dict[str, Shape]:
    """The same weights by the names that the model has: transformers renames many when it loads them, and stacks those
    of experts. Tensors without memory stand in for the files."""
    empty = {name: torch.empty(shape, device="meta") for name, shape in found.items()}
    try:
        with quiet():
            _, info = type(model).from_pretrained(
                None,
                config=model.config,
                state_dict=empty,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception as error:
        raise InputError(
            f"{folder}: transformers cannot make the model's weights of those in the folder ({first_line(error)}); "
            "take weights and config.json of the same checkpoint"
        ) from None
    lost = set(info["missing_keys"])
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    named = {name: shape for name, shape in wanted.items() if name not in lost}
    named |= {name: found[name] for name in info["unexpected_keys"] if name in found}
    return named | {entry[0]: tuple(entry[1]) for entry in info["mismatched_keys"]}


def refuse_weights(folder: str | Path, missing: Iterable[str], unexpected: Iterable[str], other: Iterable[str]) -> None:
    """Raises InputError where a list holds a name."""
    lists = {"missing": list(missing), "unknown to the model": list(unexpected), "of another size": list(other)}
    problems = [f"{len(names):,} {kind}: {_some(names)}" for kind, names in lists.items() if names]
    if problems:
        raise InputError(
            f"{folder}: the weights are not those of the model that its config.json describes: {'; '.join(problems)}; "
            "take weights and config.json of the same checkpoint"
        )


def load_weights(folder: str | Path, dtype: torch.dtype) -> Any:
    """The folder's model, every weight as the folder has it. Raises InputError where one is not: transformers would
    draw it at random, on each rank another."""
    family_of(folder)
    try:
        with quiet():
            config = read_config(folder)
            loaded: Any = auto_class(config.model_type).from_pretrained(
                str(folder),
                config=config,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
    except Exception as error:  # whatever transformers makes of an odd folder
        check_model_folder(folder)  # says it better where it is the folder
        raise InputError(f"{folder}: the model cannot be loaded ({first_line(error)})") from None
    model, info = loaded
    other = [str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"]]
    unexpected = sorted(name for name in info["unexpected_keys"] if not name.startswith(SPEECH))
    refuse_weights(folder, sorted(info["missing_keys"]), unexpected, sorted(other))
    return model


def read_config(folder: str | Path) -> Any:
    """transformers' config of the model that trains: of Qwen2.5-Omni that is the thinker. Raises whatever transformers
    does."""
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    return getattr(found, "thinker_config", found)


def auto_class(model_type: str) -> Any:
    """transformers' class that makes a whole model of this family: of pictures and text where there is one."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return (
        AutoModelForImageTextToText
        if model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        else AutoModelForCausalLM
    )


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint folder, as transformers chooses them. Raises InputError naming what is
    missing."""
    folder = Path(folder)
    if os.path.exists(folder / WEIGHTS):
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not os.path.exists(index):
        others = sorted(file.name for file in folder.glob("*.bin"))
        if others:
            raise InputError(
                f"{folder}: has {others[0]}, which is a pickle and may run code when read; convert the weights to "
                f"{WEIGHTS}: load them where you trust them, and save_pretrained"
            )
        raise InputError(f"{folder}: has neither {WEIGHTS} nor {INDEX}; download the checkpoint's weights")
    try:
        described = read_object(index)
        names = sorted(set(described["weight_map"].values()))
        described["metadata"]  # transformers asks for it
        files = [folder / name for name in names]
        strangers = [name for name in names if Path(name).name != name]
    except (KeyError, AttributeError, TypeError):
        raise InputError(
            f'{index}: expected "metadata", and "weight_map" from weights to files; download it again'
        ) from None
    if strangers:
        raise InputError(f"{index}: names {strangers[0]}, which is no file of this folder")
    gone = [file.name for file in files if not os.path.exists(file)]
    if gone or not files:
        raise InputError(f"{index}: names {len(files)} files, missing: {_some(gone)}; download them")
    return files


def _shapes(file: Path) -> dict[str, Shape]:
    try:
        if problem := pointer_problem(file):
            raise InputError(problem)
        with safe_open(file, framework="pt") as content:
            slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            kinds = {name: part.get_dtype() for name, part in slices.items()}
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
    except SafetensorError as error:
        raise InputError(
            f"{file}: is damaged or cut off, at {file.stat().st_size:,} bytes ({first_line(error)}); download it again"
        ) from None
    odd = [f"{name} ({kind})" for name, kind in kinds.items() if kind not in FLOATS]
    if odd:
        raise InputError(f"{file}: holds weights that are not of {', '.join(FLOATS)}: {_some(odd)}; train full weights")
    return shapes


def plain_config(folder: str | Path) -> dict[str, Any]:
    """config.json, if it asks for nothing that training would have to take on trust. Raises InputError."""
    file = Path(folder) / "config.json"
    config = read_object(file)
    for key, why in (
        (
            "auto_map",
            "names code that comes with the checkpoint, which is never run; remove it to use transformers' own",
        ),
        ("quantization_config", "the weights are quantized, which cannot be trained; take the full weights"),
        ("transformers_weights", "names weights elsewhere; put them in model.safetensors"),
    ):
        if config.get(key) is not None:
            raise InputError(f"{file}: {key}: {why}")
    if os.path.exists(file.parent / "adapter_config.json"):
        raise InputError(f"{file.parent / 'adapter_config.json'}: is an adapter; merge it into the model first")
    return config


def empty_model(folder: str | Path, config: Mapping[str, Any]) -> Any:
    """The model without memory for its weights."""
    file = Path(folder) / "config.json"
    parts = {"": config} | {f"{name}.": config.get(name) for name in ("text_config", "vision_config", "thinker_config")}
    for (part, inner), key in itertools.product(parts.items(), ("num_hidden_layers", "depth")):
        layers = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(layers, int) and layers > MOST_LAYERS:
            raise InputError(f"{file}: {part}{key}: found {layers}, expected at most {MOST_LAYERS}")
    try:
        with quiet():
            described = read_config(folder)
        with quiet(), torch.device("meta"):
            return auto_class(described.model_type).from_config(described, trust_remote_code=False)
    except Exception as error:  # whatever transformers makes of odd values
        raise InputError(f"{file}: describes no model ({type(error).__name__}: {first_line(error)})") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars, one a rank, and its tables of weights that do not fit: we name them ourselves."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def _name_in_model(name: str, wanted: Mapping[str, Shape], prefix: str) -> str:
    """transformers also takes a base model's weights for the whole model's, and the other way round."""
    if name in wanted:
        return name
    without = name.removeprefix(prefix)
    return next((other for other in (prefix + name, without) if other in wanted), name)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "one number"


__all__ = ["check_model_folder", "load_weights", "refuse_weights", "weight_files"]
