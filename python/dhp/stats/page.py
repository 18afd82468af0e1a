"""The numbers as a page, put together as that of `dhp report`: one file that holds all it needs. Names of data are
escaped, in HTML and in Plotly's labels."""

from __future__ import annotations

import html
import math
from typing import Any

from dhp.report.charts import BLUE, GREEN, ORANGE, SKY, TEMPLATE, Figure, axis
from dhp.report.page import put_together, section
from dhp.stats.figures import Batches, Stats, Steps
from dhp.stats.spread import Spread
from dhp.stats.text import duration, share_text, top_text

_LONGEST_NAME = 160  # characters of a medium's name, from its end


def page_of(stats: Stats) -> str:
    figures: dict[str, Figure] = {"lengths": _lengths(stats.lengths), "kinds": _kinds(stats)}
    of = "of all samples" if stats.records == stats.samples else f"of {stats.records:,} samples, drawn evenly"
    sections = [
        section("lengths", "Lengths", "Samples by their tokens, in bins of half a doubling, and the tokens they hold."),
        section(
            "kinds", "Kinds", f"Samples of text alone; a sample with pictures and clips counts as both. Tokens: {of}."
        ),
    ]
    if stats.batches:
        figures["batches"] = _batch_chart(stats.batches)
        text = f"Each is of {stats.batches.size:,} samples, drawn as training draws them, evenly over an epoch."
        sections.append(section("batches", "Batches", text))
    if stats.steps and stats.steps.planned:
        figures["steps"] = _step_chart(stats.steps)
        text = "Simulated, with errors of estimates, gradients and optimizer: the same batches, planned."
        sections.append(section("steps", "Steps", text))
    sections.append(_longest(stats))
    values = {
        "TAB": "dhp index",
        "TITLE": html.escape(_title(stats)),
        "VERDICTS": _sentences(stats),
        "TABLE": _table(stats),
        "NOTES": html.escape(_notes(stats)),
        "TIMELINE": "",
        "SECTIONS": "\n".join(sections),
        "LEFT_OUT": "",
    }
    return put_together(values, {"figures": figures, "timelines": [], "kinds": [], "template": TEMPLATE})


def _title(stats: Stats) -> str:
    name = stats.data[0].rpartition("/")[2] if len(stats.data) == 1 else f"{len(stats.data)} files"
    return f"{name}: {stats.samples:,} samples, {stats.tokens:,} tokens"


def _sentences(stats: Stats) -> str:
    lengths = stats.lengths
    said = [
        f"Half of the samples have up to {lengths.percentiles['p50']:,.0f} tokens, one in a hundred more than "
        f"{lengths.percentiles['p99']:,.0f}, the longest {lengths.most:,.0f}."
    ]
    if batches := stats.batches:
        said.append(
            f"In a batch of {batches.size:,}, the longest sample is {batches.longest_over_mean:.1f} times as long as "
            f"the mean, and {top_text(batches)}."
        )
    if steps := stats.steps:
        if steps.planned:
            said.append(
                f"On {steps.ranks:,} ranks a step takes {duration(steps.step_s)} ({steps.steps_per_s:,.3g} steps/s, "
                f"{steps.tokens_per_s:,.0f} tokens/s), and an epoch {duration(steps.epoch_s)}."
            )
        said += [f"No plan for {count:,} batches: {reason}" for reason, count in steps.without_plan.items()]
        if steps.left_out:
            said.append(f"{steps.left_out:,} samples are left out, since no plan holds them.")
    return f"<ul>{''.join(f'<li>{html.escape(one)}</li>' for one in said)}</ul>"


def _table(stats: Stats) -> str:
    spreads = [("tokens of a sample", stats.lengths)]
    if stats.batches:
        spreads += [("tokens of a batch", stats.batches.tokens), ("longest of a batch", stats.batches.longest)]
    names = ["mean", "least", *stats.lengths.percentiles, "most"]
    head = "<th></th>" + "".join(f'<th class="n">{name}</th>' for name in names)
    rows = ""
    for title, one in spreads:
        numbers = [one.mean, one.least, *one.percentiles.values(), one.most]
        rows += f"<tr><td>{title}</td>" + "".join(f'<td class="n">{value:,.0f}</td>' for value in numbers) + "</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _notes(stats: Stats) -> str:
    said = [f"{stats.label_tokens:,} tokens with a loss, {stats.patches:,} patches."]
    if steps := stats.steps:
        said.append(
            f"Steps: {steps.cluster}, {steps.cost}, planner {steps.planner}, idle {share_text(steps.idle_share)}; "
            f"an epoch has {steps.epoch_steps:,} steps."
        )
    if len(stats.data) > 1:
        said.append(f"Files: {', '.join(stats.data[:20])}{' …' if len(stats.data) > 20 else ''}.")
    return " ".join(said)


def _longest(stats: Stats) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(_end_of(one.name))}</td>"
        f'<td class="n">{one.tokens:,}</td><td class="n">{one.patches:,}</td>'
        f"<td>{html.escape(', '.join(map(_end_of, one.media)))}</td></tr>"
        for one in stats.longest
    )
    head = '<th>sample</th><th class="n">tokens</th><th class="n">patches</th><th>media</th>'
    table = f'<div class="scroll small"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f'<section id="longest"><h2>Longest samples</h2>{table}</section>'


def _end_of(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME:]}"


# ---- charts ---------------------------------------------------------------------------------------------------------


def _lengths(spread: Spread) -> Figure:
    centres = [(math.log2(one.least) + math.log2(one.end)) / 2 for one in spread.bins]
    ranges = [f"{math.ceil(one.least):,} to {math.ceil(one.end) - 1:,} tokens" for one in spread.bins]
    shares = {
        "share of samples": (BLUE, [one.count / spread.count for one in spread.bins]),
        "share of tokens": (ORANGE, [one.total / spread.total for one in spread.bins]),
    }
    data = [_bars(name, centres, [100 * s for s in share], colour, ranges) for name, (colour, share) in shares.items()]
    powers = range(math.floor(math.log2(spread.bins[0].least)), math.ceil(math.log2(spread.bins[-1].end)) + 1)
    some = list(powers)[:: math.ceil(len(powers) / 8)]
    texts = [f"{2**power:,}" for power in some]
    x = axis("tokens of a sample", tickvals=some, ticktext=texts, range=[powers[0] - 0.1, powers[-1] + 0.1])
    return {"data": data, "layout": {"height": 340, "xaxis": x, "yaxis": axis("%", rangemode="tozero"), "bargap": 0.12}}


def _kinds(stats: Stats) -> Figure:
    names = [one.name for one in stats.shares]
    shares = {
        "share of samples": (BLUE, [100 * one.samples for one in stats.shares]),
        "share of tokens": (ORANGE, [100 * one.tokens for one in stats.shares]),
    }
    at = list(range(len(names)))
    data = [_bars(title, at, values, colour, names) for title, (colour, values) in shares.items()]
    x = axis("", tickvals=at, ticktext=names)
    y = axis("%", rangemode="tozero")
    return {"data": data, "layout": {"height": 300, "xaxis": x, "yaxis": y, "bargap": 0.3}}


def _bars(name: str, x: list[Any], y: list[float], colour: str, texts: list[str]) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "x": x,
        "y": y,
        "customdata": texts,
        "marker": {"color": colour},
        "hovertemplate": "%{customdata}: %{y:.1f} %<extra>%{fullData.name}</extra>",
    }


def _batch_chart(batches: Batches) -> Figure:
    places = [str(number + 1) for number in range(batches.count)]
    data = []
    for name, values, colour in (
        ("tokens", batches.tokens_each, SKY),
        ("in the longest sample", batches.longest_each, BLUE),
    ):
        data.append(
            {
                "type": "bar",
                "name": name,
                "x": list(range(1, batches.count + 1)),
                "y": values,
                "customdata": places,
                "marker": {"color": colour},
                "hovertemplate": "batch %{customdata}: %{y:,} tokens<extra>%{fullData.name}</extra>",
            }
        )
    x = axis("batch", dtick=max(1, batches.count // 10))
    layout = {"height": 320, "xaxis": x, "yaxis": axis("tokens", rangemode="tozero"), "barmode": "overlay"}
    return {"data": data, "layout": layout | {"bargap": 0.2}}


def _step_chart(steps: Steps) -> Figure:
    bars = {
        "type": "bar",
        "name": "step",
        "x": list(range(1, steps.planned + 1)),
        "y": steps.seconds,
        "marker": {"color": GREEN},
        "hovertemplate": "batch %{x}: %{y:.3g} s<extra></extra>",
    }
    mean = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": steps.step_s, "y1": steps.step_s}
    x = axis("batch", dtick=max(1, steps.planned // 10))
    layout = {"height": 320, "xaxis": x, "yaxis": axis("s", rangemode="tozero"), "bargap": 0.2, "showlegend": False}
    return {"data": [bars], "layout": layout | {"shapes": [mean | {"line": {"color": "soft", "dash": "dash"}}]}}


__all__ = ["page_of"]
