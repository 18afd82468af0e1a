"""Sharded AdamW against torch's own on one process: weights, moments and norms of random steps, whatever the ranks, and
state that goes over to other numbers of ranks."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from dhp.cost.local import STATE_BYTES
from dhp.models.weights import DTYPES
from dhp.run.launch import run_local
from dhp.step import sharded

SHAPES = [(7, 5), (2, 3, 4), (1, 1), (6, 6), (3,), (40,), (1,)]  # those that decay first, as groups have them
NEVER = 2  # the parameter without a gradient in any step
SHARES = 6  # of the gradients of a step, which the ranks share
STEPS = 5
LIMIT = 2.0  # of the norm


def parameters(seed: int, dtype: torch.dtype) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in SHAPES]


def groups_of(made: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in made if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in made if p.ndim < 2], "weight_decay": 0.0},
    ]


def gradients(seed: int, step: int, share: int, dtype: torch.dtype) -> list[torch.Tensor | None]:
    """One share of them: some are missing in it, and some in all shares of that step."""
    everywhere = random.Random(f"{seed}/{step}")
    absent = {place for place in range(len(SHAPES)) if everywhere.random() < 0.2} | {NEVER}
    own = random.Random(f"{seed}/{step}/{share}")
    generator = torch.Generator().manual_seed(own.randrange(2**31))
    return [
        None if place in absent or own.random() < 0.5 else draw(shape, generator, dtype)
        for place, shape in enumerate(SHAPES)
    ]


def draw(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    if dtype == torch.bfloat16:  # numbers whose sums it has
        return torch.randint(-8, 9, shape, generator=generator).to(dtype) / 8
    return torch.randn(shape, generator=generator, dtype=dtype)


SETTINGS: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6}


def put_sums(made: list[torch.nn.Parameter], seed: int, step: int, shares: range, dtype: torch.dtype) -> None:
    of_shares = [gradients(seed, step, share, dtype) for share in shares]
    for place, p in enumerate(made):
        parts = [given[place] for given in of_shares if given[place] is not None]
        p.grad = torch.stack(parts).sum(0).to(p.dtype) if parts else None


def by_torch(seed: int, dtype: torch.dtype) -> dict[str, Any]:
    """Weights and moments after the last step, and the norm of each step, of torch's AdamW in one process, which steps
    fp32 copies of weights of 16 bits."""
    made = [torch.nn.Parameter(p.data.to(sharded.sum_type(dtype))) for p in parameters(seed, dtype)]
    adamw = torch.optim.AdamW(groups_of(made), **SETTINGS)
    norms = []
    for step in range(STEPS):
        put_sums(made, seed, step, range(SHARES), dtype)
        norms.append(float(torch.nn.utils.clip_grad_norm_([p for p in made if p.grad is not None], LIMIT)))
        for group in adamw.param_groups:
            group["lr"] = 0.1 / (step + 1)
        adamw.step()
    moments = {place: dict(adamw.state[p]) for place, p in enumerate(made) if p in adamw.state}
    if dtype == torch.bfloat16:
        moments = {place: {**state, "master": made[place].detach()} for place, state in moments.items()}
    return {"weights": [p.detach().to(dtype) for p in made], "norms": norms, "moments": moments}


def work(folder: Path, seed: int, dtype: torch.dtype, name: str, before: str, steps: range, bucket_bytes: int) -> int:
    """The steps on one rank; rank 0 keeps what there is at the end in `name`. `before`: where to go on."""
    from dhp.run import entry

    torch.set_num_threads(1)  # forked: the threads of the parent are not here
    sharded.BUCKET_BYTES, sharded.WINDOW_BYTES = bucket_bytes, 2 * bucket_bytes
    run = entry.init(timeout_s=240)
    made = parameters(seed, dtype)
    adamw = sharded.ShardedAdamW(groups_of(made), run, **SETTINGS)
    norms = []
    if before:
        saved = torch.load(folder / before)
        for p, weight in zip(made, saved["weights"], strict=True):
            p.data.copy_(weight)
        adamw.load_state(saved["moments"])
        norms = saved["norms"]
    for step in steps:
        put_sums(made, seed, step, range(run.rank, SHARES, run.world_size), dtype)
        finite, norm = adamw.reduce()
        assert finite
        norms.append(norm)
        adamw.clip(LIMIT, norm)
        adamw.step(0.1 / (step + 1))
        assert all(p.grad is None for p in made)
    state = {"weights": [p.detach() for p in made], "norms": norms, "moments": adamw.gathered_state()}
    everywhere = run.all(state["weights"])
    assert all(torch.equal(a, b) for theirs in everywhere for a, b in zip(theirs, state["weights"], strict=True))
    assert bool(state["moments"]) == (run.rank == 0)
    if run.rank == 0:
        torch.save(state, folder / name)
    run.close()
    return 0


def expect_equal(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """To the last bit where `tolerance` is 0."""
    for key in ("norms", "moments"):
        torch.testing.assert_close(found[key], expected[key], rtol=tolerance, atol=tolerance)
    if found["weights"][0].dtype == torch.bfloat16 and tolerance:
        tolerance = 2**-7  # one unit of rounding: the copies that they are rounded from differ by `tolerance`
    torch.testing.assert_close(found["weights"], expected["weights"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 1e-5)]
)
def test_the_same_steps_as_torch_alone(tmp_path: Path, ranks: int, dtype: torch.dtype, tolerance: float) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    expected = by_torch(seed, dtype)
    assert NEVER not in expected["moments"]
    for bucket_bytes in (1, 300, 1 << 20):  # a parameter a bucket, some, all
        assert run_local(ranks, lambda b=bucket_bytes: work(tmp_path, seed, dtype, "all", "", range(STEPS), b)) == 0
        expect_equal(torch.load(tmp_path / "all"), expected, tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("before", "after"), [(3, 3), (1, 4), (4, 2), (5, 1), (1, 1)])
def test_state_goes_over_to_other_ranks(tmp_path: Path, before: int, after: int, dtype: torch.dtype) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    runs = [
        (before, "first", "", range(2)),
        (after, "last", "first", range(2, STEPS)),
        (after, "all", "", range(STEPS)),
    ]
    for ranks, name, of, steps in runs:
        assert run_local(ranks, lambda a=(name, of, steps): work(tmp_path, seed, dtype, *a, 300)) == 0
    first, last, whole = (torch.load(tmp_path / name) for name in ("first", "last", "all"))
    assert len(first["norms"]) == 2
    expect_equal(last, whole, 0 if before == after else 1e-13 if dtype == torch.float64 else 1e-5)


def not_finite(folder: Path, bad: int) -> int:
    from dhp.run import entry

    torch.set_num_threads(1)
    sharded.BUCKET_BYTES = 300
    run = entry.init(timeout_s=240)
    made = parameters(1, torch.float32)
    adamw = sharded.ShardedAdamW(groups_of(made), run, **SETTINGS)
    for p in made:
        p.grad = torch.ones_like(p)
    if run.rank == 1 and bad >= 0:
        made[bad].grad.view(-1)[-1] = torch.inf
        made[-1].grad[-1] = torch.nan  # later ones are not named
    finite, norm = adamw.reduce()
    assert finite == (run.rank != 1 or bad < 0)
    assert math.isfinite(norm) == (bad < 0)
    assert adamw.first_not_finite() == bad
    run.close()
    return 0


@pytest.mark.parametrize("bad", [-1, 0, 3, 5])
def test_the_first_gradient_that_is_not_finite(tmp_path: Path, bad: int) -> None:
    assert run_local(3, lambda: not_finite(tmp_path, bad)) == 0


def held(folder: Path, precision: str) -> int:
    """Bytes that each rank has after a step, by kind, go to RANK.pt."""
    from dhp.run import entry

    torch.set_num_threads(1)
    run = entry.init(timeout_s=240)
    made = parameters(1, DTYPES[precision])
    adamw = sharded.ShardedAdamW(groups_of(made), run, **SETTINGS)
    for p in made:
        p.grad = torch.ones_like(p)
    found = {"parameter": sum(p.nbytes for p in made), "gradient": sum(p.grad.nbytes for p in made)}
    adamw.reduce()
    pieces = adamw._pieces
    parts = {piece.weight.grad.untyped_storage().data_ptr(): piece.weight.grad.untyped_storage() for piece in pieces}
    adamw._adamw.step()
    moments = [adamw._adamw.state[piece.weight][name] for piece in pieces for name in sharded.MOMENTS]
    own = {p.untyped_storage().data_ptr() for p in made}
    copies = [piece.weight for piece in pieces if piece.weight.untyped_storage().data_ptr() not in own]
    found["sharded"] = sum(storage.nbytes() for storage in parts.values()) + sum(t.nbytes for t in moments + copies)
    torch.save(found, folder / f"{run.rank}.pt")
    run.close()
    return 0


@pytest.mark.parametrize("precision", list(DTYPES))
def test_a_rank_holds_what_costs_count(tmp_path: Path, precision: str) -> None:
    ranks, values = 3, sum(math.prod(shape) for shape in SHAPES)
    assert run_local(ranks, lambda: held(tmp_path, precision)) == 0
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    parameter, gradient, shared = STATE_BYTES[precision]
    assert all((f["parameter"], f["gradient"]) == (parameter * values, gradient * values) for f in found)
    padding = 8 * (ranks - 1)  # of the one bucket, at most
    assert 0 <= sum(f["sharded"] for f in found) - shared * values <= padding
