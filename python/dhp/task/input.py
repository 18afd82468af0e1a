"""What a rank needs to run its part of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dhp.task.layout import TaskLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dhp.data.placeholders import MediumShape
    from dhp.data.text import Encoded


@dataclass
class TaskInput:
    """What one member of a group needs to run a task.

    layout   this member's share
    encoded  the sequences of the task, in packing order: ids, labels (unshifted, -100 = no loss) and kind of each token
    media    of each sequence
    pixels   float32 [patches, channels * temporal * patch * patch]: the units dealt to this member, in order
    made     what the model's adapter has made of all this ahead of time (`Adapter.prepare`); else it does when it runs
    """

    layout: TaskLayout
    encoded: list[Encoded]
    media: list[Sequence[MediumShape]]
    pixels: torch.Tensor
    made: Any = None
