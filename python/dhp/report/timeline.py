"""The spans of a step as page.js draws them: whole numbers in columns, since there may be a hundred thousand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dhp.report.charts import GREEN, ORANGE, PURPLE, QUIET, SKY, VERMILION, YELLOW, wrapped
from dhp.report.summary import Summary
from dhp.watch.result import SPANS, Columns, Result

TICKS = 1_000_000  # of a step: finer than any screen, at any zoom that shows a task
MOST_SPANS = 400_000  # of all results together: some 10 MB
MOST_BARS = 20_000  # of a result: browsers draw some ten thousand a second

# What a rank does, and its colour: computing by the size of its group, in steps of one blue, then all else.
GROUP_SIZES = ((1, "computing alone"), (2, "in groups of 2 to 3"), (4, "of 4 to 7"), (8, "of 8 and more"))
GROUP_COLOURS = ("group1", "group2", "group3", "group4")  # of page.css: what stands out differs in light and dark
NAMES = {
    "transfer": "waiting for a transfer",
    "peer": "waiting for a peer",
    "data": "waiting for data",
    "reduce": "gradients",
    "optimizer": "optimizer",
    "save": "saving",
}
COLOURS = {"transfer": ORANGE, "peer": VERMILION, "data": PURPLE, "reduce": GREEN, "optimizer": SKY, "save": YELLOW}
KINDS = [
    *({"name": name, "color": colour} for (_, name), colour in zip(GROUP_SIZES, GROUP_COLOURS, strict=True)),
    *({"name": NAMES[kind], "color": COLOURS[kind]} for kind in SPANS if kind != "compute"),
    {"name": "no task", "color": QUIET},
]


def timelines(results: list[Result], summaries: list[Summary]) -> tuple[list[dict[str, Any]], str]:
    """One entry a result that has a timeline, and what to say of those left out."""
    found: list[dict[str, Any]] = []
    left_out: list[str] = []
    notes: list[str] = []
    spans = 0
    for result, summary in zip(results, summaries, strict=True):
        if result.timeline is None or not result.timeline.spans["rank"].size:
            continue
        entry = _timeline(result, summary)
        spans += len(entry["rank"])
        if spans > MOST_SPANS:
            left_out.append(summary.label)
            continue
        found.append(entry)
        if entry["every"] > 1:
            notes.append(f"Of {summary.label} one in {entry['every']} ranks is shown: all have too many bars.")
    if not found:
        return [], "no result has a timeline"
    if left_out:
        notes.append(f"Left out, since the page would grow too large: {', '.join(left_out)}.")
    return found, " ".join(notes)


def _timeline(result: Result, summary: Summary) -> dict[str, Any]:
    assert result.timeline is not None
    spans, step = result.timeline.spans, result.timeline.step
    seconds = next((s.seconds for s in result.steps if s.step == step), 0.0)
    seconds = max(seconds, float(spans["end_s"].max())) or 1.0
    kind = _shown_kinds(spans)
    rank, start, end = spans["rank"], spans["start_s"], spans["end_s"]
    idle_rank, idle_start, idle_end = _gaps(rank, start, end, result.ranks, seconds)
    rank = np.r_[rank, idle_rank]
    start, end = np.r_[start, idle_start], np.r_[end, idle_end]
    kind = np.r_[kind, np.full(idle_rank.size, len(KINDS) - 1)]
    task = np.r_[spans["task"], np.full(idle_rank.size, -1)]
    every = math.ceil(rank.size / MOST_BARS)
    drawn = np.flatnonzero(rank % every == 0)
    drawn = drawn[np.lexsort((start[drawn], rank[drawn]))]
    first = np.rint(start / seconds * TICKS).astype(int)
    long = np.rint(end / seconds * TICKS).astype(int) - first
    return {
        "name": summary.label,
        "label": wrapped(summary.label),
        "seconds": seconds,
        "tick": seconds / TICKS,
        "ranks": result.ranks,
        "every": every,
        "rows": math.ceil(result.ranks / every),
        "rank": rank[drawn].tolist(),
        "kind": kind[drawn].tolist(),
        "start": first[drawn].tolist(),
        "long": long[drawn].tolist(),
        "task": task[drawn].tolist(),
        "tasks": _tasks(result, step),
    }


def _gaps(
    rank: np.ndarray, start: np.ndarray, end: np.ndarray, ranks: int, seconds: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank, start and end of the times in which a rank has no span."""
    order = np.lexsort((start, rank))
    # An empty span at the end of the step closes each rank's row.
    rank, start, end = (np.r_[column[order], last] for column, last in (
        (rank, np.arange(ranks)), (start, np.full(ranks, seconds)), (end, np.full(ranks, seconds))))  # fmt: skip
    order = np.lexsort((start, rank))
    rank, start, end = rank[order], start[order], end[order]
    before = np.r_[0.0, end[:-1]]
    before[np.r_[True, rank[1:] != rank[:-1]]] = 0.0
    gaps = np.flatnonzero(start - before > seconds / TICKS)
    return rank[gaps], before[gaps], start[gaps]


def _shown_kinds(spans: Columns) -> np.ndarray:
    """Index into KINDS: a computing span by how many ranks compute its task."""
    computing = spans["kind"] == SPANS.index("compute")
    pairs = np.unique(np.stack([spans["task"][computing], spans["rank"][computing]]), axis=1)
    tasks, members = np.unique(pairs[0], return_counts=True)
    kind = spans["kind"] + len(GROUP_SIZES) - 1  # SPANS begins with compute
    if tasks.size:
        degree = members[np.searchsorted(tasks, spans["task"][computing])]
        degree = np.where(spans["task"][computing] < 0, 1, degree)
        kind[computing] = np.searchsorted([size for size, _ in GROUP_SIZES], degree, side="right") - 1
    return kind


def _tasks(result: Result, step: int) -> dict[int, str]:
    """What is known of each task of the step, in two lines."""
    if result.tasks is None:
        return {}
    of_step = result.tasks["step"] == step
    columns = [result.tasks[key][of_step].tolist() for key in ("id", "degree", "sequences", "tokens")]
    times = [result.tasks[key][of_step].tolist() for key in ("predicted_s", "seconds")]
    texts = {}
    for task, *counts, predicted, actual in zip(*columns, *times, strict=True):
        named = zip(counts, ("rank", "sequence", "token"), strict=True)
        parts = [f"task {task}", *(f"{n:,} {name}{'s' * (n != 1)}" for n, name in named if n >= 0)]
        known = predicted >= 0 and actual >= 0
        texts[task] = ", ".join(parts) + (f"<br>predicted {predicted:.4g} s, was {actual:.4g} s" if known else "")
    return texts
