"""Puts the page together: one HTML file that holds all it needs."""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import Any

from dhp.report import charts, timeline
from dhp.report.summary import CAUSE_NAMES, Errors, Summary, headline, left_out_of_labels, percent, seconds_text
from dhp.watch.result import Result

CLOCKS = {
    "simulated": "simulated",
    "emulated": "emulated: the plan replayed with the CPU seconds that its tasks took",
    "wall": "wall time",
}
MOST_VERDICTS = 6  # open; the rest folds away

# Key, title, what it shows.
SECTIONS = [
    (
        "timeline",
        "Who did what when",
        "Each row is a rank. Drag to zoom, double-click for all; point at a bar for its task.",
    ),
    ("idle", "Why ranks were idle", "Rank time in which nothing was computed, by cause, over all counted steps."),
    ("speedup", "Speed-up", "Step time of the baseline over the result's: the same batches on as many ranks."),
    ("scaling", "Scaling", "Throughput a rank as ranks are added; level is ideal."),
    (
        "tasks",
        "Estimates against tasks",
        f"Each point is a task, {charts.MOST_POINTS:,} a result at most. Above the line it took longer than predicted.",
    ),
    (
        "steps",
        "Estimates against steps",
        "Each point is a step: the plan's prediction, and what its tasks took together.",
    ),
    ("planning", "Planning time", "Time to draw, plan and check each step's batch, while the step before trains."),
    ("lengths", "Lengths", "The sequences of the step in the timeline, in bins of half a doubling."),
    ("memory", "Memory by rank", "Activations of each rank at their peak, against what it has for them."),
    ("memory_over_time", "Memory over time", "Activations in the step of the timeline."),
]


def figures(results: list[Result], summaries: list[Summary]) -> tuple[dict[str, Any], dict[str, str]]:
    """All charts but the timeline by section, and why each of the other sections is left out."""
    made: dict[str, Any] = {
        "idle": charts.idle(results, summaries),
        "speedup": charts.speedup(results, summaries),
        "scaling": charts.scaling(results, summaries),
        "tasks": charts.estimates(results, summaries, "tasks"),
        "steps": charts.estimates(results, summaries, "steps"),
        "planning": charts.planning(results, summaries),
        "lengths": charts.lengths(results, summaries),
        "memory": charts.memory(results, summaries),
        "memory_over_time": charts.memory_over_time(results, summaries),
    }
    drawn = {key: figure for key, figure in made.items() if not isinstance(figure, str)}
    return drawn, {key: reason for key, reason in made.items() if isinstance(reason, str)}


def page(results: list[Result], summaries: list[Summary]) -> tuple[str, dict[str, str]]:
    """The page, and why sections are left out of it."""
    drawn, left_out = figures(results, summaries)
    spans, note = timeline.timelines(results, summaries)
    if not spans:
        left_out["timeline"] = note
    data = {"figures": drawn, "timelines": spans, "kinds": timeline.KINDS, "template": charts.TEMPLATE}
    below = {
        "timeline": f'<p class="quiet">{html.escape(note)}</p>' if note else "",
        "tasks": _error_table(summaries, "tasks", [s.task_errors for s in summaries]),
        "steps": _error_table(summaries, "steps", [s.step_errors for s in summaries]),
    }
    parts = {key: section(key, title, text, below.get(key, "")) for key, title, text in SECTIONS if key not in left_out}
    values = {
        "TAB": "dhp report",
        "TITLE": html.escape(headline(summaries)),
        "VERDICTS": _verdicts(summaries),
        "TABLE": _table(summaries),
        "NOTES": _notes(results, summaries),
        "TIMELINE": parts.pop("timeline", ""),
        "SECTIONS": "\n".join(parts.values()),
        "LEFT_OUT": _left_out(left_out),
    }
    return put_together(values, data), left_out


def put_together(values: dict[str, str], data: dict[str, Any]) -> str:
    """A page of HTML: what stands in page.html's places by name, escaped already, and the figures for page.js."""
    from plotly.offline import get_plotlyjs

    # Only "<" can end a script element early or open a comment in it.
    text_of_data = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    values = {
        **values,
        "STYLE": _part("page.css"),
        "DATA": text_of_data,
        "PLOTLY": get_plotlyjs(),
        "SCRIPT": _part("page.js"),
    }
    pieces = _part("page.html").split("{{")
    text = pieces[0]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        text += values[name] + rest
    return text


def _part(name: str) -> str:
    return (resources.files("dhp.report") / name).read_text(encoding="utf-8")


def section(key: str, title: str, text: str, below: str = "") -> str:
    """A chart with its title, and what stands below it, escaped already."""
    tools = '<div class="tools"></div>' if key == "timeline" else ""
    return (
        f'<section id="{key}"><h2>{title}</h2><p>{html.escape(text)}</p>{tools}'
        f'<div class="chart"></div>{below}</section>'
    )


def _error_table(summaries: list[Summary], what: str, errors: list[Errors | None]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(s.label)}</td>"
        + "".join(
            f'<td class="n">{text}</td>'
            for text in (f"{e.count:,}", percent(e.mean_absolute), percent(e.percentile95), percent(e.bias))
        )
        + "</tr>"
        for s, e in zip(summaries, errors, strict=True)
        if e is not None
    )
    names = ("mean error", "95th percentile", "bias")
    head = f'<th>result</th><th class="n">{what}</th>' + "".join(f'<th class="n">{name}</th>' for name in names)
    return f'<div class="scroll small"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _verdicts(summaries: list[Summary]) -> str:
    rows = [f"<li><b>{html.escape(s.label)}</b> {html.escape(s.verdict)}</li>" for s in summaries]
    text = f"<ul>{''.join(rows[:MOST_VERDICTS])}</ul>"
    if len(rows) > MOST_VERDICTS:
        more = len(rows) - MOST_VERDICTS
        text += f"<details><summary>{more} more</summary><ul>{''.join(rows[MOST_VERDICTS:])}</ul></details>"
    return text


def _table(summaries: list[Summary]) -> str:
    """The summary table; columns that no result fills are left out."""
    columns: list[tuple[str, list[str], bool]] = [
        ("result", [html.escape(s.label) for s in summaries], False),
        ("planner", [html.escape(s.planner) for s in summaries], False),
        ("ranks", [f"{s.ranks:,}" for s in summaries], True),
        ("step", [_step_text(s) for s in summaries], True),
        ("predicted", [_known(s.predicted_s, seconds_text) for s in summaries], True),
        ("expected", [_known(s.expected_s, seconds_text) for s in summaries], True),
        ("over bound", [_known(s.over_bound, percent) for s in summaries], True),
        ("idle", [_known(s.idle_share, percent) for s in summaries], True),
        ("mostly", [_mostly(s) for s in summaries], False),
        ("tokens/s", [_known(s.tokens_per_s, _rate) for s in summaries], True),
        ("speed-up", [_known(s.speedup, lambda value: f"{value:.2f}×") for s in summaries], True),
        ("planning", [_known(s.planning_s, seconds_text) for s in summaries], True),
        ("peak memory", [_known(s.peak_memory_share, percent) for s in summaries], True),
        ("estimates", [_known(s.task_errors or s.step_errors, _errors) for s in summaries], True),
    ]
    columns = [column for column in columns if any(column[1])]
    same = {"planner": columns[0][1] == columns[1][1], "ranks": len({s.ranks for s in summaries}) == 1}
    columns = [column for column in columns if not same.get(column[0])]
    head = "".join(f'<th class="{"n" if number else ""}">{name}</th>' for name, _, number in columns)
    rows = (
        "<tr>" + "".join(f'<td class="{"n" if c[2] else ""}">{c[1][i]}</td>' for c in columns) + "</tr>"
        for i in range(len(summaries))
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _known(value: Any, text: Any) -> str:
    return "" if value is None else text(value)


def _rate(value: float) -> str:
    return f"{value:,.0f}"


def _step_text(s: Summary) -> str:
    text = seconds_text(s.step_s)
    if s.steps > 1:
        text += f"<small>{seconds_text(s.step_least_s)} to {seconds_text(s.step_most_s)}</small>"
    return text


def _mostly(s: Summary) -> str:
    worst = max(s.idle_shares, key=lambda cause: s.idle_shares[cause], default="")
    return CAUSE_NAMES[worst] if worst and s.idle_shares[worst] > 0 else ""


def _errors(errors: Errors) -> str:
    return f"± {percent(errors.mean_absolute)}"


def _notes(results: list[Result], summaries: list[Summary]) -> str:
    """How the numbers were made: what a reader must know to compare them."""
    steps = sorted({s.steps for s in summaries})
    counted = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    said = [f"{summaries[0].ranks:,} ranks."] if len({s.ranks for s in summaries}) == 1 else []
    said += [f"Means over {counted} step{'s' if steps[-1] != 1 else ''}, with the least and the most below."]
    if any(s.warm_up_left_out for s in summaries):
        said.append("The first step of a measured run, which warms up, is left out.")
    clocks = sorted({s.clock for s in summaries})
    if len(clocks) == 1:
        said.append(f"Times are {CLOCKS[clocks[0]]}.")
    else:
        for clock in clocks:
            names = ", ".join(s.label for s in summaries if s.clock == clock)
            said.append(f"Times of {names} are {CLOCKS[clock]}.")
    if any(s.over_bound is not None for s in summaries):
        said.append(
            "Over bound: how much longer the tasks of a step took than a bound, by the cost file, that no plan beats."
        )
    said.append(left_out_of_labels(results, summaries))
    return html.escape(" ".join(said).strip())


def _left_out(left_out: dict[str, str]) -> str:
    if not left_out:
        return ""
    titles = {key: title for key, title, _ in SECTIONS}
    items = "".join(f"<li>{titles[key]}: {html.escape(reason)}</li>" for key, reason in left_out.items())
    return f"<section id='left-out'><h2>Not shown</h2><ul>{items}</ul></section>"
