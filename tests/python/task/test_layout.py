"""Who encodes, sends and holds which visual row: every member's view together, against moving the rows by hand."""

import itertools

import numpy as np
import pytest

from dhp.task.layout import MediumUnits, TaskLayout, deal_units, fullest, vision_units

MERGE = 2


def random_task(generator: np.random.Generator, degree: int) -> list[TaskLayout]:
    """The layouts of all members of a random task of text, pictures and clips."""
    tokens, visual, task_media = [], [], []
    for _ in range(generator.integers(1, 5)):
        media = [
            units_of(
                (
                    int(generator.choice([1, 1, 2, 5])),
                    2 * int(generator.integers(1, 5)),
                    2 * int(generator.integers(1, 5)),
                ),
                (int(generator.integers(1, 20)), int(generator.integers(1, 80))) if generator.random() < 0.5 else None,
            )
            for _ in range(generator.integers(0, 4))
        ]
        positions, at = [], 0
        for medium in media:
            for part in range(medium.units):
                at += int(generator.integers(1, 6))  # text before a frame
                positions += range(at, at + medium.of(part)[0])
                at = positions[-1] + 1
        tokens.append(at + int(generator.integers(1, 9)))
        visual.append(np.array(positions, dtype=np.int64))
        task_media.append(tuple(media))
    return [TaskLayout(degree, position, tuple(tokens), tuple(visual), tuple(task_media)) for position in range(degree)]


def units_of(grid: tuple[int, int, int], last: tuple[int, int] | None = None) -> MediumUnits:
    """`last`: rows and patches of the last unit."""
    frames, height, width = grid
    return MediumUnits(frames, height * width // MERGE**2, height * width, *(last or ()))


@pytest.mark.parametrize("seed", range(60))
def test_exchange_brings_every_row_to_its_token(seed: int) -> None:
    generator = np.random.default_rng(seed)
    layouts = random_task(generator, degree=int(generator.integers(1, 8)))
    # A row's value says which token of which sequence it belongs to.
    names = [(i, p) for i, positions in enumerate(layouts[0].visual) for p in positions.tolist()]
    units = vision_units(layouts[0].media)
    ends = np.cumsum([unit.rows for unit in units]).tolist()
    rows_of = {unit: names[start:end] for unit, start, end in zip(units, [0, *ends], ends, strict=False)}
    encoded = [[row for unit in layout.shares[i] for row in rows_of[unit]] for i, layout in enumerate(layouts)]
    assert sorted(row for rows in encoded for row in rows) == names, "every row is encoded once"

    outgoing = []
    for layout, rows in zip(layouts, encoded, strict=True):
        ordered = [rows[i] for i in layout.send_order]
        cuts = np.cumsum([0, *layout.send_counts])
        outgoing.append([ordered[cuts[m] : cuts[m + 1]] for m in range(layout.degree)])
    for member, layout in enumerate(layouts):
        arrived = [row for source in outgoing for row in source[member]]
        assert [len(source[member]) for source in outgoing] == layout.receive_counts
        rows = [arrived[i] for i in layout.receive_order]
        slots = [(i, t) for i, local in enumerate(layout.local_tokens) for t in local.tolist()]
        assert rows == [slots[s] for s in layout.visual_slots]


def test_the_last_unit_may_be_another() -> None:
    clip = MediumUnits(3, 4, 16, last_rows=5)
    sound = MediumUnits(2, 50, 100, last_rows=7, last_patches=14)
    assert [(u.rows, u.patches) for u in vision_units([[clip, sound]])] == [
        (4, 16), (4, 16), (5, 16), (50, 100), (7, 14)
    ]  # fmt: skip
    assert (clip.all_rows, clip.all_patches, sound.all_rows, sound.all_patches) == (13, 48, 57, 114)


@pytest.mark.parametrize("seed", range(30))
def test_every_token_is_held_once(seed: int) -> None:
    generator = np.random.default_rng(1000 + seed)
    layouts = random_task(generator, degree=int(generator.integers(1, 8)))
    for i, tokens in enumerate(layouts[0].tokens):
        held = np.concatenate([layout.local_tokens[i] for layout in layouts])
        assert sorted(held) == list(range(layouts[0].seq_tokens[i]))
        assert layouts[0].seq_tokens[i] < tokens + 2 * layouts[0].degree


@pytest.mark.parametrize("degree", [1, 2, 3, 5, 8])
def test_units_are_dealt_in_runs_and_evenly(degree: int) -> None:
    units = vision_units([[units_of((40, 4, 6))], [], [units_of((1, 4, 6)), units_of((20, 4, 6))]])
    shares = deal_units(units, degree)
    assert [unit for share in shares for unit in share] == units
    work = [sum(unit.patches for unit in share) for share in shares]
    assert max(work) - min(work) <= 24, "within one frame"


def test_units_of_several_sizes_are_dealt_evenly() -> None:
    """In order, the third member would have 4 + 104 = 108 of 216 patches: the thirds are 72 wide, and the middle of the
    second large picture lies beyond the second one."""
    units = vision_units([[units_of((1, 10, 10)), units_of((2, 2, 2))]] * 2)
    assert [u.patches for u in units] == [100, 4, 4, 100, 4, 4]
    shares = deal_units(units, 3)
    assert [[u.patches for u in share] for share in shares] == [[100], [100], [4, 4, 4, 4]]


@pytest.mark.parametrize("seed", range(40))
def test_no_deal_is_much_more_level(seed: int) -> None:
    """Against all deals there are; largest first is at most a third worse than the best one (Graham 1969)."""
    generator = np.random.default_rng(seed)
    degree = int(generator.integers(2, 4))
    sides = 2 * generator.integers(1, 7, size=(int(generator.integers(1, 8)), 2))
    units = vision_units([[units_of((1, int(h), int(w)))] for h, w in sides])
    best = min(
        max(sum(u.patches for u, member in zip(units, deal, strict=True) if member == m) for m in range(degree))
        for deal in itertools.product(range(degree), repeat=len(units))
    )
    shares = deal_units(units, degree)
    assert sorted(u.sequence for share in shares for u in share) == list(range(len(units))), "every unit once"
    assert all(share == sorted(share, key=lambda u: u.sequence) for share in shares), "in the task's order"
    assert best <= fullest(shares) <= best * 4 / 3 / 0.98


def test_a_clip_is_read_in_one_run_a_member_where_it_is_dealt_unevenly() -> None:
    """A picture as large as 7 of 8 frames: one member has it alone, or with few of them."""
    units = vision_units([[units_of((1, 14, 16)), units_of((8, 4, 8))]])
    for degree in (2, 3):
        shares = deal_units(units, degree)
        for share in shares:
            frames = [u.part for u in share if u.medium == 1]
            assert frames == list(range(frames[0], frames[0] + len(frames))) if frames else share
        assert fullest(shares) == {2: 256, 3: 224}[degree]


def test_one_frame_on_many_ranks_leaves_some_without() -> None:
    shares = deal_units(vision_units([[units_of((1, 4, 4))]]), 5)
    assert sorted(len(share) for share in shares) == [0, 0, 0, 0, 1]


def test_rows_that_do_not_match_the_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 visual tokens, its media give 4"):
        TaskLayout(1, 0, (10,), (np.arange(3),), ((units_of((1, 4, 4)),),))


def test_own_vision_by_hand() -> None:
    # 5 frames of 2 x 4 patches on 2 ranks: one encodes 3 of them, the other 2.
    visual = np.arange(1, 11)
    both = [TaskLayout(2, position, (20,), (visual,), ((units_of((5, 2, 4)),),)).own_vision for position in (0, 1)]
    assert sorted(both) == [(16, 128), (24, 192)]
    assert TaskLayout(1, 0, (20,), (visual,), ((units_of((1, 2, 4)), units_of((1, 4, 8))),)).own_vision == (
        40,
        64 + 1024,
    )
    assert TaskLayout(1, 0, (20,), (visual[:0],), ((),)).own_vision == (0, 0)
