"""bench/peers_attention.py: shards, batches and masks, and that all sides compute the same."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from bench_script import load_bench
from dhp.run import ops

LENGTHS = [5, 9, 2]


@pytest.fixture(scope="module")
def attention() -> ModuleType:
    ops.load()
    return load_bench("peers_attention")


def tensors(tokens: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(tokens, 2, 64, generator=generator, dtype=torch.float64) for _ in range(4)]


def test_shards_of_each_sequence(attention: ModuleType) -> None:
    whole = torch.arange(16)
    assert attention.shard(whole, 2, 0, 2).tolist() == [0, 1, 6, 7, 8, 9, 14, 15]
    assert attention.shard(whole, 2, 1, 1).tolist() == [4, 5, 6, 7, 8, 9, 10, 11]


def test_batches_are_packed_again(attention: ModuleType) -> None:
    packed = tensors(12)[0]
    batch = attention.as_batch(packed, 3)
    assert batch.shape == (3, 2, 4, 64)
    assert torch.equal(attention.as_packed(batch), packed)


@pytest.mark.parametrize("masked", [False, True])
def test_all_sides_of_short_sequences_compute_the_same(attention: ModuleType, masked: bool) -> None:
    inputs = tensors(sum(LENGTHS))
    expected = attention.run_sdpa(LENGTHS, inputs)
    assert attention.furthest(attention.run_ours(LENGTHS, [0], "", inputs), expected) < 1e-14
    batch = [attention.padded(t, LENGTHS) for t in inputs]
    assert batch[0].shape == (3, 2, 9, 64)
    padded = attention.run_batched(attention.mask_of(LENGTHS) if masked else None, batch)
    for found, whole in zip(padded, expected, strict=True):
        real = torch.cat([one[:, :length].transpose(0, 1) for one, length in zip(found, LENGTHS, strict=True)])
        torch.testing.assert_close(real, whole, rtol=1e-13, atol=1e-14)
