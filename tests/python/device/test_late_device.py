"""The late device itself: it computes what CPUs compute, and what nobody waited for is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ranks import World, run_processes, values

POLICIES = ("eager", "lazy", "random")


def on_device(body: Callable[..., Any], policy: str, *args: Any) -> Any:
    """Runs `body(late.device, *args)` in a process of its own, which has the device."""
    return values(run_processes(_main, 1, body, policy, args))[0]


def _main(world: World, body: Callable[..., Any], policy: str, args: tuple) -> Any:
    import late

    late.arrange(policy, policy)
    return body(late.device, *args)


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def operators(device: Any) -> list[tuple[str, bool]]:
    """Name and whether the device gives the CPU's bits."""

    def layers(x: torch.Tensor) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2)
        )
        model.to(x.device)
        leaf = x.detach().clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(leaf), torch.tensor([0, 1, 1, 0], device=x.device))
        return [loss.detach(), *torch.autograd.grad(loss, [leaf, *model.parameters()])]

    def assigned(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[1:3] *= 2
        y[:, 0] = 7
        y.add_(1).clamp_(min=0)
        return y

    def convolved(x: torch.Tensor) -> list[torch.Tensor]:
        leaf = x.reshape(1, 1, 2, 2, 6).clone().requires_grad_()
        weight = numbers(3, 1, 2, 2, 2, seed=5).to(x.device).requires_grad_()
        out = torch.nn.functional.conv3d(leaf, weight, stride=(2, 2, 2))
        return [out.detach(), *torch.autograd.grad(out.square().sum(), [leaf, weight])]

    def autocast(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return torch.mm(x, x.t())

    calls: dict[str, Callable[[torch.Tensor], Any]] = {
        "algebra": lambda x: torch.softmax(x @ x.t() + 1.5, -1),
        "views": lambda x: x.t().contiguous().view(3, 8)[:, ::2].flip(0),
        "in place": assigned,
        "layers": layers,
        "convolution": convolved,
        "shape by data": lambda x: [torch.nonzero(x > 0), x[x > 0]],
        "sorted": lambda x: list(torch.sort(x, dim=1)),
        "joined": lambda x: torch.cat([x, x + 1]).index_select(0, torch.tensor([5, 0], device=x.device)),
        "lists": lambda x: list(torch._foreach_mul([x, x + 1], 3.0)),
        "out": lambda x: torch.mul(x, 2, out=torch.empty(0, device=x.device)),
        "numbers of the host": lambda x: x * torch.tensor(2.5),
        "autocast": autocast,
    }
    results = []
    for name, call in calls.items():
        found, expected = call(numbers(4, 6).to("late")), call(numbers(4, 6))
        found, expected = ([x] if isinstance(x, torch.Tensor) else x for x in (found, expected))
        same = all(torch.equal(a.cpu(), b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))
        results.append((name, same))
    return results


@pytest.mark.parametrize("policy", POLICIES)
def test_it_computes_what_the_cpu_computes(policy: str) -> None:
    results = on_device(operators, policy)
    assert results == [(name, True) for name, _ in results]


def early_read(device: Any) -> tuple[list[float], list[float]]:
    result = torch.ones(4, device="late") * 3
    pinned = torch.full((4,), -1.0).pin_memory()
    pinned.copy_(result, non_blocking=True)
    before = pinned.tolist()
    device.synchronize()
    return before, pinned.tolist()


def test_what_nobody_has_waited_for_is_not_there() -> None:
    assert on_device(early_read, "lazy") == ([-1.0] * 4, [3.0] * 4)


def early_refill(device: Any) -> list[float]:
    pinned = torch.ones(4).pin_memory()
    late = pinned.to("late", non_blocking=True)
    pinned.fill_(9)  # before the copy has run
    return late.cpu().tolist()


def test_pinned_memory_is_read_late() -> None:
    assert on_device(early_refill, "lazy") == [9.0] * 4
    assert on_device(pageable, "lazy") == [1.0] * 4


def pageable(device: Any) -> list[float]:
    source = torch.ones(4)
    late = source.to("late", non_blocking=True)
    source.fill_(9)
    return late.cpu().tolist()


def freed_early(device: Any, recorded: bool) -> bool:
    """Whether another stream still reads what was written, after the block is freed."""
    other = torch.Stream("late")
    block = torch.ones(4, device="late")
    other.wait_event(torch.accelerator.current_stream().record_event())
    with other:
        read = block * 1  # late
        if recorded:
            block.record_stream(other)
    del block
    taken = torch.full((4,), 5.0, device="late")  # the same block, where nobody keeps it
    device.synchronize()
    return bool((read.cpu() == 1).all()) and bool((taken.cpu() == 5).all())


def test_a_block_that_another_stream_reads_must_be_kept() -> None:
    assert on_device(freed_early, "lazy", True)
    assert not on_device(freed_early, "lazy", False)


def uninitialised(device: Any) -> bool:
    return bool(torch.empty(8, device="late").cpu().isnan().all())


def test_new_memory_is_poison() -> None:
    assert on_device(uninitialised, "eager")


def late_error(device: Any) -> tuple[str, str]:
    """What the call says, and the next host that waits."""
    table = torch.ones(3, 2, device="late")
    try:
        torch.nn.functional.embedding(torch.tensor([7], device="late"), table)
        at_call = ""
    except Exception as error:
        at_call = str(error)
    try:
        table.cpu()
        at_wait = ""
    except Exception as error:
        at_wait = str(error)
    return at_call, at_wait


def test_errors_come_with_the_next_wait_and_name_the_operator() -> None:
    at_call, at_wait = on_device(late_error, "lazy")
    assert at_call == ""
    assert "aten::" in at_wait
    assert "out of range" in at_wait


def counted(device: Any) -> dict[str, int]:
    x = numbers(4, 4).to("late")
    device.take_counts()
    (x @ x).sum().item()
    x[x > 0]
    x.cpu()
    torch.ones(4).to("late")
    torch.ones(4).pin_memory().to("late", non_blocking=True)
    return device.take_counts()


def test_waits_of_the_host_are_counted_by_operator() -> None:
    counts = on_device(counted, "lazy")
    assert {name: counts.pop(name, 0) for name in ("item", "download", "upload of pageable memory")} == {
        "item": 1,
        "download": 1,
        "upload of pageable memory": 1,
    }
    assert set(counts) == {"aten::nonzero"}  # what a boolean mask becomes


def flash(device: Any, packed: bool) -> float:
    """The worst difference from plain attention, of output, lse and gradients."""
    lengths = [5, 8, 3] if packed else [16]
    q, k, v, dout = (
        numbers(sum(lengths), heads, 16, seed=i, dtype=torch.bfloat16) for i, heads in enumerate((4, 2, 2, 4))
    )
    cum = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32).to("late") if packed else None
    late = [t.to("late") if packed else t.to("late")[None] for t in (q, k, v, dout)]
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        *late[:3], cum, cum, max(lengths), max(lengths), 0.0, True, False, scale=0.25
    )
    state = torch.empty(0, device="late")
    grads = torch.ops.aten._flash_attention_backward(
        late[3], *late[:3], out, lse, cum, cum, max(lengths), max(lengths), 0.0, True, state, state, scale=0.25
    )
    leaves = [t.double().requires_grad_() for t in (q, k, v)]
    outs = []
    for part in zip(*(t.split(lengths) for t in leaves), strict=True):
        one, key, value = part[0], part[1].repeat_interleave(2, 1), part[2].repeat_interleave(2, 1)
        mask = torch.ones(len(one), len(one), dtype=torch.bool).triu(1)
        scores = (torch.einsum("qhd,khd->hqk", one, key) * 0.25).masked_fill(mask, -torch.inf)
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value))
    expected = [torch.cat(outs), *torch.autograd.grad(torch.cat(outs), leaves, dout.double())]
    found = [t.cpu().double().reshape(e.shape) for t, e in zip((out, *grads), expected, strict=True)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_flash_attention_dense_and_packed(packed: bool) -> None:
    assert on_device(flash, "lazy", packed) < 2e-2


def wrong_flash(device: Any) -> list[str]:
    """What the real kernel refuses or would read wrongly."""
    errors = []
    good = torch.zeros(1, 4, 2, 16, dtype=torch.bfloat16)
    wrong = {
        "of Float": good.float(),
        "not contiguous": torch.zeros(1, 4, 16, 2, dtype=torch.bfloat16).transpose(2, 3),
        "head size 12": torch.zeros(1, 4, 2, 12, dtype=torch.bfloat16),
        "16 bytes": torch.zeros(1, 4, 2, 20, dtype=torch.bfloat16)[..., :16],
        "one batch": torch.zeros(2, 4, 2, 16, dtype=torch.bfloat16),
    }
    for words, tensor in wrong.items():
        # as it is: .to() would keep strides, and not the offset
        late = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device="late")
        try:
            torch.ops.aten._flash_attention_forward(late, late, late, None, None, 4, 4, 0.0, False, False)
            errors.append(f"{words}: taken")
        except RuntimeError as error:
            errors.append("" if words in str(error) else f"{words}: {error}")
    return errors


def test_flash_attention_refuses_what_the_real_one_does() -> None:
    assert on_device(wrong_flash, "eager") == [""] * 5


def serial(device: Any) -> list[float]:
    other = torch.Stream("late")
    x = torch.ones(3, device="late")
    with other:
        y = x + 1  # no wait: one queue keeps the host's order
    return (y + x).cpu().tolist()


def test_one_queue_keeps_the_order_of_the_host() -> None:
    assert on_device(serial, "serial") == [3.0] * 3
