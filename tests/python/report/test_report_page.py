"""The page of `dhp report`, in a real browser where there is one."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from browser import OVERLAPS, Page, browser_page, find_browser
from dhp.report import cli
from dhp.report.page import figures
from dhp.report.page import page as make_page
from dhp.report.summary import summarize
from dhp.watch.result import read_result
from made_results import case, made_result, write_results
from small_result import SMALL, parsed


def test_figures_are_what_plotly_knows(tmp_path: Path) -> None:
    """plotly's Python classes know every attribute that plotly.js does, and refuse others."""
    graph_objects = pytest.importorskip("plotly.graph_objects")
    results = [read_result(file) for n in (8, 16) for file in write_results(tmp_path, n, ["free", "static:4"], steps=2)]
    drawn, left_out = figures(results, summarize(results))
    assert not left_out
    named = {"soft": "#000000", "quiet": "#999999"}  # set by page.js
    for figure in drawn.values():
        text = json.dumps(figure)
        for name, colour in named.items():
            text = text.replace(f'"{name}"', f'"{colour}"')
        graph_objects.Figure(json.loads(text))


def test_names_cannot_break_out_of_the_page() -> None:
    name = "</script><script>alert(1)</script> & <b>"
    results = [parsed(SMALL | {"name": name}), parsed(SMALL | {"name": "{{DATA}}"})]
    text, _ = make_page(results, summarize(results))
    assert "alert(1)</script>" not in text
    assert text.count("{{DATA}}") > 0, "a name is no placeholder"


# What a result of others may be called.
HOSTILE = [
    "<img src=x onerror=document.title='broken'>",
    '<a href="javascript:alert(1)">link</a>',
    "<b>bold</b><br>%{x} %{customdata[0]} {{DATA}}",
    "</script><script>document.title='broken'</script>",
    "quiet",
    "__proto__",
    "$x^2$ &lt;i&gt; <!--",
]

needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")

# Sections and the traces in each of them; checked against what the browser drew.
TRACES = """Object.fromEntries([...document.querySelectorAll("section .js-plotly-plot")].map((chart) => {
  const marks = chart.querySelectorAll(".scatterlayer .trace path, .barlayer .point path, .boxlayer path.box").length;
  const box = chart.querySelector(".plot, .bglayer").getBoundingClientRect();
  return [chart.closest("section").id, {traces: chart.data.length, marks, width: box.width, height: box.height}];
}))"""
AREA = """(() => { const box = document.querySelector("#timeline .nsewdrag").getBoundingClientRect();
  return [box.left, box.top, box.width, box.height]; })()"""


@pytest.fixture(scope="module")
def browser() -> Any:
    with browser_page() as page:
        yield page


@pytest.fixture(autouse=True)
def no_old_problems(request: pytest.FixtureRequest) -> None:
    if "browser" in request.fixturenames:
        request.getfixturevalue("browser").problems.clear()


def mixed_results(folder: Path) -> list[Path]:
    """Two simulations, with names as a sweep gives them, and two trained runs of other names."""
    folder.mkdir()
    where = "batch_openvid_512, cluster_910b_8x8, cost_qwen3-vl-8b_8192"
    files = []
    for i, (ranks, planner, more) in enumerate(
        [
            (16, "free", {"name": f"free, {where}"}),
            (16, "paper", {"name": f"paper, {where}"}),
            (4, "free", {"name": "free, train, 4 ranks", "kind": "measured", "clock": "emulated"}),
            (4, "static:4", {"name": "static:4, train, 4 ranks", "kind": "measured", "clock": "emulated"}),
            (16, "lockstep", {"name": "x" * 90}),
        ]
    ):
        files.append(folder / f"{i}.json")
        files[-1].write_text(json.dumps(made_result("", planner, case(ranks), steps=3) | more))
    return files


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """many.html: five planners on 64 ranks, two on 16 and 32; wide.html: 1,024 ranks; small.html; bare.html."""
    folder = tmp_path_factory.mktemp("pages")
    files = write_results(folder, 64, ["free", "lockstep", "paper", "balanced-static:4", "static:4"])
    files += write_results(folder, 16, ["free", "static:4"]) + write_results(folder, 32, ["free", "static:4"])
    cli.report([str(file) for file in files], str(folder / "many.html"))
    wide = write_results(folder, 1024, ["free", "static:8"], steps=2)
    cli.report([str(file) for file in wide], str(folder / "wide.html"))
    cli.report([str(file) for file in mixed_results(folder / "mixed")], str(folder / "mixed.html"))
    (folder / "small.json").write_text(json.dumps(SMALL | {"name": "</script><i>small</i>"}))
    cli.report([str(folder / "small.json")], str(folder / "small.html"))
    bare = {key: SMALL[key] for key in ("format", "kind", "name", "planner", "ranks", "clock")}
    (folder / "bare.json").write_text(json.dumps(bare | {"steps": [{"step": 1, "seconds": 2.0}]}))
    cli.report([str(folder / "bare.json")], str(folder / "bare.html"))
    return folder


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_every_chart_is_drawn(browser: Page, pages: Path, width: int, dark: bool) -> None:
    browser.open(pages / "many.html", width=width, dark=dark)
    drawn = browser.value(TRACES)
    assert {key: chart["traces"] for key, chart in drawn.items() if key != "timeline"} == {
        "idle": 4,
        "speedup": 1,
        "scaling": 2,
        "tasks": 1 + 9,
        "steps": 1 + 9,
        "planning": 9,
        "lengths": 3,
        "memory": 9,
        "memory_over_time": 9,
    }
    for key, chart in drawn.items():
        assert chart["marks"] >= chart["traces"] - 1, key  # an empty cause of idleness has no bars
        assert chart["width"] > 100 and chart["height"] > 40, key
    kinds = set(browser.value("document.querySelector('#timeline .chart').data.map((trace) => trace.name)"))
    assert kinds >= {"computing alone", "in groups of 2 to 3", "of 4 to 7", "waiting for a transfer", "no task"}
    assert browser.value(OVERLAPS) == []
    assert browser.value("document.querySelector('#left-out')") is None
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper.removeprefix("rgb(").rstrip(")").split(","))) < 384) == dark
    ink = browser.value("document.querySelector('#idle .chart')._fullLayout.font.color")
    assert ink == ("#e6e9ef" if dark else "#1d2330")
    assert browser.problems == []


@needs_browser
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_long_names_stay_apart(browser: Page, pages: Path, width: int) -> None:
    browser.open(pages / "mixed.html", width=width)
    assert browser.value(OVERLAPS) == []
    names = browser.value(
        "document.querySelector('#idle .chart').layout.yaxis.ticktext.map((name) => name.replaceAll('<br>', ' '))"
    )
    long = "batch_openvid_512, cluster_910b_8x8, cost_qwen3-vl-8b_8192"
    assert {name for name in names if "xx" not in name} == {f"free, {long}", f"paper, {long}", "free", "static:4"}
    assert browser.problems == []


@needs_browser
@pytest.mark.parametrize("name", ["many", "wide"])
def test_the_timeline_zooms_to_what_was_dragged_over(browser: Page, pages: Path, name: str) -> None:
    browser.open(pages / f"{name}.html")
    chart = "document.querySelector('#timeline .chart')"
    full = browser.value(f"{chart}.layout.xaxis.range")
    full_ranks = browser.value(f"{chart}.layout.yaxis.range")
    browser.value("window.scrollTo(0, document.querySelector('#timeline').offsetTop)")
    left, top, width, height = browser.value(AREA)
    browser.drag((left + 0.2 * width, top + 0.25 * height), (left + 0.6 * width, top + 0.75 * height))
    browser.wait(f"{chart}.layout.xaxis.range[0] > 0.1")
    span = full[1] - full[0]
    assert browser.value(f"{chart}.layout.xaxis.range") == pytest.approx(
        [full[0] + 0.2 * span, full[0] + 0.6 * span], abs=0.02 * span
    )
    rows = full_ranks[0] - full_ranks[1]
    assert browser.value(f"{chart}.layout.yaxis.range") == pytest.approx(
        [full_ranks[1] + 0.75 * rows, full_ranks[1] + 0.25 * rows], abs=0.04 * rows
    )
    browser.value(f"{chart}.querySelector('[data-title=\"Reset axes\"]').click()")
    browser.wait(f"{chart}.layout.xaxis.range[1] === {full[1]}")
    assert browser.problems == []


@needs_browser
def test_pointing_at_a_bar_names_its_task(browser: Page, pages: Path) -> None:
    browser.open(pages / "small.html")
    browser.value("window.scrollTo(0, document.querySelector('#timeline').offsetTop)")
    left, top, width, height = browser.value(AREA)

    def tip(rank: int, time_s: float, kind: str) -> str:
        browser.move((left + time_s / 4.0 * width, top + (rank + 0.5) / 2 * height))
        text = "document.querySelector('#timeline .chart')._hoverdata?.[0].text"
        browser.wait(f"({text} || '').startsWith('rank {rank}: {kind}<br>')")
        return browser.value(text).replace("<br>", "\n")

    assert tip(0, 1.0, "computing alone") == (
        "rank 0: computing alone\n2 s, from 0 s\ntask 1, 1 rank, 3 sequences, 300 tokens\npredicted 2.2 s, was 2 s"
    )
    assert "\n1.25 s, from 2 s\ntask 0, 2 ranks" in tip(1, 2.6, "in groups of 2 to 3")
    assert "\n0.5 s, from 0 s\n" in tip(1, 0.25, "waiting for a peer")
    assert tip(1, 1.0, "no task") == "rank 1: no task\n1.5 s, from 0.5 s"
    shown = "document.querySelector('#timeline .hoverlayer').textContent"
    browser.wait(f"{shown} === 'rank 1: no task1.5 s, from 0.5 s'")
    assert browser.value("document.querySelector('header').innerText").startswith("</script><i>small</i>: 5.00 s")
    assert browser.problems == []


@needs_browser
def test_names_are_shown_as_they_are(browser: Page, tmp_path: Path) -> None:
    """In texts, axes, legends and hover texts; nothing of a name is markup, a placeholder, or a name of this page."""
    files = []
    for i, name in enumerate(HOSTILE):
        files.append(tmp_path / f"{i}.json")
        document = made_result(name, "free", case(4), steps=3) | {"planner": f"{name} planner"}
        files[-1].write_text(json.dumps(document))
    cli.report([str(file) for file in files], str(tmp_path / "page.html"))
    browser.open(tmp_path / "page.html", width=1280)
    shown = browser.value("[...document.querySelectorAll('header li b')].map((one) => one.textContent)")
    assert set(shown) == set(HOSTILE)
    squeezed = {"".join(name.split()) for name in HOSTILE}
    parts = {"ticks": "#idle .ytick text", "legend": "#tasks .legendtext"}
    for place, selector in parts.items():
        texts = browser.value(f"[...document.querySelectorAll('{selector}')].map((one) => one.textContent)")
        assert {"".join(text.split()) for text in texts} == squeezed, place
    # Plotly does not look again within 50 ms.
    hovered = browser.value(
        """(async () => { const chart = document.querySelector('#memory .chart'), texts = [];
        for (const i of chart.data.keys()) {
          await new Promise((done) => setTimeout(done, 100));
          Plotly.Fx.hover(chart, [{curveNumber: i, pointNumber: 0}]);
          texts.push(['nums', 'name'].map((part) => chart.querySelector(`.hoverlayer .${part}`).textContent).join('|'));
        }
        return texts; })()"""
    )
    assert {"".join(text.split("|", 1)[1].split()) for text in hovered} == squeezed
    assert all(text.startswith("rank 0: ") for text in hovered)
    foreign = "header b b, td a, td img, td b, svg a, svg img, svg tspan[style*=bold], p img"
    assert browser.value(f"[...document.querySelectorAll('{foreign}')].map((one) => one.outerHTML)") == []
    assert "broken" not in browser.value("document.title").split(":")[0]
    assert browser.problems == []


@needs_browser
def test_another_result_can_be_chosen(browser: Page, pages: Path) -> None:
    browser.open(pages / "many.html")
    chart = "document.querySelector('#timeline .chart')"
    shown = f"{chart}.layout.annotations.map((note) => note.text)"
    assert browser.value(shown) == ["free, 64 ranks", "static:4, 64 ranks"]
    choose = """((n, label) => { const select = document.querySelectorAll('#timeline select')[n];
      select.value = [...select.options].find((option) => option.text === label).value;
      select.dispatchEvent(new Event('change')); })"""
    browser.value(f"{choose}(0, 'static:4, 16 ranks')")
    browser.wait(f"{shown}[0] === 'static:4, 16 ranks'")
    browser.value(f"{choose}(1, 'nothing')")
    browser.wait(f"{shown}.length === 0")
    assert browser.value(f"{chart}.layout.yaxis.range") == [15.5, -0.5]
    assert browser.problems == []


@needs_browser
def test_a_bare_result_says_what_is_not_shown(browser: Page, pages: Path) -> None:
    browser.open(pages / "bare.html")
    assert browser.value("document.querySelectorAll('.js-plotly-plot').length") == 0
    assert browser.value("document.querySelectorAll('#left-out li').length") == 10
    assert browser.problems == []


@needs_browser
def test_the_theme_follows_the_system(browser: Page, pages: Path) -> None:
    browser.open(pages / "small.html", dark=False)
    browser.theme(dark=True)
    browser.wait("document.querySelector('#idle .chart')._fullLayout.font.color === '#e6e9ef'")
    assert browser.problems == []


def test_big_results_stay_readable(tmp_path: Path) -> None:
    """The page of 1,024 ranks is not much larger than plotly.js itself, and no trace is one span."""
    from plotly.offline import get_plotlyjs

    files = write_results(tmp_path, 1024, ["free"], steps=1)
    results = [read_result(file) for file in files]
    text, _ = make_page(results, summarize(results))
    spans = results[0].timeline.spans["rank"].size if results[0].timeline else 0
    assert spans > 8000
    assert len(text) - len(get_plotlyjs()) < 100 * spans
    assert math.isclose(sum(results[0].lengths), results[0].steps[0].tokens)  # type: ignore[arg-type]
