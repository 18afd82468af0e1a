"""The patch embedding as a matrix product: the numbers of the convolution, and nothing else of the model changes."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dhp.models import attach, detach
from dhp.models.qwen_vl import multiply_patches
from family_models import make

PATCH = (2, 6, 6)


def projections(dtype: torch.dtype = torch.float64, bias: bool = True) -> tuple[torch.nn.Conv3d, torch.nn.Conv3d]:
    """The convolution and its product, with weights of their own."""
    torch.manual_seed(5)
    own = torch.nn.Conv3d(3, 8, PATCH, PATCH, bias=bias, dtype=dtype)
    product = copy.deepcopy(own)
    multiply_patches(product)
    assert "forward" in product.__dict__
    return own, product


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("patches", [0, 1, 7])
def test_values_and_gradients_are_those_of_the_convolution(patches: int, bias: bool) -> None:
    own, product = projections(bias=bias)
    inputs = torch.randn(patches, 3, *PATCH, dtype=torch.float64)
    wanted, given = (module(x) for module, x in ((own, inputs), (product, inputs)))
    assert given.shape == wanted.shape
    torch.testing.assert_close(given, wanted, rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(wanted)
    wanted.backward(direction)
    given.backward(direction)
    for (name, mine), theirs in zip(product.named_parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12, msg=name)


def test_autocast_computes_in_bfloat16_as_the_convolution_does() -> None:
    own, product = projections(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inputs = torch.randn(5, 3, *PATCH)
        assert product(inputs).dtype == own(inputs).dtype == torch.bfloat16
        torch.testing.assert_close(product(inputs), own(inputs), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_has_its_own_weights(again: Any) -> None:
    _, product = projections()
    other = again(product)
    with torch.no_grad():
        product.weight.zero_()
    inputs = torch.randn(2, 3, *PATCH, dtype=torch.float64)
    assert other(inputs).abs().max() > 0.1
    assert other.state_dict().keys() == product.state_dict().keys()


def test_a_convolution_that_is_no_product_is_left_alone() -> None:
    overlapping = torch.nn.Conv3d(3, 8, (2, 6, 6), (2, 3, 3))
    multiply_patches(overlapping)
    assert "forward" not in overlapping.__dict__


def test_detach_gives_the_convolution_back() -> None:
    model = make("qwen3_vl", torch.float32)
    own = model.model.visual.patch_embed.proj
    attach(model, SimpleNamespace(traffic="", group_of=None))
    assert "forward" in own.__dict__
    detach(model)
    assert "forward" not in own.__dict__
