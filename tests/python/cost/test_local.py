"""Costs that are counted for local ranks, where no file is given."""

from pathlib import Path

import pytest
import torch

from dhp._core import Freeze, read_device
from dhp.cost.local import local_cost
from dhp.models import freeze
from dhp.models.loss import MOST_LOGITS
from dhp.models.model_folder import load_weights

# Bytes: weights, with autocast's copies; gradients; on all ranks together sums of gradients and two moments, and copies
# of weights.
HELD = {"fp32": (4, 4, 12), "bf16": (4 + 2, 4, 12), "bf16_weights": (2, 2, 16), "fp64": (8, 8, 24)}
RESERVE = 1 / 16  # of the memory


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("precision", list(HELD))
def test_state_is_what_training_holds(mixed_data: Path, precision: str, ranks: int) -> None:
    frozen = Freeze(vit=True)
    model = load_weights(mixed_data / "model", torch.float32)
    freeze(model, frozen)
    every = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained < every
    weights, gradients, shared = HELD[precision]
    expected = every * weights + trained * (gradients + shared / ranks)
    cost = local_cost(mixed_data / "model", ranks, precision=precision, freeze=frozen)
    loss = MOST_LOGITS * 8 + 4 * model.get_output_embeddings().weight.numel()
    reserve = RESERVE * read_device("local-cpu").memory_bytes
    assert cost.state_bytes - reserve - loss == pytest.approx(expected, rel=1e-6)
