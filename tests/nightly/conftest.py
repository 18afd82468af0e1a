"""Fixtures that several trials share."""

from collections.abc import Iterator

import pytest
from quick import QuickStart


@pytest.fixture(scope="module")
def quick() -> Iterator[QuickStart]:
    with QuickStart() as quick:
        yield quick
