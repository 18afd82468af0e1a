"""The numbers on the terminal, as `dhp dataset` and `dhp compare` show theirs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dhp.base.output import printable
from dhp.stats.figures import Batches, Stats, Steps
from dhp.stats.spread import Spread

_SLICES = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_BESIDE_BARS = 34
_WIDTH = 100  # where nobody looks


def text_of(stats: Stats, width: int = 0) -> str:
    """`width`: of the terminal; 0: what it is."""
    width = width or _terminal_width()
    data = stats.data[0] if len(stats.data) == 1 else f"{len(stats.data)} files"
    lines = [
        f"{data}: {stats.samples:,} samples, {stats.tokens:,} tokens, {stats.label_tokens:,} with a loss, "
        f"{stats.patches:,} patches",
        "sample length",
        f"  {spread_line(stats.lengths)}",
        *_histogram(stats.lengths, width),
        *_shares(stats),
        "longest samples",
        *_table([[one.name, f"{one.tokens:,} tokens", ", ".join(one.media)] for one in stats.longest], "<><"),
        *(_batches(stats.batches) if stats.batches else ["batches: fewer samples than one has; --batch-size"]),
        *(_steps(stats.steps) if stats.steps else []),
    ]
    return printable("\n".join(line.rstrip() for line in lines))


def spread_line(spread: Spread) -> str:
    named = ", ".join(f"{name} {value:,.0f}" for name, value in spread.percentiles.items())
    return f"mean {spread.mean:,.0f} tokens, min {spread.least:,.0f}, {named}, max {spread.most:,.0f}"


def share_text(share: float) -> str:
    return f"{100 * share:.1f} %"


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return _WIDTH


def _histogram(spread: Spread, width: int) -> list[str]:
    cells = max(10, width - _BESIDE_BARS)
    most = max(one.count for one in spread.bins)
    rows = [["tokens", "share", ""]]
    for one in spread.bins:
        bar = _bar(one.count / most, cells)
        rows.append([f"{one.least:,.0f} to < {one.end:,.0f}", share_text(one.count / spread.count), bar])
    return _table(rows, ">><")


def _bar(share: float, cells: int) -> str:
    """Eighths of a cell, so that small shares show."""
    parts = max(1, round(share * cells * 8)) if share > 0 else 0
    return "█" * (parts // 8) + _SLICES[parts % 8]


def _shares(stats: Stats) -> list[str]:
    rows = [["", "of samples", "of tokens"]]
    rows += [[one.name, share_text(one.samples), share_text(one.tokens)] for one in stats.shares]
    note = f"; tokens: of {stats.records:,} samples" if stats.records < stats.samples else ""
    return [f"kinds (samples of text: of text alone{note})", *_table(rows, "<>>")]


def _batches(batches: Batches) -> list[str]:
    tokens, longest = batches.tokens, batches.longest
    return [
        f"batches of {batches.size:,} samples ({batches.count:,} drawn as training draws them)",
        f"  tokens   {tokens.mean:,.0f} ({tokens.least:,.0f} to {tokens.most:,.0f})",
        f"  longest  {longest.mean:,.0f} tokens ({longest.least:,.0f} to {longest.most:,.0f}), "
        f"{batches.longest_over_mean:.1f} times the mean; {top_text(batches)}",
    ]


def top_text(batches: Batches) -> str:
    share = share_text(batches.top_share)
    return (
        f"it holds {share} of the tokens"
        if batches.top == 1
        else f"the longest {batches.top:,} hold {share} of the tokens"
    )


def _steps(steps: Steps) -> list[str]:
    lines = [f"steps on {steps.cluster}, {steps.ranks:,} ranks, {steps.cost}, planner {steps.planner}"]
    if steps.planned:
        least, most = duration(min(steps.seconds)), duration(max(steps.seconds))
        lines += [
            f"  step     {duration(steps.step_s)} ({least} to {most}), {steps.steps_per_s:,.3g} steps/s, "
            f"{steps.tokens_per_s:,.0f} tokens/s, idle {share_text(steps.idle_share)}",
            f"  epoch    {steps.epoch_steps:,} steps, {duration(steps.epoch_s)}",
        ]
    if steps.left_out:
        lines.append(f"  left out {steps.left_out:,} samples that no plan holds (on_too_long)")
    lines += [f"  no plan  for {count:,} batches: {reason}" for reason, count in steps.without_plan.items()]
    return lines


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for limit, scale, unit in ((1, 1e3, "ms"), (120, 1, "s"), (7200, 1 / 60, "min"), (float("inf"), 1 / 3600, "h")):
        if seconds < limit:
            value = seconds * scale
            return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} {unit}"
    return ""


def _table(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Columns, aligned to the left (<) or right (>)."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(sides))]
    return [
        "  " + "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


__all__ = ["duration", "share_text", "spread_line", "text_of", "top_text"]
