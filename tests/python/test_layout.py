"""Who encodes, sends and holds which visual row: every member's view together, against moving the rows by hand."""

import numpy as np
import pytest

from dhp.layout import TaskLayout, deal_units, vision_units

MERGE = 2


def random_task(generator: np.random.Generator, degree: int) -> list[TaskLayout]:
    """The layouts of all members of a random task of text, pictures and clips."""
    tokens, visual, grids = [], [], []
    for _ in range(generator.integers(1, 5)):
        media = [
            (int(generator.choice([1, 1, 2, 5])), 2 * int(generator.integers(1, 5)), 2 * int(generator.integers(1, 5)))
            for _ in range(generator.integers(0, 4))
        ]
        positions, at = [], 0
        for frames, height, width in media:
            for _ in range(frames):
                at += int(generator.integers(1, 6))  # text before a frame
                positions += range(at, at + height * width // MERGE**2)
                at = positions[-1] + 1
        tokens.append(at + int(generator.integers(1, 9)))
        visual.append(np.array(positions, dtype=np.int64))
        grids.append(tuple(media))
    return [
        TaskLayout(degree, position, tuple(tokens), tuple(visual), tuple(grids), MERGE) for position in range(degree)
    ]


@pytest.mark.parametrize("seed", range(60))
def test_exchange_brings_every_row_to_its_token(seed: int) -> None:
    generator = np.random.default_rng(seed)
    layouts = random_task(generator, degree=int(generator.integers(1, 8)))
    # A row's value says which token of which sequence it belongs to.
    names = [(i, p) for i, positions in enumerate(layouts[0].visual) for p in positions.tolist()]
    encoded, start = [], 0
    for member, layout in enumerate(layouts):
        rows = sum(unit.patches for unit in layout.shares[member]) // MERGE**2
        encoded.append(names[start : start + rows])
        start += rows
    assert start == len(names), "every row is encoded once"

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
    units = vision_units([[(40, 4, 6)], [], [(1, 4, 6), (20, 4, 6)]])
    shares = deal_units(units, degree)
    assert [unit for share in shares for unit in share] == units
    work = [sum(unit.patches for unit in share) for share in shares]
    assert max(work) - min(work) <= 24, "within one frame"


def test_one_frame_on_many_ranks_leaves_some_without() -> None:
    shares = deal_units(vision_units([[(1, 4, 4)]]), 5)
    assert sorted(len(share) for share in shares) == [0, 0, 0, 0, 1]


def test_rows_that_do_not_match_the_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 visual tokens, its media give 4"):
        TaskLayout(1, 0, (10,), (np.arange(3),), (((1, 4, 4),),), MERGE)
