"""What `dhp calibrate` makes its tasks of, and the clock and the groups that it runs them with."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dhp.cost.calibrate_tasks import (
    MODULES,
    PASSES,
    Design,
    ModuleClock,
    Range,
    Shape,
    UnitRule,
    encode,
    make_designs,
    make_input,
    make_shape,
    make_task,
    units_of,
)
from dhp.models import attach
from dhp.run.runtime import Run
from dhp.task.layout import deal_units, vision_units
from dhp.task.made import MadeMedium
from family_models import MODELS, OMNI, make
from ranks import run_threads

# Of a hundred tokens, with a placeholder and no marks.
FAMILY = SimpleNamespace(units_apart=True, marks=lambda kind: ([], []), placeholder=lambda kind: 100)
VOCABULARY = np.arange(100)
RANGE = Range(32, 800, (1, 2, 4), (3, 6), label_share=0.25)


def test_designs_cover_what_was_asked_for_and_keep_degrees_apart() -> None:
    designs = make_designs(RANGE, {"fit": 60, "left out": 20, "text": 4})
    assert designs == make_designs(RANGE, {"fit": 60, "left out": 20, "text": 4})
    fit = [d for d in designs if d.use == "fit"]
    left_out = [d for d in designs if d.use == "left out"]
    assert {d.degree for d in fit} == {1, 2, 4}
    assert {d.degree for d in left_out} == {3, 6}
    assert {len(d.shapes) for d in fit} == {1, 2, 4}
    assert {len(d.shapes) for d in left_out} == {1, 3, 5}
    totals = [sum(s.tokens for s in d.shapes) for d in fit]
    assert min(totals) < 64
    assert 500 < max(totals) < 900
    assert not {tuple(s.tokens for s in d.shapes) for d in fit} & {tuple(s.tokens for s in d.shapes) for d in left_out}
    assert all(shape.patches == 0 for d in designs if d.use == "text" for shape in d.shapes)
    for design in fit + left_out:
        assert any(shape.media for shape in design.shapes)
        for shape in design.shapes:
            patches = [
                sum(u.patches for u in share)
                for share in deal_units(vision_units([units_of(shape, UnitRule())]), design.degree)
            ]
            assert len(set(patches)) == 1, "frames are dealt evenly"
            assert 1 <= shape.labels <= shape.tokens


def test_made_up_sequences_are_what_their_shape_says() -> None:
    for design in make_designs(RANGE, {"fit": 30, "left out": 10}):
        for shape in design.shapes:
            encoded = encode(shape, FAMILY, VOCABULARY, UnitRule(), np.random.default_rng(0))
            assert len(encoded.input_ids) == shape.tokens
            assert encoded.label_tokens == shape.labels
            assert (encoded.media_type != 0).sum() == shape.patches // 4


@pytest.mark.parametrize(
    ("merge", "unit"), [(2, (2, 2)), (2, (4, 4)), (2, (2, 12)), (2, (6, 6)), (2, (32, 48)), (3, (3, 3)), (3, (9, 6))]
)
def test_frames_of_any_size_leave_room_for_text_between_them(merge: int, unit: tuple[int, int]) -> None:
    what = Range(16, 600, (1, 2, 4, 8), (3, 6), unit=unit, rule=UnitRule(merge))
    for design in make_designs(what, {"fit": 60, "left out": 20}):
        for shape in design.shapes:
            encoded = encode(shape, FAMILY, VOCABULARY, UnitRule(merge), np.random.default_rng(0))
            assert (encoded.media_type != 0).sum() == shape.patches // merge**2
            frames = sum(t for t, _, _ in shape.media)
            assert frames > 0 and frames % design.degree == 0


def test_frames_of_one_token_are_as_many_as_text_can_part() -> None:
    """90 % of 21 tokens are 18 frames of a token; 10 leave the 11 tokens of text that stand around them."""
    assert make_shape(21, 0.9, 1, Range(16, 64, (1,), (1,), unit=(2, 2))).media == ((10, 2, 2),)
    assert make_shape(21, 0.9, 4, Range(16, 64, (4,), (4,), unit=(2, 2))).media == ((8, 2, 2),)
    # 70 % of 100 tokens are 17 frames of 4, which fit without.
    assert make_shape(100, 0.7, 1, Range(16, 64, (1,), (1,), unit=(4, 4))).media == ((17, 4, 4),)


def test_tiles_stand_together_where_text_cannot_part_them() -> None:
    """A picture of 9 tiles in 5 tokens of text, as data may have it."""
    shape = Shape(41, (MadeMedium("image", (9, 4, 4), 4),), 1)
    kinds = encode(shape, FAMILY, VOCABULARY, UnitRule(), np.random.default_rng(0)).media_type
    assert kinds.tolist() == [0] * 2 + [1] * 36 + [0] * 3
    with pytest.raises(ValueError, match="no room for text around 1 frames"):
        encode(replace(shape, tokens=35), FAMILY, VOCABULARY, UnitRule(), np.random.default_rng(0))


@pytest.mark.parametrize("name", [name for name in ("llava_onevision", "mistral3", "qwen3_vl", OMNI) if name in MODELS])
def test_media_of_data_are_measured_as_they_are(name: str, run: Run) -> None:
    """Pictures of several tiles, clips that end with a row more, sounds, on the members of a group one by one."""
    adapter = attach(make(name, torch.float32), run)
    media = adapter.family.shapes_to_try()
    alone = [media[:1], media[1:2], media[-1:], *([media] if name != "llava_onevision" else [])]
    for group in alone:
        rows = sum(medium.unit_sizes.all_rows for medium in group)
        design = Design((Shape(rows + 60, tuple(group), 9),), 2)
        assert design.sequences[0].patches == sum(medium.unit_sizes.all_patches for medium in group)
        for position in range(2):
            torch.ops.dhp.create_mirror_group(f"{name}/{position}", 2, position)
            adapter.run = SimpleNamespace(traffic=f"{name}/{position}", group_of=lambda task: list(task.ranks))
            loss = adapter.loss(make_input(design, position, adapter.model), make_task(design), 9)
            assert torch.isfinite(loss)


@pytest.fixture(scope="module")
def adapter(mixed_data: Path, run: Run):
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(mixed_data / "model", dtype=torch.float32)
    return attach(model.train(), run)


def test_parts_of_the_clock_add_up_to_the_run(adapter) -> None:
    clock = ModuleClock(adapter)
    for design in make_designs(Range(200, 400, (1,), (1,)), {"fit": 3, "text": 2}):
        task_input, task = make_input(design, 0, adapter.model), make_task(design)
        shares = []  # of what the whole call takes: what disturbs it between the clocks only takes away from that
        for _ in range(5):
            started = time.thread_time()
            seconds = clock.run(lambda: adapter.loss(task_input, task, 100))  # noqa: B023
            shares.append(sum(seconds.values()) / (time.thread_time() - started))
        assert seconds.keys() == {(m, p) for m in MODULES for p in PASSES}
        assert 0.98 < max(shares) <= 1.0
        assert min(seconds.values()) >= 0.0
        for direction in PASSES:
            assert (seconds["vision", direction] > 0.0) == (design.use == "fit")
            assert seconds["layers", direction] > 0.0
            assert seconds["head", direction] > 0.0
    clock.close()
    assert clock.run(lambda: adapter.loss(task_input, task, 100))["layers", "forward"] == 0.0, "no hooks are left"


def attention_of_rank_2(name: str, exchange: str, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(8, heads, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = torch.ops.dhp.ring_attention(*leaves, [24], [0, 1, 2], name, 0.3, True, exchange, [0, 0, 1])
    out.sum().backward()
    return [out.detach(), q.grad]


@pytest.mark.parametrize("exchange", ["ring", "direct", "hierarchical"])
def test_a_mirror_group_is_a_group_whose_other_shards_are_zero(exchange: str) -> None:
    def rank(position: int, group: str) -> list[torch.Tensor]:
        if position == 2:
            return attention_of_rank_2(group, exchange)
        zeros = [torch.zeros(8, heads, 8, dtype=torch.float64).requires_grad_() for heads in (4, 2, 2)]
        torch.ops.dhp.ring_attention(*zeros, [24], [0, 1, 2], group, 0.3, True, exchange, [0, 0, 1]).sum().backward()
        return []

    outcomes = run_threads(rank, 3, name=f"mirrored-{exchange}")
    assert not [o.error for o in outcomes if o.error]
    torch.ops.dhp.create_mirror_group("mirror", 3, 2)
    alone = attention_of_rank_2("mirror", exchange)
    for found, expected in zip(alone, outcomes[2].value, strict=True):
        assert torch.equal(found, expected)


def test_a_mirror_group_exchanges_rows_with_nobody() -> None:
    torch.ops.dhp.create_mirror_group("rows", 3, 1)
    rows = torch.arange(8.0).reshape(4, 2).requires_grad_()
    arrived = torch.ops.dhp.exchange_rows(rows, [1, 2, 1], [2, 2, 0], [0, 1, 2], "rows")
    assert arrived.tolist() == [[0, 0], [0, 0], [2, 3], [4, 5]], "own rows stay, others' are zeros"
    arrived.sum().backward()
    assert rows.grad.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]
    with pytest.raises(ValueError, match="rank from 0 to size - 1, got rank 3 of 3"):
        torch.ops.dhp.create_mirror_group("beyond", 3, 3)
