"""What a run says of itself: a line a step for people, an object a step for programs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from dhp.base.output import complain, open_append
from dhp.base.slow_ranks import slow_ranks_text


@dataclass(frozen=True)
class StepRecord:
    """One step, all ranks together.

    seconds          wall time from the record of the previous step, with saving that step, to this record
    plan_s           time to draw, plan and check the batch, while the step before trains
    plan_wait_s      what of it that step did not hide, on rank 0
    read_wait_s      what of reading the step before, and planning, did not hide
    idle_share       share of ranks x step in which no task ran, replaying the plan with the measured seconds of each
                     task (CPU seconds of the ranks' compute threads: on few cores wall time cannot show balance; on
                     devices, theirs without waits for other ranks)
    emulated_step_s  the step time of that replay
    """

    step: int  # from 1
    loss: float
    tokens: int
    label_tokens: int
    samples: int
    degrees: list[int]  # of the tasks, largest first
    micro_batches: int
    seconds: float
    tokens_per_s: float
    plan_s: float
    plan_wait_s: float
    read_wait_s: float
    idle_share: float
    emulated_step_s: float
    predicted_step_s: float
    predicted_idle_share: float
    lower_bound_s: float
    gap: float  # predicted step / lower bound - 1
    grad_norm: float
    learning_rate: float
    dropped: list[int]  # ids of samples whose media could not be read
    task_error: float = 0.0  # |predicted - measured| / measured of its tasks, mean; measured: as in idle_share
    rank_speed: list[float] = field(default_factory=list)  # that it was planned with, 1: the quickest; empty: all alike
    skipped: str = ""  # why the step changed nothing (on_nonfinite); its loss or gradient norm is null in JSON

    def to_json(self) -> str:
        """One line; a number that is not finite, which JSON cannot express, is null."""
        values = asdict(self)
        odd = {key: None for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
        return json.dumps(values | odd, allow_nan=False)


def groups_text(degrees: list[int]) -> str:
    """Degree x count, largest first: "4×1 2×1 1×6"."""
    return " ".join(f"{degree}×{count}" for degree, count in sorted(Counter(degrees).items(), reverse=True))


class Reporter:
    """Prints and stores records; rank 0 has one. Of `log_every` steps one has a line, with `quiet` none, nor anything
    else; output_format "json" prints the records instead."""

    def __init__(
        self,
        steps: int,
        metrics: str | Path | None,
        *,
        log_every: int = 1,
        quiet: bool = False,
        output_format: str = "text",
        stream: TextIO = sys.stdout,
    ) -> None:
        self.steps = steps
        self._stream = stream
        self._json = output_format == "json"
        self._every = 0 if quiet else log_every
        self._colour = stream.isatty() and "NO_COLOR" not in os.environ
        self._file: TextIO | None = None
        self._metrics = metrics
        self._skipped = 0
        if metrics:
            self._file = open_append("--metrics", str(metrics))

    def say(self, text: str) -> None:
        """A line for a person who watches; empty: none."""
        if text and self._every and not self._json:
            self._print(text)

    def step(self, record: StepRecord) -> None:
        self._skipped += bool(record.skipped)
        if self._file:
            try:
                self._file.write(record.to_json() + "\n")
                self._file.flush()
            except OSError as error:  # a full disk is no reason to lose what was trained
                complain(f"dhp: --metrics: {self._metrics} cannot be written ({error.strerror}): no more of them")
                self.close()
        if self._json:
            self._print(record.to_json())
        elif self._every and record.step % self._every == 0:
            self.say(self.line(record))

    def line(self, r: StepRecord) -> str:
        step = f"step {r.step:>{len(str(self.steps))}}/{self.steps}"
        loss = f"{r.loss:.4f}"
        if self._colour:
            step, loss = f"\033[2m{step}\033[0m", f"\033[1m{loss}\033[0m"
        parts = [
            step,
            f"loss {loss}",
            f"{r.tokens_per_s:,.0f} tok/s",
            f"groups {groups_text(r.degrees)}",
            f"idle {r.idle_share:.0%}".replace("%", " %"),
            f"gap {r.gap:.0%}".replace("%", " %"),
            f"plan {r.plan_s * 1e3:.1f} ms, waited {r.plan_wait_s * 1e3:.1f}",
        ]
        if slow := slow_ranks_text(r.rank_speed):
            parts.append(slow)
        if r.dropped:
            parts.append(f"dropped {len(r.dropped)}")
        if r.skipped:
            parts.append(f"skipped ({self._skipped} so far)")
        return " | ".join(parts)

    def close(self) -> None:
        if self._file:
            with contextlib.suppress(OSError):  # what could not be written is tried again
                self._file.close()
        self._file = None

    def _print(self, text: str) -> None:
        try:
            print(text, file=self._stream, flush=True)
        except OSError:  # whoever read has seen enough; what is buffered goes nowhere
            self._every, self._json = 0, False
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
