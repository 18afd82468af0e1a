"""bench/measure.py: turns, medians, ranks."""

from __future__ import annotations

import importlib
import threading
import time
from functools import partial
from types import ModuleType

import pytest

from bench_script import load_bench


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    load_bench("measure")
    return importlib.import_module("measure")  # by a name that processes of their own find too


def test_sides_take_turns_and_each_begins(measure: ModuleType) -> None:
    called: list[str] = []

    def side(name: str) -> int:
        called.append(name)
        return len(called)

    results = measure.in_turns({name: partial(side, name) for name in "abc"}, repeats=3, warm_up=1)
    assert "".join(called) == "abcbcacababc"
    assert results == {"a": [6, 8, 10], "b": [4, 9, 11], "c": [5, 7, 12]}, "without the round that warms up"


def test_spans(measure: ModuleType) -> None:
    assert measure.span([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"
    assert measure.span([0.25], ".0%") == "25%"
    assert measure.over([1.0, 6.0], [2.0, 3.0]) == [0.5, 2.0]


def test_clocks_count_work_and_no_waiting(measure: ModuleType) -> None:
    def work() -> None:
        end_s = time.thread_time() + 0.05
        while time.thread_time() < end_s:
            pass

    def work_beside() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.1)
        thread.join()

    assert measure.thread_seconds(work) >= 0.05
    assert measure.thread_seconds(work_beside) < 0.05 <= measure.process_seconds(work_beside)


def test_ranks_return_what_they_found(measure: ModuleType) -> None:
    assert measure.on_ranks(2, divmod, 2) == [(0, 0), (0, 1)], "work(rank, *arguments), by rank"
