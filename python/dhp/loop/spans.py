"""How long parts of a step take, and when: by the clock of a CPU, or by events of a device, for which nobody waits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dhp.run.runtime import Run

MS = 1e-3


@dataclass(frozen=True)
class Span:
    """seconds: of computing. begin, end: on the wall (time.time)."""

    seconds: float
    begin: float
    end: float


class HostSpans:
    """CPU time of the computing thread: what a span costs, however many ranks share a core."""

    def __init__(self) -> None:
        self._ended: dict[Any, Span] = {}

    @contextlib.contextmanager
    def span(self, key: Any, *, is_task: bool = False) -> Iterator[None]:
        started, wall = time.thread_time(), time.time()
        yield
        self._ended[key] = Span(time.thread_time() - started, wall, time.time())

    def before_reading(self) -> None:
        """See DeviceSpans."""

    def after_reading(self) -> None:
        """See DeviceSpans."""

    def take(self) -> dict[Any, Span]:
        """By key, those that have ended since the last call."""
        ended, self._ended = self._ended, {}
        return ended

    def finish(self) -> None:
        """See DeviceSpans."""


class DeviceSpans:
    """What the device is busy with, from event to event; of a task less what it waited for other ranks (`Stalls` of
    the run-time). Times are known once the host has read something of the device that came after them.

    A reading also ties the two clocks together: the host comes back when the device has come to the event before it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._spans: list[tuple[Any, bool, torch.Event, torch.Event]] = []
        self._anchor: tuple[torch.Event, float] | None = None
        self._known = 0  # of `_spans`, from the first

    @contextlib.contextmanager
    def span(self, key: Any, *, is_task: bool = False) -> Iterator[None]:
        if is_task:
            torch.ops.dhp.measure_stalls(self._run.traffic, True)
        begin = self._event()
        yield
        self._spans.append((key, is_task, begin, self._event()))
        if is_task:
            torch.ops.dhp.measure_stalls(self._run.traffic, False)

    def before_reading(self) -> None:
        """Just before the host waits for the device."""
        self._at = self._event()
        self._known = len(self._spans)

    def after_reading(self) -> None:
        """Just after."""
        self._anchor = self._at, time.time()

    def take(self) -> dict[Any, Span]:
        """By key, those that had ended before the last reading, and are not taken yet."""
        if not self._known:
            return {}
        spans, self._spans = self._spans[: self._known], self._spans[self._known :]
        self._known = 0
        stalls = iter(torch.ops.dhp.stalled_s(self._run.traffic))
        taken = {}
        for key, is_task, begin, end in spans:
            seconds = begin.elapsed_time(end) * MS
            stalled = next(stalls) if is_task else 0.0
            taken[key] = Span(max(0.0, seconds - stalled), self._wall(begin), self._wall(end))
        return taken

    def finish(self) -> None:
        """Waits for the device, so that `take` has all spans that have ended by now."""
        self.before_reading()
        self._at.synchronize()
        self.after_reading()

    def _wall(self, event: torch.Event) -> float:
        assert self._anchor is not None
        anchor, wall = self._anchor
        return wall - event.elapsed_time(anchor) * MS

    def _event(self) -> torch.Event:
        event = torch.Event(self._run.device.type, enable_timing=True)
        event.record()
        return event


def spans_of(run: Run | None) -> HostSpans | DeviceSpans:
    """For what this rank computes on."""
    return HostSpans() if run is None or run.device.type == "cpu" else DeviceSpans(run)
