"""What the line of a step says."""

from dataclasses import fields
from typing import Any

import pytest

from dhp.base.slow_ranks import slow_ranks_text
from dhp.watch.steps import Reporter, StepRecord, groups_text


@pytest.mark.parametrize(
    ("rank_speed", "said"),
    [
        ([], ""),
        ([1.0], ""),
        ([1.0, 1.0, 1.0], ""),
        ([1.0, 0.98, 1.0], ""),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 0.94], "rank 5 at 0.94 of the others"),
        ([1.0, 0.94], "rank 1 at 0.94 of the others"),
        ([0.0, 0.5, 0.0], ""),  # alone in service
        ([0.0, 0.5, 0.5, 0.45], "rank 3 at 0.90 of the others"),
        ([1.0, 0.9, 1.0, 0.95, 0.98, 1.0], "rank 1 at 0.90 of the others, 1 more slow"),
        ([1.0, 0.8, 0.8, 0.8], ""),  # most are like that
    ],
)
def test_slow_ranks(rank_speed: list[float], said: str) -> None:
    assert slow_ranks_text(rank_speed) == said


def record(**values: Any) -> StepRecord:
    numbers: dict[str, Any] = {field.name: 0 for field in fields(StepRecord)}
    return StepRecord(**{**numbers, "degrees": [1, 2], "dropped": [], "skipped": "", "rank_speed": [], **values})


def test_a_slow_rank_is_in_the_line() -> None:
    reporter = Reporter(9, None)
    assert "of the others" not in reporter.line(record())
    line = reporter.line(record(rank_speed=[1.0, 1.0, 0.9], dropped=[7]))
    assert line.endswith("waited 0.0 | rank 2 at 0.90 of the others | dropped 1")


def test_groups() -> None:
    assert groups_text([1, 4, 1, 2, 1]) == "4×1 2×1 1×3"
