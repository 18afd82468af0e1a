"""The loss in chunks: the numbers of cross entropy on all logits, without holding them."""

from __future__ import annotations

import pytest
import torch

from bench_script import load_bench
from command_line import dhp
from dhp.models import loss as chunks

ROWS, WIDTH, COLUMNS = 37, 24, 50


def case(dtype: torch.dtype, bias: bool, rows: int = ROWS) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(rows)
    head = torch.nn.Linear(WIDTH, COLUMNS, bias=bias, dtype=dtype)
    return head, torch.randn(rows, WIDTH, dtype=dtype, requires_grad=True), torch.randint(COLUMNS, (rows,))


def outcome(head: torch.nn.Linear, hidden: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
    """Loss, and gradients of hidden, weight and bias, of a loss that counts three times."""
    loss = chunks.token_loss_sum(head, hidden, labels)
    loss.backward(torch.tensor(3.0))
    found = [loss.detach(), hidden.grad, *(p.grad for p in head.parameters())]
    hidden.grad = None
    head.zero_grad()
    return [tensor.clone() for tensor in found if tensor is not None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk_rows", [1, 5, 36])
def test_chunks_have_the_loss_and_gradients_of_all_logits(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, bias: bool, chunk_rows: int
) -> None:
    given = case(dtype, bias)
    expected = outcome(*given)
    monkeypatch.setattr(chunks, "MOST_LOGITS", chunk_rows * COLUMNS)
    found = outcome(*given)
    # transformers' loss is in fp32 whatever the weights are
    tolerance = {torch.float64: 1e-6, torch.float32: 2e-6, torch.bfloat16: 2e-2}[dtype]
    assert len(found) == len(expected) == 3 + bias
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_chunks_of_16_bits_are_as_near_to_fp64_as_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over 37 chunks of one row: in bf16 they would lose what each adds."""
    head, hidden, labels = case(torch.bfloat16, bias=True, rows=400)
    exact_head = torch.nn.Linear(WIDTH, COLUMNS, dtype=torch.float64)
    exact_head.load_state_dict(head.state_dict())
    exact = outcome(exact_head, hidden.detach().double().requires_grad_(), labels)
    whole = outcome(head, hidden, labels)
    monkeypatch.setattr(chunks, "MOST_LOGITS", COLUMNS)
    found = outcome(head, hidden, labels)
    for ours, plain, reference in zip(found, whole, exact, strict=True):
        own, theirs = ((tensor.double() - reference).norm() / reference.norm() for tensor in (ours, plain))
        assert own <= 1.5 * theirs + 1e-7, (own, theirs)


def test_autocast_computes_logits_in_16_bits_as_the_head_does(monkeypatch: pytest.MonkeyPatch) -> None:
    given = case(torch.float32, bias=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = outcome(*given)
        monkeypatch.setattr(chunks, "MOST_LOGITS", 4 * COLUMNS)
        found = outcome(*given)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm()


@pytest.mark.parametrize("frozen", ["weight", "bias", "hidden"])
def test_what_does_not_train_gets_no_gradient(monkeypatch: pytest.MonkeyPatch, frozen: str) -> None:
    head, hidden, labels = case(torch.float32, bias=True)
    parts = {"weight": head.weight, "bias": head.bias, "hidden": hidden}
    parts[frozen].requires_grad_(False)
    monkeypatch.setattr(chunks, "MOST_LOGITS", 4 * COLUMNS)
    chunks.token_loss_sum(head, hidden, labels).backward()
    assert {name for name, part in parts.items() if part.grad is None} == {frozen}


def test_the_largest_tensor_is_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    monkeypatch.setattr(chunks, "MOST_LOGITS", 5 * COLUMNS)
    given = case(torch.float32, bias=False, rows=200)
    with Sizes():
        outcome(*given)
    assert max(sizes) == max(200 * WIDTH, COLUMNS * WIDTH)
    assert max(sizes) < COLUMNS * 200


def test_memory_is_what_dhp_cost_counts() -> None:
    """Of the process, forward and backward, in chunks and of the most that are taken at once."""
    bench = load_bench("loss_memory")
    columns, width = 151_936, 16
    for rows in (2 * chunks.MOST_LOGITS // columns, chunks.MOST_LOGITS // 2 // columns):
        peak = bench.loss_peak(rows, width, columns, torch.float32, torch.device("cpu"))
        counted = chunks.MOST_LOGITS * bench.LOGIT_BYTES + columns * width * 4
        print(rows, peak, counted)  # the gradient of the head may come where logits were
        assert 0.95 * min(rows * columns, chunks.MOST_LOGITS) * bench.LOGIT_BYTES < peak <= 1.05 * counted
    said = dhp("cost", "--model", "qwen3-vl-8b", "--device", "h100", "--output-format", "json").json()
    # And of the head the sum of the gradient in fp32, and a copy in bf16.
    assert said["memory"]["loss_bytes"] == chunks.MOST_LOGITS * bench.LOGIT_BYTES + 151_936 * 4096 * 6
