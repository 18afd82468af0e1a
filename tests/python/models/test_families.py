"""Every family trains on groups of one to four ranks what Hugging Face's model trains alone."""

from __future__ import annotations

import pytest
import torch

import ranks  # noqa: F401  (loads the operators)
from dhp.models import family_class
from dhp.models.trial import TASKS, alone, difference, made_samples, on_shards
from family_models import MODELS, make

# Of a gradient. Where Hugging Face computes in fp32 whatever the weights are, fp64 ends at 1e-6: eager softmax, routers.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_those_of_the_model_alone(name: str, dtype: torch.dtype) -> None:
    model = make(name, dtype)
    samples = made_samples(family_class(model)(model))
    found = difference(alone(model, samples), on_shards(model, samples, TASKS), floor=TOLERANCE[dtype])
    print(f"{name}: loss {found.loss:.1e}, worst gradient {found.gradient:.1e} ({found.parameter})")
    assert found.parameters == sum(1 for _ in model.parameters())
    assert found.within(TOLERANCE[dtype]), found
