"""bench/peers_training.py: padded batches lose nothing, and every batch is read once."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from bench_script import load_bench
from dhp.data.dataset import Dataset
from dhp.models.weights import load_model
from dhp.settings.config import TrainConfig


@pytest.fixture(scope="module")
def training() -> ModuleType:
    return load_bench("peers_training")


@pytest.fixture(scope="module")
def settings(mixed_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("peers")
    return TrainConfig(
        model=str(mixed_data / "model"), data=str(mixed_data / "train.jsonl"), index=str(folder / "index.jsonl"),
        precision="fp64", global_batch_size=6, steps=3,
    )  # fmt: skip


def test_a_padded_batch_has_the_losses_of_its_samples(training: ModuleType, settings: TrainConfig) -> None:
    data = Dataset(settings.data, settings.model, settings.index)
    model = load_model(settings, settings.model)
    samples = [training.inputs_of(data, sequence.id, model) for sequence in data.batch(0, 6).sequences]
    batch = training.collate(samples, pad=0)
    assert len(set(batch["attention_mask"].sum(dim=1).tolist())) > 1, "lengths differ"
    together = model(**batch, num_items_in_batch=7).loss
    alone = sum(model(**sample, num_items_in_batch=7).loss for sample in samples)
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)  # Hugging Face's loss is in fp32 even so


def test_ranks_share_every_batch(training: ModuleType, settings: TrainConfig) -> None:
    data = Dataset(settings.data, settings.model, settings.index)
    model = load_model(settings, settings.model)
    ranks = [list(training.read_ahead(data, settings, model, rank, 2)) for rank in range(2)]
    assert [len(steps) for steps in ranks] == [3, 3]
    for step, parts in enumerate(zip(*ranks, strict=True)):
        expected = [sequence.id for sequence in data.batch(step, 6, settings.seed).sequences]
        assert sorted(ids for part in parts for ids in part[0]) == sorted(expected)
        assert all(set(ids) == set(inputs) for ids, inputs, _ in parts)
        assert len({valid for *_, valid in parts}) == 1


def test_window_of_steps(training: ModuleType, tmp_path: Path) -> None:
    ends = training.Ends()
    ends.cpu_s, ends.losses = [10.0, 12.0, 13.0, 15.0, 40.0], [6.5, 6.0, 5.0, 5.0, 5.0]
    ends.write(tmp_path, 3)
    assert (tmp_path / "3.json").read_text() == '{"cpu_s": 3.0, "loss": 6.5}', "neither the first two nor the last"
