"""A run of one rank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dhp.run.runtime import Run


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    from dhp.run import entry

    torch.set_num_threads(1)
    run = entry.init()
    yield run
    run.close()
