"""Layers through torch.compile: the same gradients, few programs whatever the layouts, and nothing sent while one is
made. By "aot_eager", which traces as every backend does and compiles nothing; tests/nightly has the default one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import ranks
from compiled_layers import Programs, model_of
from dhp.models import attach, detach, family_class
from dhp.models.compiled import check_compiler
from dhp.models.trial import difference, made_samples, on_shards
from dhp.run.ops import packed_call
from drawn import skip_most_in_ci
from tiny_run import copied_run

# Of one rank: threads that compile beside each other, as no program of ours does, are not torch's strength.
TASKS = [([0], [0, 2], "ring"), ([0], [3, 1], "ring")]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("name", "recompute", "lora"),
    [
        ("qwen3_vl", "none", False),
        ("qwen3", "full", False),
        ("llama", "keep_attention", True),
        ("qwen3_moe", "none", False),
    ],
)
def test_gradients_are_those_of_layers_that_are_not_compiled(name: str, recompute: str, lora: bool) -> None:
    skip_most_in_ci(keep=0.4)
    model, programs = model_of(name, recompute, lora), Programs()
    samples = made_samples(family_class(model)(model))
    expected = on_shards(model, samples, TASKS)
    found = difference(expected, on_shards(model, samples, TASKS, compile_by=programs), floor=1e-9)
    print(name, recompute, lora, programs.made, found)
    assert found.within(1e-12)
    assert programs.made > 0
    assert (programs.attends_again > 0) == (recompute == "full")


def test_another_layout_is_no_other_program() -> None:
    """Of two ranks, each of which has a program, as the name of its group is part of it."""
    model = model_of("llama")
    samples = made_samples(family_class(model)(model))
    few = [([0, 1], [1], "ring")]
    many = [*few, ([1, 0], [0, 3], "direct"), ([1], [2], "ring"), ([0], [4, 5, 1], "ring"), ([1, 0], [5], "ring")]
    made = []
    for tasks in (few, many):
        torch._dynamo.reset()
        programs = Programs()
        found = on_shards(model, samples, tasks, compile_by=programs)
        assert difference(on_shards(model, samples, tasks), found, floor=1e-9).within(1e-12)
        made.append(programs.made)
    assert made[0] == made[1] <= 2 * 2, "of three layers that are alike"


def test_detach_takes_the_programs_away() -> None:
    model = model_of("llama")
    family = family_class(model)(model)
    before = family.text.config._attn_implementation
    run: Any = SimpleNamespace(traffic="", group_of=lambda task: [0])
    attach(model, run, compile="aot_eager")
    assert all("forward" in vars(layer) for layer in family.text.layers)
    assert family.text.config._attn_implementation != before
    detach(model)
    assert not any("forward" in vars(layer) for layer in family.text.layers)
    assert family.text.config._attn_implementation == before


def test_detach_gives_back_what_others_had_put_there() -> None:
    """On layers, and on the patch embedding."""
    model = model_of("qwen3_vl")
    family = family_class(model)(model)
    modules = [*family.text.layers, family.base.visual.patch_embed.proj]

    def foreign(module: Any) -> Any:
        own = module.forward
        return lambda *args, **kwargs: own(*args, **kwargs)

    foreigners = [foreign(module) for module in modules]
    for module, forward in zip(modules, foreigners, strict=True):
        module.forward = forward
    run: Any = SimpleNamespace(traffic="", group_of=lambda task: [0])
    detach(model)
    assert [module.forward for module in modules] == foreigners, "it was not attached"
    attach(model, run, compile="aot_eager")
    assert not any(module.forward in foreigners for module in modules)
    detach(model)
    assert [module.forward for module in modules] == foreigners


def test_looking_for_a_compiler_starts_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config as config

    seen = []
    monkeypatch.setattr(config, "compile_threads", 8)
    monkeypatch.setattr(torch, "compile", lambda call, backend: seen.append(config.compile_threads) or call)
    check_compiler(torch.device("cpu"))
    assert seen == [1]


def test_a_call_as_data_is_the_call_as_lists() -> None:
    def body(rank: int, group: str) -> None:
        generator = torch.Generator().manual_seed(rank)
        q, k = (torch.randn(6, heads, 8, generator=generator).requires_grad_() for heads in (4, 2))
        outputs = []
        for out in (
            torch.ops.dhp.ring_attention(q, k, k, [12, 6], [2, 0, 1], group, 0.3, True, "hierarchical", [0, 0, 1]),
            torch.ops.dhp.ring_attention_packed(
                q, k, k, packed_call([12, 6], [2, 0, 1], "hierarchical", [0, 0, 1]), group, 0.3
            ),
        ):
            outputs.append((out.detach(), *torch.autograd.grad(out.square().sum(), (q, k))))
        for one, other in zip(*outputs, strict=True):
            assert torch.equal(one, other)

    ranks.values(ranks.run_threads(body, 3, name="packed"))


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ([1, 1, 0], r"expected int64 \[4 \+ n\] on the CPU"),
        ([1, 1, 0, 4, 8, 0], "found 4 of 0 numbers"),
        ([1, 1, 0, 0, 8, 0, 9], "found 1 numbers more than it says"),
        ([-1, 1, 0, 0, 8], "found -1 of 1 numbers"),
        ([1, 1, 0, 4, 8, 0, *b"rung"], 'exchange: found "?rung'),
    ],
)
def test_a_call_that_is_none_is_refused(call: list[int], problem: str) -> None:
    q = torch.randn(8, 2, 8)
    with pytest.raises(ValueError, match=problem):
        torch.ops.dhp.ring_attention_packed(q, q, q, torch.tensor(call), "", 1.0)


def test_without_a_compiler_a_run_ends_with_a_line(mixed_data: Path, tmp_path: Path) -> None:
    """In a process that has loaded nothing yet: torch looks for its compiler once."""
    copied_run(mixed_data, tmp_path, ranks=1, steps=1, capacity_tokens=300)
    command = [sys.executable, "-m", "dhp.train", str(tmp_path / "run.toml"), "--set", "compile=true"]
    without = {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ | without)
    assert done.returncode == 2
    assert done.stderr.startswith("dhp: error: compile: torch.compile does not work here for cpu (")
    assert done.stderr.strip().endswith("install them, or set compile = false")
    assert len(done.stderr.splitlines()) == 1
