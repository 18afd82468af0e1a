"""The page of `dhp index --stats`, in a real browser where there is one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browser import OVERLAPS, Page, browser_page, find_browser
from dhp.stats.figures import Batches, Long, Share, Stats, Steps
from dhp.stats.page import page_of
from dhp.stats.spread import spread_of

pytest.importorskip("plotly")
np = pytest.importorskip("numpy")

needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")
HOSTILE = [
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=document.title='broken'>.mp4",
    '<a href="javascript:alert(1)">link</a> {{DATA}} %{x}',
    "x" * 400,
]


def made_stats(name: str = "/data/captions.jsonl", most: int = 40_000, count: int = 20) -> Stats:
    draw = np.random.default_rng(0)
    lengths = np.clip(draw.lognormal(6.5, 1.3, 4000), 12, most).astype(np.int64)
    drawn = draw.choice(lengths, (count, 64))
    seconds = (0.5 + draw.random(count)).tolist()
    return Stats(
        data=[name],
        samples=4000,
        tokens=int(lengths.sum()),
        patches=123_456,
        label_tokens=4321,
        lengths=spread_of(lengths),
        shares=[Share("text", 0.2, 0.1), Share("pictures", 0.5, 0.3), Share("clips", 0.4, 0.6)],
        records=4000,
        longest=[Long(f"{name}:{n}", most - n, 4 * most, [HOSTILE[n % len(HOSTILE)]]) for n in range(5)],
        batches=Batches(
            size=64,
            count=count,
            tokens=spread_of(drawn.sum(axis=1)),
            longest=spread_of(drawn.max(axis=1)),
            longest_over_mean=8.0,
            top=6,
            top_share=0.5,
            tokens_each=drawn.sum(axis=1).tolist(),
            longest_each=drawn.max(axis=1).tolist(),
        ),
        steps=Steps(
            cluster="h100-2x8",
            cost=HOSTILE[0],
            planner="free",
            ranks=16,
            planned=count,
            seconds=seconds,
            step_s=sum(seconds) / count,
            steps_per_s=1.0,
            tokens_per_s=1e5,
            idle_share=0.03,
            epoch_steps=62,
            epoch_s=62.0,
            without_plan={HOSTILE[1]: 1},
            left_out=3,
        ),
    )


def data_of(page: str) -> Any:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_names_cannot_break_out_of_the_page() -> None:
    text = page_of(made_stats(name=HOSTILE[0]))
    assert "document.title='broken'</script>" not in text and "<img src=x" not in text
    assert "{{DATA}}" in text, "a name is no placeholder"


def test_figures_are_what_plotly_knows() -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    figures = data_of(page_of(made_stats()))["figures"]
    assert set(figures) == {"lengths", "kinds", "batches", "steps"}
    for figure in figures.values():
        graph_objects.Figure(json.loads(json.dumps(figure).replace('"soft"', '"#000000"')))
    lengths = figures["lengths"]["data"]
    assert [sum(trace["y"]) for trace in lengths] == pytest.approx([100, 100])


def test_what_is_not_known_is_left_out() -> None:
    text = page_of(replace(made_stats(), batches=None, steps=None))
    assert set(data_of(text)["figures"]) == {"lengths", "kinds"}
    assert 'id="steps"' not in text and 'id="batches"' not in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with browser_page() as page:
        yield page


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(390, True), (820, False), (1280, False)])
def test_it_is_drawn_whole(browser: Page, tmp_path: Path, width: int, dark: bool) -> None:
    for number, stats in enumerate([made_stats(), made_stats(HOSTILE[2], 2_000_000, 100), made_stats("x", 20, 1)]):
        browser.problems.clear()
        (tmp_path / f"{number}.html").write_text(page_of(stats))
        browser.open(tmp_path / f"{number}.html", width=width, dark=dark)
        marks = """Object.fromEntries([...document.querySelectorAll("section .js-plotly-plot")].map((chart) =>
          [chart.closest("section").id, chart.querySelectorAll(".barlayer .point path").length]))"""
        drawn = browser.value(marks)
        assert set(drawn) == {"lengths", "kinds", "batches", "steps"}
        assert stats.batches and drawn["batches"] == 2 * stats.batches.count and drawn["steps"] == stats.batches.count
        assert browser.value(OVERLAPS) == []
        assert "broken" not in browser.value("document.title")
        assert browser.value("document.querySelectorAll('img, a[href^=javascript]').length") == 0
        assert browser.problems == []
