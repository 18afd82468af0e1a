"""Models of families that are not registered. One attaches only once a small model of the same config has been compared
with Hugging Face alone and is exact; what guards refuse, they refuse here as well.

Taken is what has text alone, or pictures that `get_image_features` encodes tile by tile, with one placeholder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from dhp._core import InputError
from dhp.base.json_file import read_object
from dhp.base.output import check_writable, write_atomically
from dhp.base.unregistered import ALLOWED
from dhp.models.families import Family, flat

FILE = "check-model.json"  # in the folder of a run: what has been compared, by mark
EXACT = "exact"
# Of a config, what changes without the model being another one.
_PASSING = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
_proven: set[str] = set()  # marks


class Unregistered(Family):
    @functools.cached_property
    def _tile_rows(self) -> int:
        parameter = next(self.base.parameters())
        pixels = torch.zeros(1, 3, self._side(), self._side(), dtype=parameter.dtype, device=parameter.device)
        with torch.no_grad():
            return len(flat(self.base.get_image_features(pixels, return_dict=True).pooler_output))

    def tile_rows(self) -> int:
        return self._tile_rows


def mark(config: Any) -> str:
    """Of a transformers config, with the versions that the proof is of."""
    import importlib.metadata

    versions = [importlib.metadata.version(name) for name in ("dhp", "transformers", "torch")]
    content = json.dumps([versions, _lasting(config.to_dict())], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _lasting(inner) for key, inner in value.items() if key not in _PASSING and "attn_impl" not in str(key)
        }
    if isinstance(value, (list, tuple)):
        return [_lasting(inner) for inner in value]
    return value


def prove(config: Any, folder: str | Path | None = None) -> None:
    """Compares a small model of this config with Hugging Face alone, unless `folder` says that it has been, and writes
    there that it is exact. Takes seconds, in threads of this process. Raises InputError with the difference."""
    from dhp.models.check_model import TOLERANCE, NotExactError, check_config

    file, key = (Path(folder) / FILE if folder else None), mark(config)
    known = _read(file)
    if known.get(key) != EXACT:
        if file:
            check_writable("output_dir", str(file))
        try:
            what, found, units = check_config(config)
        except NotExactError as error:
            raise InputError(f"allow_unregistered: {error}") from None
        if not (found.within(TOLERANCE) and units <= TOLERANCE):
            raise InputError(
                f"allow_unregistered: {what}: on shards it is not what it is alone: loss {found.loss:.1e} off, "
                f"gradients {found.gradient:.1e} off ({found.parameter}), units {units:.1e} off; it needs a family of "
                "its own (docs/models.md)"
            )
        if file:
            write_atomically("output_dir", str(file), json.dumps(known | {key: EXACT}, indent=1) + "\n")
    admit(config)


def _read(file: Path | None) -> dict[str, Any]:
    if file is None or not os.path.exists(file):
        return {}
    try:
        return read_object(file)
    except InputError:  # cut off: it is proven again
        return {}


def admit(config: Any) -> None:
    """Of which another rank has the proof."""
    _proven.add(mark(config))


def check_proven(model: Any) -> None:
    """Raises InputError for a model that has not been proven or admitted in this process."""
    if mark(model.config) not in _proven:
        raise InputError(
            f'model: model_type: found "{model.config.model_type}", which is not registered; with {ALLOWED}=1 it '
            "attaches after dhp.models.unregistered.prove(model.config)"
        )
