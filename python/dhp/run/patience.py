"""How long to wait for others, by the time in which this process could run itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")

ANSWER_S = 3.0  # an answer of the store takes well under a millisecond; a frozen host never answers
LOOK_S = 0.2


class AwakeClock:
    """Seconds in which this process could run, since the clock was made. A gap of more than `longest_look_s` between
    two looks counts as one look: the process or its machine was stopped, or other work took the processors. Who has
    been paused cannot say how long the others were silent. (The run-time's: src/torch/transport/awake_clock.h.)"""

    def __init__(self, longest_look_s: float) -> None:
        self._longest_look_s = longest_look_s
        self._last = monotonic()
        self._waited_s = 0.0

    def __call__(self) -> float:
        now = monotonic()
        self._waited_s += min(now - self._last, self._longest_look_s)
        self._last = now
        return self._waited_s


class Call(Generic[T]):
    """A call that goes on in a thread of its own, which a frozen host may hold for ever, and nobody else."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.results: list[T] = []  # of one, as soon as it is there
        self.errors: list[Exception] = []  # or this
        self.thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self.thread.start()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self.results.append(call())
        except Exception as error:
            self.errors.append(error)


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises. Raises TimeoutError if it takes longer, and goes on (see Call)."""
    work = Call(call)
    clock = AwakeClock(5 * LOOK_S)
    while work.thread.is_alive() and (left := seconds - clock()) > 0:
        work.thread.join(min(left, LOOK_S))
    if work.errors:
        raise work.errors[0]
    if not work.results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return work.results[0]
