"""Layers that run again in the backward pass: the same gradients, and with keep_attention no attention twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ranks  # noqa: F401  (loads the operators)
from dhp.models import family_class
from dhp.models.trial import TASKS, alone, difference, made_samples, on_shards
from dhp.models.weights import recompute_layers
from family_models import make


class Calls(TorchDispatchMode):
    """Counts operators of dhp."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "dhp":
            self.counted[function.name().removeprefix("dhp::")] += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("keep_attention", "calls"), [(None, 3), (False, 6), (True, 3)])
def test_attention_runs_once_a_layer_where_it_is_kept(keep_attention: bool | None, calls: int) -> None:
    model = make("llama", torch.float64)
    if keep_attention is not None:
        recompute_layers(model, keep_attention)
    samples = made_samples(family_class(model)(model))[:2]
    counts = Calls()
    with counts:
        on_shards_here(model, samples)
    assert counts.counted["ring_attention_with_lse"] == calls, "three layers"


def on_shards_here(model: Any, samples: list[Any]) -> None:
    """A task of one rank, in this thread, which the mode watches."""
    from dhp.models.trial import _rank, _valid

    torch.ops.dhp.create_thread_groups("recompute", 1)
    try:
        _rank(model, family_class(model), samples, [([0], [0, 1], "ring")], 0, "recompute/0", _valid(samples))
    finally:
        torch.ops.dhp.release_group("recompute/0")


@pytest.mark.parametrize("keep_attention", [False, True])
@pytest.mark.parametrize("name", ["qwen3_vl", "internvl with qwen2", "qwen3_moe", "deepseek_v3"])
def test_gradients_stay_those_of_the_model_alone(name: str, keep_attention: bool) -> None:
    model = make(name, torch.float64)
    samples = made_samples(family_class(model)(model))
    expected = alone(model, samples)
    recompute_layers(model, keep_attention)
    found = difference(expected, on_shards(model, samples, TASKS), floor=1e-6)
    print(name, keep_attention, found)
    assert found.within(1e-6)


def test_tracing_sees_shapes_and_sends_nothing() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        q, k = torch.empty(8, 4, 16), torch.empty(8, 2, 16, requires_grad=True)
        call = torch.empty(9, dtype=torch.int64)
        out = torch.ops.dhp.ring_attention_packed(q, k, k, call, "no such group", 1.0)
        assert out.shape == q.shape
        out.sum().backward()
        assert k.grad.shape == k.shape
        with pytest.raises(NotImplementedError, match="ring_attention cannot be traced with lists"):
            torch.ops.dhp.ring_attention(q, k, k, [16], [0, 1], "no such group", 1.0)
        with pytest.raises(NotImplementedError, match="exchange_rows cannot be traced"):
            torch.ops.dhp.exchange_rows(q[:, 0], [4, 4], [4, 4], [0, 1], "no such group")
