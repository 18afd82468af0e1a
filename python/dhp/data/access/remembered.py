"""A cache of what takes long, for several threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class _Cell:
    def __init__(self) -> None:
        self.lock, self.is_full, self.value = threading.Lock(), False, None


def remembered(most: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """As functools.lru_cache(most), but threads that ask for the same at once have it worked out once. An exception is
    not remembered."""

    def wrap(work: Callable[..., T]) -> Callable[..., T]:
        lock = threading.Lock()

        @functools.lru_cache(maxsize=most)
        def cell_of(*_: Any) -> _Cell:
            return _Cell()

        @functools.wraps(work)
        def call(*key: Any) -> T:
            with lock:
                cell = cell_of(*key)
            with cell.lock:
                if not cell.is_full:
                    cell.value, cell.is_full = work(*key), True  # type: ignore[assignment]
                return cell.value  # type: ignore[return-value]

        return call

    return wrap


__all__ = ["remembered"]
