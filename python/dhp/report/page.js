// Draws the charts of the page. Figures come finished from charts.py but for their colours, which follow light or dark:
// "ink", "soft", "quiet" … are those of page.css. The timeline is put together here of the results that are chosen.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const BUTTONS_PX = 26; // the mode bar's row

/** The value with the colours of page.css in place of their names. */
function coloured(value) {
  const style = getComputedStyle(document.documentElement);
  const painted = (name) => style.getPropertyValue(`--${name}`).trim() || name;
  return JSON.parse(JSON.stringify(value), (key, of) => {
    if (!/color$/.test(key)) return of;
    return Array.isArray(of) ? of.map(painted) : painted(of);
  });
}

async function draw(id, figure, config = { displayModeBar: false }) {
  const chart = document.querySelector(`#${id} .chart`);
  const layout = { ...figure.layout, template: { layout: data.template } };
  const settings = { responsive: true, displaylogo: false, showTips: false, ...config };
  await Plotly.react(chart, coloured(figure.data), coloured(layout), settings);
  // Plotly takes the room of the legend above a chart from the chart.
  const legend = chart.querySelector("g.legend .bg");
  if (legend) await Plotly.relayout(chart, { height: layout.height + legend.getBoundingClientRect().height });
}

// --- the timeline

const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

/** A bar a span; a trace a kind of them. */
function bars(lines, yaxis) {
  const apart = lines.rows <= 80; // room for gaps between bars
  const traces = data.kinds.map(({ name, color }) => ({
    type: "bar", orientation: "h", name, legendgroup: name, yaxis, width: lines.every * (apart ? 0.88 : 1),
    base: [], x: [], y: [], text: [], textposition: "none", hovertemplate: "%{text}<extra></extra>",
    marker: { color, line: { color: "raised", width: [] } },
  }));
  lines.kind.forEach((kind, i) => {
    const { base, x, y, text, name, marker } = traces[kind];
    const [start, seconds, task] = [lines.start[i] * lines.tick, lines.long[i] * lines.tick, lines.task[i]];
    base.push(start);
    x.push(seconds);
    y.push(lines.rank[i]);
    marker.line.width.push(apart && seconds > lines.seconds / 400 ? 1 : 0);
    const about = task < 0 ? "" : `<br>${lines.tasks[task] || `task ${task}`}`;
    text.push(`rank ${lines.rank[i]}: ${name}<br>${number(seconds)} s, from ${number(start)} s${about}`);
  });
  return traces.filter((trace) => trace.x.length);
}

const shown = { first: 0, second: -1 };

function drawTimeline() {
  const chosen = [shown.first, shown.second].filter((i) => i >= 0).map((i) => data.timelines[i]);
  const two = chosen.length > 1;
  const height = Math.min(two ? 400 : 560, Math.max(150, 16 * Math.max(...chosen.map((lines) => lines.rows))));
  const title = (two ? 24 : 0) / (height + 24); // share of a timeline's part
  const layout = {
    height: chosen.length * (height + 24) + BUTTONS_PX + 48,
    barmode: "overlay",
    dragmode: "zoom",
    hovermode: "closest",
    margin: { l: 56, r: 16, t: BUTTONS_PX, b: 48, pad: 2 },
    xaxis: { title: { text: "s" }, range: [0, Math.max(...chosen.map((lines) => lines.seconds))], anchor: two ? "y2" : "y" },
    annotations: [],
    shapes: [],
  };
  const traces = chosen.flatMap((lines, n) => {
    const [axis, bottom] = [n ? "y2" : "y", (chosen.length - 1 - n) / chosen.length];
    layout[n ? "yaxis2" : "yaxis"] = {
      title: { text: "rank" }, domain: [bottom, bottom + (1 - title) / chosen.length], range: [lines.ranks - 0.5, -0.5],
      showgrid: false, zeroline: false, ...(lines.rows > 14 ? { nticks: 14 } : { dtick: lines.every }),
    };
    const side = { xref: "paper", x: 0, xanchor: "left", yref: `${axis} domain`, y: 1, yanchor: "bottom", align: "left" };
    if (two) layout.annotations.push({ ...side, text: lines.label, showarrow: false, font: { weight: 600 } });
    const end = { x0: lines.seconds, x1: lines.seconds, yref: `${axis} domain`, y0: 0, y1: 1 };
    layout.shapes.push({ ...end, type: "line", line: { color: "ink", width: 1.5 } });
    return bars(lines, axis);
  });
  traces.forEach((trace, i) => { trace.showlegend = traces.findIndex(({ name }) => name === trace.name) === i; });
  return draw("timeline", { data: traces, layout }, { modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
}

function chooser(text, key, choices) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  for (const [name, i] of choices) select.add(new Option(name, i));
  select.value = shown[key];
  select.addEventListener("change", () => {
    shown[key] = Number(select.value);
    drawTimeline();
  });
  label.append(text, select);
  return label;
}

/** Results stand in the order of the page, quickest first: beside it the slowest on as many ranks. */
function startTimeline() {
  const all = data.timelines;
  const rivals = all.map((_, i) => i).filter((i) => i > 0 && all[i].ranks === all[0].ranks);
  shown.second = rivals.reduce((worst, i) => (worst < 0 || all[i].seconds > all[worst].seconds ? i : worst), -1);
  const choices = all.map((lines, i) => [lines.name, i]);
  const tools = [chooser("Show", "first", choices), chooser("above", "second", [["nothing", -1], ...choices])];
  if (all.length > 1) document.querySelector("#timeline .tools").append(...tools);
}

function drawAll() {
  const charts = Object.entries(data.figures).map(([id, figure]) => draw(id, figure));
  return Promise.all(data.timelines.length ? [drawTimeline(), ...charts] : charts);
}

startTimeline();
drawAll().then(() => { document.body.dataset.ready = "yes"; });
for (const query of ["(prefers-color-scheme: dark)", "(max-width: 620px)"]) {
  window.matchMedia(query).addEventListener("change", drawAll);
}
