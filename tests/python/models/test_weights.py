"""The model that is trained, and whether all ranks hold the same weights: ranks as threads."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dhp._core import InputError
from dhp.models import weights
from dhp.models.weights import agree_on_weights
from dhp.run.runtime import RankFailed
from thread_run import on_threads


def model() -> torch.nn.Module:
    made = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to(torch.bfloat16)
    for number, tensor in enumerate([*made.parameters(), *made.buffers()]):
        tensor.data.fill_(number)
    return made


def compare(size: int, changed: dict[int, str]) -> list[Any]:
    """`changed`: by rank, a tensor in which one bit is another."""

    def work(run: Any) -> None:
        own = model()
        if run.rank in changed:
            tensor = dict([*own.named_parameters(), *own.named_buffers()])[changed[run.rank]]
            bits = tensor.data.view(-1).view(torch.uint8)
            bits[-1] ^= 1
        agree_on_weights(own, run)

    return on_threads(size, work)


def test_ranks_with_the_same_weights_agree() -> None:
    assert compare(3, {}) == [None] * 3


@pytest.mark.parametrize("name", ["0.weight", "1.bias", "1.running_var", "1.num_batches_tracked"])
def test_a_rank_with_one_other_bit_is_named_on_all(name: str) -> None:
    errors = compare(4, {2: name})
    assert all(isinstance(error, RankFailed) for error in errors)
    texts = {str(error) for error in errors}
    assert len(texts) == 1
    assert f"the weights of rank 2 differ from the other ranks', first in {name}: " in texts.pop()


def test_several_ranks_and_no_majority() -> None:
    assert "of ranks 0, 3 differ from the other ranks', first in 0.bias:" in str(
        compare(5, {0: "0.bias", 3: "1.bias"})[1]
    )
    assert "of the 2 ranks differ from each other, first in 0.bias:" in str(compare(2, {0: "0.bias"})[0])


def test_plain_attention_is_refused_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def kernel(text: Any, dtype: torch.dtype, device: torch.device) -> str:
        seen.append(dtype)
        return "cuda_flash" if dtype == torch.bfloat16 else "reference"

    monkeypatch.setattr(weights, "kernel_for", kernel)
    text, gpu = SimpleNamespace(num_attention_heads=2, hidden_size=64, head_dim=32), torch.device("cuda", 0)
    for precision in ("bf16", "bf16_weights"):
        weights.refuse_plain_attention(precision, text, gpu)
    for precision in ("fp32", "fp64"):
        with pytest.raises(InputError, match=f"precision: found '{precision}', and the model has heads of 32: on cuda"):
            weights.refuse_plain_attention(precision, text, gpu)
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float64]
