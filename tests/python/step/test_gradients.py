"""reduce_gradients over real process groups: sums, gradients that are missing on some ranks, or on all."""

from pathlib import Path

import pytest
import torch

from dhp.run.launch import run_local


def values(rank: int) -> list[torch.Tensor | None]:
    """Gradients of rank `rank`: everywhere; on rank 1 only; nowhere; everywhere in fp64; frozen."""
    return [
        torch.full((3, 2), 1.0 + rank),
        torch.full((4,), 10.0) if rank == 1 else None,
        None,
        torch.full((5,), 0.5 * rank, dtype=torch.float64),
        None,
    ]


def work(folder: Path) -> int:
    from dhp.run import entry
    from dhp.step import gradients

    torch.set_num_threads(1)  # forked: the threads of the parent are not here
    gradients.BUCKET_BYTES = 16  # several buckets
    run = entry.init(timeout_s=240)
    given = values(run.rank)
    parameters = [torch.nn.Parameter(torch.zeros(s), requires_grad=s != (7,)) for s in [(3, 2), (4,), (2,), (5,), (7,)]]
    parameters[3] = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    for parameter, gradient in zip(parameters, given, strict=True):
        parameter.grad = gradient
    gradients.reduce_gradients(parameters, run)
    torch.save([p.grad for p in parameters], folder / f"{run.rank}.pt")
    run.close()
    return 0


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_sums_over_ranks(tmp_path: Path, ranks: int) -> None:
    assert run_local(ranks, lambda: work(tmp_path)) == 0
    for rank in range(ranks):
        first, second, third, fourth, frozen = torch.load(tmp_path / f"{rank}.pt")
        assert torch.equal(first, torch.full((3, 2), float(sum(1 + r for r in range(ranks)))))
        if ranks > 1:
            assert torch.equal(second, torch.full((4,), 10.0))
        assert third is None
        assert frozen is None
        assert torch.equal(fourth, torch.full((5,), 0.5 * sum(range(ranks)), dtype=torch.float64))
