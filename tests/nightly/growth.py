"""What a long run must keep: memory, threads and open files of its processes, early and late in it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from quick import Program, QuickStart

EARLY = 100  # steps after which all that a run keeps for itself is there


def state_of(pid: int) -> dict[str, int]:
    """Of a process: resident memory in bytes, threads, open files."""
    status = Path(f"/proc/{pid}/status").read_text()
    number = {key: int(value) for key, value in re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.M)}
    return {
        "memory": number["VmRSS"] * 1024,
        "threads": number["Threads"],
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def check_no_growth(
    quick: QuickStart, ranks: list[Program], metrics: Path, steps: int, pids: Callable[[], list[int]]
) -> None:
    """Waits for a run of so many steps, whose metrics go to this file, and for its end. `pids` are the processes that
    are looked at."""

    def states_at(step: int) -> list[dict[str, int]]:
        deadline = time.monotonic() + 900
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < step:
            assert time.monotonic() < deadline and not quick.ended(*ranks, seconds=0), ranks[0].said()[-2000:]
            time.sleep(0.01)
        return [state_of(pid) for pid in pids()]

    early, late = states_at(EARLY), states_at(steps - 10)
    assert quick.ended(*ranks, seconds=120)
    print(f"\nafter {EARLY} steps {early}, after {steps - 10} {late}")
    for before, after in zip(early, late, strict=True):
        assert after["threads"] <= before["threads"]
        assert after["files"] <= before["files"] + 2  # a medium may be open just now
        # A leak of one activation (4 KB) a step would show as 1.6 MB, the allocator's own wandering is larger.
        assert after["memory"] - before["memory"] < 16 << 20
