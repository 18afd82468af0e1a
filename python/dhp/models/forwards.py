"""A `forward` of ours on a module, and the one that it had back: others put theirs on modules, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_KEPT = "_dhp_forwards"  # ours and the earlier one, among the attributes of the module itself


def put(module: torch.nn.Module, forward: Callable[..., Any]) -> None:
    """Undone by `take_back`."""
    take_back(module)
    earlier = vars(module).get("forward")
    module.__dict__["forward"] = forward
    module.__dict__[_KEPT] = forward, earlier


def take_back(module: torch.nn.Module) -> None:
    """Undoes `put`, if there was one. A forward that somebody has put over ours stays."""
    ours, earlier = module.__dict__.pop(_KEPT, (None, None))
    if ours is None or vars(module).get("forward") is not ours:
        return
    if earlier is None:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = earlier
