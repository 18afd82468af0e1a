"""bench/robust.py: plans under errors of estimates."""

from __future__ import annotations

from types import ModuleType

import pytest

from bench_script import load_bench
from dhp import _core as core


@pytest.fixture(scope="module")
def robust() -> ModuleType:
    return load_bench("robust")


def test_a_case_is_measured_under_every_error(robust: ModuleType) -> None:
    case = next(robust.shared_cases())
    case.batch = core.Batch(case.batch.sequences[:40])
    measured = robust.measure(case, 3)
    assert len(measured) == len(robust.ERRORS) == 18
    none = measured[0]
    assert none.bound_s <= none.free_s["without"] * (1 + 1e-9)
    assert none.free_s["told"] == none.free_s["without"]  # planned for the same
    assert none.free_s["default"] <= none.free_s["without"] * (1.006 + 1e-9)
    assert none.other != "free"
    rows = [robust.rows_of(errors, [one]) for errors, one in zip(robust.ERRORS, measured, strict=True)]
    assert rows[0][0] == "0, 0, 0"
    assert rows[-1][0] == "4 %, 0, 2 %"
    assert len({len(row) for row in rows}) == 1
