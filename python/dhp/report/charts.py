"""The charts of a report but the timeline: plain Plotly figures, dictionaries of data and layout.

Colours that depend on light or dark have the names that page.css gives them; page.js looks them up. A chart that the
results hold no data for is a text instead: why it is left out.
"""

from __future__ import annotations

import html
import itertools
import math
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from dhp.report.summary import (
    CAUSE_NAMES,
    Summary,
    comparable,
    compare_times,
    counted_tasks,
    percent,
    seconds_text,
    step_pairs,
    why_not_comparable,
)
from dhp.watch.result import Columns, Result

Figure = dict[str, Any]

# Okabe and Ito's palette, told apart by colour-blind readers (Wong, Nature Methods 8, 441, 2011), its yellow left out:
# it vanishes on white.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
YELLOW = "#F0E442"
PALETTE = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY]
DASHES = ["solid", "dash", "dot", "dashdot"]
MARKERS = ["circle", "square", "diamond", "triangle-up", "cross", "x"]
INK, QUIET = "soft", "quiet"  # of lines over a chart, and of what matters less
CAUSE_COLOURS = {"peer": VERMILION, "transfer": ORANGE, "data": PURPLE, "no_task": QUIET}
# Ends a hover text with the trace's name, by reference: a name within the template could hold placeholders of its own.
NAMED = "<extra>%{fullData.name}</extra>"

_AXIS = {"gridcolor": "grid", "zerolinecolor": "grid", "linecolor": "quiet"}
TEMPLATE = {
    "margin": {"l": 12, "r": 16, "t": 12, "b": 12, "pad": 4},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif", "size": 13, "color": "ink"},
    "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal", "maxheight": 240},
    "hoverlabel": {
        "bgcolor": "paper",
        "bordercolor": "quiet",
        "font": {"color": "ink"},
        "namelength": -1,
        "align": "left",
    },
    "modebar": {"color": "quiet", "activecolor": "soft", "bgcolor": "rgba(0,0,0,0)"},
    "xaxis": _AXIS,
    "yaxis": _AXIS,
}  # of every chart's layout

MOST_POINTS = 2000  # of a scatter, a result
GRID_POINTS = 400  # of memory over time
GIB = 2.0**30


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def line(index: int) -> dict[str, Any]:
    """Colour and dash: results that share a colour differ in dash."""
    return {"color": colour(index), "dash": DASHES[index // len(PALETTE) % len(DASHES)], "width": 2}


def marker(index: int) -> dict[str, Any]:
    return {"color": colour(index), "symbol": MARKERS[index % len(MARKERS)]}


def wrapped(label: str, width: int = 34) -> str:
    """A name as Plotly shows it: no markup of its own, broken into lines of `width`, four at most. On a phone legends
    have room for 34 characters, bars for 22."""
    lines = textwrap.wrap(label, width, max_lines=4, placeholder=" …") or [" "]
    return "<br>".join(html.escape(text, quote=False) for text in lines)


def ticks(summaries: list[Summary]) -> list[str]:
    """Wrapped labels, still unique: bars with one name would fall on one another."""
    names = [wrapped(summary.label, 22) for summary in summaries]
    return [f"{name}<br>#{i + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def bar_height(names: list[str]) -> int:
    """All rows are as high as the label of most lines needs."""
    lines = max(name.count("<br>") + 1 for name in names)
    return 110 + max(34, 17 * lines + 10) * len(names)


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title}, "automargin": True, **more}


def log_scale(low: float, high: float, room: float) -> dict[str, Any]:
    """A logarithmic axis from low / room to high * room, labelled with numbers: Plotly's own labels are digits."""
    low, high = math.log10(low / room), math.log10(high * room)
    steps = (1, 1.5, 2, 3, 5, 7) if high - low < 0.8 else (1, 2, 5) if high - low < 2.5 else (1,)
    values = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    values = [value for value in values if low <= math.log10(value) <= high]
    return {"type": "log", "range": [low, high], "tickvals": values, "ticktext": [f"{value:,.12g}" for value in values]}


def bars_layout(names: list[str], x: dict[str, Any]) -> dict[str, Any]:
    """The margin holds what _beside writes: a share of the axis would be too narrow for it on a phone."""
    return {
        "height": bar_height(names),
        "margin": {"l": 12, "r": 50, "t": 12, "b": 12, "pad": 4},
        "xaxis": x,
        "yaxis": {
            "automargin": True,
            "ticks": "",
            "tickfont": {"size": 12},
            # Rows by number: Plotly loses categories of some names ("__proto__").
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "range": [len(names) - 0.5, -0.5],
            "showgrid": False,
            "zeroline": False,
        },
        "bargap": 0.35,
    }


# --- where the time goes


def idle(results: list[Result], summaries: list[Summary]) -> Figure | str:
    known = [s for s in summaries if s.idle_shares]
    if not known:
        return "no result says why ranks were idle (steps[].idle_s)"
    names, data = ticks(known), []
    for cause, name in CAUSE_NAMES.items():
        shares = [s.idle_shares.get(cause, 0.0) * 100 for s in known]
        if any(cause in s.idle_shares for s in known):
            data.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": name,
                    "x": shares,
                    "y": list(range(len(known))),
                    "marker": {"color": CAUSE_COLOURS[cause]},
                    "hovertemplate": "%{x:.2f} % of rank time" + NAMED,
                }
            )
    most = max((s.idle_share or 0.0) for s in known) * 100
    layout = bars_layout(names, axis("% of all ranks' time", range=[0, max(most * 1.02, 1.0)]))
    layout["annotations"] = [
        _beside((s.idle_share or 0.0) * 100, i, percent(s.idle_share or 0.0)) for i, s in enumerate(known)
    ]
    return {"data": data, "layout": layout | {"barmode": "stack"}}


def _beside(x: float, y: int, text: str) -> dict[str, Any]:
    """A number at the end of a bar."""
    return {"x": x, "y": y, "text": text, "showarrow": False, "xanchor": "left", "xshift": 4}


def speedup(results: list[Result], summaries: list[Summary]) -> Figure | str:
    groups = comparable(summaries)
    if not groups:
        return why_not_comparable(summaries)
    shown = [s for group in groups for s in sorted(group, key=lambda s: s.step_s)]
    names = ticks(shown)
    factors = [s.speedup or 1.0 for s in shown]
    baselines = [s.label == s.baseline for s in shown]
    data = {
        "type": "bar",
        "orientation": "h",
        "x": factors,
        "y": list(range(len(shown))),
        "marker": {"color": [QUIET if base else BLUE for base in baselines]},
        "customdata": [[html.escape(s.baseline or ""), seconds_text(s.step_s)] for s in shown],
        "hovertemplate": "%{x:.3f} × %{customdata[0]}, %{customdata[1]} a step<extra></extra>",
    }
    layout = bars_layout(names, axis("× baseline (grey)", range=[0, max(factors) * 1.02]))
    layout["annotations"] = [_beside(s.speedup or 1.0, i, f"{s.speedup:.2f}×") for i, s in enumerate(shown)]
    layout["shapes"] = [_line("x", 1.0)]
    return {"data": [data], "layout": layout}


def _line(across: str, value: float, **more: Any) -> dict[str, Any]:
    """A dashed line at a value of the axis `across`."""
    other = "y" if across == "x" else "x"
    return {
        "type": "line",
        f"{across}0": value,
        f"{across}1": value,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": {"color": INK, "width": 1, "dash": "dot"},
        **more,
    }


def planning(results: list[Result], summaries: list[Summary]) -> Figure | str:
    known = [s for s in summaries if s.planning_s]
    if not known:
        return "no result has planning times (steps[].planning_s)"
    names = ticks(known)
    data: list[dict[str, Any]] = []
    for i, (summary, name) in enumerate(zip(known, names, strict=True)):
        times = [step.planning_s * 1e3 for step in summary.counted if step.planning_s]
        data.append(
            {
                "type": "box",
                "orientation": "h",
                "name": name,
                "x": times,
                "y": [i] * len(times),
                "width": 0.6,
                "boxpoints": "all" if len(times) <= 50 else "outliers",
                "jitter": 0.5,
                "pointpos": 0,
                "marker": {"color": BLUE, "size": 4, "opacity": 0.6},
                "line": {"color": BLUE, "width": 1.5},
                "showlegend": False,
                "hovertemplate": "%{x:.3g} ms<extra></extra>",
            }
        )
    values = [value for trace in data for value in trace["x"]]
    low, high = min(values), max(values)
    x = axis("ms a step", **log_scale(low, high, 1.25))
    return {"data": data, "layout": bars_layout(names, x) | {"boxgap": 0.4}}


# --- what was trained on


def lengths(results: list[Result], summaries: list[Summary]) -> Figure | str:
    """How many sequences are how long, and how much of all tokens they hold: the reason for it all."""
    sets: dict[bytes, tuple[str, np.ndarray]] = {}
    for result, summary in zip(results, summaries, strict=True):
        if result.lengths is not None and result.lengths.size:
            sets.setdefault(np.sort(result.lengths).tobytes(), (summary.label, result.lengths))
    if not sets:
        return "no result has the lengths of its sequences (lengths)"
    every = np.concatenate([values for _, values in sets.values()])
    low = math.floor(2 * math.log2(max(1, every.min()))) / 2
    high = max(math.ceil(2 * math.log2(max(2, every.max() + 1))) / 2, low + 0.5)
    edges = np.arange(low, high + 0.25, 0.5)
    centres = ((edges[:-1] + edges[1:]) / 2).tolist()
    ranges = [f"{math.ceil(2**a):,} to {math.ceil(2**b) - 1:,} tokens" for a, b in itertools.pairwise(edges)]
    data = []
    for i, (label, values) in enumerate(sets.values()):
        logs = np.log2(np.maximum(values, 1))
        alone = len(sets) == 1
        shares = {"sequences": np.histogram(logs, edges)[0] / values.size}
        if alone and values.sum() > 0:
            shares["tokens"] = np.histogram(logs, edges, weights=values.astype(float))[0] / values.sum()
        for j, (what, share) in enumerate(shares.items()):
            name = f"share of {what}" if alone else wrapped(label)
            trace: dict[str, Any] = {
                "name": name,
                "x": centres,
                "y": (share * 100).tolist(),
                "customdata": ranges,
                "hovertemplate": "%{customdata}: %{y:.1f} %" + NAMED,
            }
            if alone:
                trace |= {"type": "bar", "marker": {"color": [BLUE, ORANGE][j]}}
            else:
                trace |= {"type": "scatter", "mode": "lines", "line": line(i) | {"shape": "hvh"}}
            data.append(trace)
    powers = list(range(math.floor(low), math.ceil(high) + 1))
    step = max(1, len(powers) // 10)
    x = axis(
        "tokens of a sequence",
        tickvals=powers[::step],
        ticktext=[f"{2**power:,}" for power in powers[::step]],
        range=[low - 0.1, high + 0.1],
    )
    y = axis("%" if len(sets) == 1 else "% of sequences", rangemode="tozero")
    return {"data": data, "layout": {"height": 340, "xaxis": x, "yaxis": y, "bargap": 0.12}}


# --- memory


def memory(results: list[Result], summaries: list[Summary]) -> Figure | str:
    data, budgets = [], set()
    shown = [
        (i, result.memory, summary)
        for i, (result, summary) in enumerate(zip(results, summaries, strict=True))
        if result.memory is not None and result.memory.peak_bytes is not None
    ]
    if not shown:
        return "no result has the memory of its ranks (memory.peak_bytes)"
    for i, held, summary in shown:
        assert held.peak_bytes is not None
        name = wrapped(summary.label)
        trace: dict[str, Any] = {
            "name": name,
            "x": list(range(summary.ranks)),
            "y": [round(value, 4) for value in (held.peak_bytes / GIB).tolist()],
            "hovertemplate": "rank %{x}: %{y:.2f} GiB" + NAMED,
        }
        if len(shown) == 1 and summary.ranks <= 128:
            trace |= {"type": "bar", "marker": {"color": BLUE}}
        else:
            trace |= {"type": "scatter", "mode": "lines", "line": line(i) | {"shape": "hvh", "width": 1.5}}
        data.append(trace)
        if held.budget_bytes:
            budgets.add(held.budget_bytes / GIB)
    most = max([*budgets, *(max(trace["y"]) for trace in data)])
    layout = {
        "height": 340,
        "xaxis": axis("rank", rangemode="tozero"),
        "yaxis": axis("GiB at the peak", range=[0, (most or 1.0) * 1.1]),
        "shapes": [_line("y", budget) for budget in sorted(budgets)[:4]],
        "annotations": [_budget_label(budget) for budget in sorted(budgets)[:4]],
    }
    return {"data": data, "layout": layout}


def _budget_label(budget: float) -> dict[str, Any]:
    text = f"budget {budget:.3g} GiB"
    return {
        "text": text,
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": budget,
        "yanchor": "bottom",
        "showarrow": False,
    }


def memory_over_time(results: list[Result], summaries: list[Summary]) -> Figure | str:
    """The fullest rank and the mean of all, at every moment of the step."""
    data: list[dict[str, Any]] = []
    known = [result.memory is not None and result.memory.over_time is not None for result in results]
    for i, (result, summary) in enumerate(zip(results, summaries, strict=True)):
        points = result.memory.over_time if result.memory else None
        if points is None or not points["rank"].size:
            continue
        times, fullest, mean = envelope(points, result.ranks)
        drawn = [("fullest rank", fullest, {}), ("mean", mean, {"dash": "dot", "width": 1})]
        both = sum(known) <= 2
        for what, values, style in drawn[: 2 if both else 1]:
            title = wrapped(f"{what}: {summary.label}" if both else summary.label)
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": title,
                    "x": [round(t, 6) for t in times.tolist()],
                    "y": [round(v, 4) for v in (values / GIB).tolist()],
                    "line": line(i) | {"shape": "hv"} | style,
                    "hovertemplate": "%{x:.3f} s: %{y:.2f} GiB" + NAMED,
                }
            )
    if not data:
        return "no result has memory over time (memory.over_time)"
    layout = {"height": 320, "xaxis": axis("s from the start of the step"), "yaxis": axis("GiB", rangemode="tozero")}
    return {"data": data, "layout": layout}


def envelope(points: Columns, ranks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times of a grid; most bytes of any rank in the cell that begins there, and the ranks' mean at its begin. Between
    its points a rank's bytes change linearly; before the first and after the last it holds what these say."""
    end = float(points["time_s"].max())
    grid = np.linspace(0.0, end, GRID_POINTS) if end > 0 else np.zeros(1)
    fullest, total = np.zeros(grid.size), np.zeros(grid.size)
    order = np.lexsort((points["time_s"], points["rank"]))  # stable: points at one time, a jump, stay in order
    rank, time, held = (points[key][order] for key in ("rank", "time_s", "bytes"))
    first = np.flatnonzero(np.r_[True, rank[1:] != rank[:-1]])
    for a, b in zip(first, np.r_[first[1:], rank.size], strict=True):
        now = np.interp(grid, time[a:b], held[a:b])
        total += now
        np.maximum(fullest, now, out=fullest)
        np.maximum.at(fullest, np.searchsorted(grid, time[a:b], side="right") - 1, held[a:b])
    return grid, fullest, total / ranks


# --- more ranks


def scaling(results: list[Result], summaries: list[Summary]) -> Figure | str:
    series = _scaling_series(summaries)
    if not series:
        return "no planner has results of two or more numbers of ranks"
    data, counts = [], sorted({s.ranks for members in series.values() for s in members})
    for i, (name, members) in enumerate(series.items()):
        first = members[0].tokens_per_s_per_rank or 1.0
        rates = [s.tokens_per_s_per_rank or 0.0 for s in members]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": wrapped(name),
                "x": [s.ranks for s in members],
                "y": rates,
                "customdata": [rate / first * 100 for rate in rates],
                "line": line(i),
                "marker": marker(i) | {"size": 8},
                "hovertemplate": "%{x} ranks: %{y:,.0f} tokens/s a rank, %{customdata:.0f} % of the first" + NAMED,
            }
        )
    x = axis("ranks", type="log", tickvals=counts, ticktext=[f"{count:,}" for count in counts])
    return {"data": data, "layout": {"height": 360, "xaxis": x, "yaxis": axis("tokens/s a rank", rangemode="tozero")}}


def _scaling_series(summaries: list[Summary]) -> dict[str, list[Summary]]:
    """Results that differ in the number of ranks alone, by name: planner, clock, and what is left of the result's name
    without its "64 ranks". Where that finds none, names do not count."""

    def grouped(by_name: bool) -> dict[str, list[Summary]]:
        groups: dict[tuple[str, ...], dict[int, list[Summary]]] = defaultdict(lambda: defaultdict(list))
        for s in summaries:
            if s.tokens_per_s_per_rank:
                key = (s.planner, s.kind, s.clock, *([_without_ranks(s)] if by_name else []))
                groups[key][s.ranks].append(s)
        found = {}
        for key, counts in groups.items():
            if len(counts) > 1 and all(len(same) == 1 for same in counts.values()):
                name = key[3] if by_name and key[3] else key[0]
                while name in found:
                    name += f" ({key[1]}, {key[2]})"
                found[name] = [counts[count][0] for count in sorted(counts)]
        return found

    return grouped(True) or grouped(False)


def _without_ranks(summary: Summary) -> str:
    return re.sub(rf"[\s,]*\b{summary.ranks}[\s_-]*ranks?\b", "", summary.label).strip(" ,")


# --- estimates


def estimates(results: list[Result], summaries: list[Summary], what: str) -> Figure | str:
    """Predicted against measured seconds of "tasks" or "steps"; a line where they are equal."""
    data, low, high = [], math.inf, 0.0
    for i, (result, summary) in enumerate(zip(results, summaries, strict=True)):
        pairs, text_of = _task_pairs(result, summary) if what == "tasks" else _step_pairs(summary)
        errors = compare_times(pairs[:, 0], pairs[:, 1])
        if errors is None:
            continue
        keep = (pairs[:, 0] > 0) & (pairs[:, 1] > 0)
        pairs, kept = pairs[keep], np.flatnonzero(keep)
        chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_POINTS)).astype(int))
        low, high = min(low, pairs.min()), max(high, pairs.max())
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": wrapped(summary.label),
                "x": [float(f"{value:.5g}") for value in pairs[chosen, 0]],
                "y": [float(f"{value:.5g}") for value in pairs[chosen, 1]],
                "text": [text_of(kept[c]) for c in chosen],
                "marker": marker(i) | {"size": 6 if len(chosen) < 300 else 4, "opacity": 0.65},
                "hovertemplate": "%{text}<br>predicted %{x:.4g} s, was %{y:.4g} s<extra></extra>",
            }
        )
    if not data:
        return f"no result has predicted and actual seconds of {what} ({what}[].predicted_s, {what}[].seconds)"
    ends = [low / 1.15, high * 1.15]
    equal: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": ends, "y": ends, "hoverinfo": "skip"}
    data.insert(0, equal | {"line": {"color": INK, "width": 1, "dash": "dot"}, "showlegend": False})
    scale = log_scale(low, high, 1.15) if high > 6 * low else {"range": ends, "nticks": 6}
    y = axis(f"was, s a {what[:-1]}", **scale)
    return {"data": data, "layout": {"height": 380, "xaxis": axis(f"predicted, s a {what[:-1]}", **scale), "yaxis": y}}


def _task_pairs(result: Result, summary: Summary) -> tuple[np.ndarray, Callable[[int], str]]:
    if result.tasks is None:
        return np.zeros((0, 2)), str
    tasks = {key: column[counted_tasks(result, summary.counted)] for key, column in result.tasks.items()}

    def text_of(i: int) -> str:
        parts = ((key if key != "degree" else "ranks", int(tasks[key][i])) for key in ("degree", "sequences", "tokens"))
        return f"step {tasks['step'][i]}, task {tasks['id'][i]}: " + ", ".join(
            f"{n:,} {key}" for key, n in parts if n >= 0
        )

    return np.stack([tasks["predicted_s"], tasks["seconds"]], axis=1), text_of


def _step_pairs(summary: Summary) -> tuple[np.ndarray, Callable[[int], str]]:
    steps = [step.step for step in summary.counted if step.predicted_s is not None]
    return step_pairs(summary.counted), lambda i: f"step {steps[i]}"
