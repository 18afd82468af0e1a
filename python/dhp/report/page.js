// Draws the charts of the page. Figures come finished from charts.py but for their colours, which follow light or dark;
// the timeline is built here, anew at every zoom: one filled shape a kind of span, however many spans there are.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false, showTips: false };
const TIMELINE_CONFIG = {
  ...CONFIG,
  displayModeBar: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
};
const CHARACTER_PX = 7.2; // of legends
const AXIS_PX = 80; // of a chart's width: left and right of the area that its legend stands above
const NARROW_PX = 620; // of a chart: no room for a legend beside anything

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const NAMED = { INK: "soft", QUIET: "quiet", GROUP1: "group1", GROUP2: "group2", GROUP3: "group3", GROUP4: "group4" };

/** The value with named colours replaced by those of this theme, wherever in it a colour stands: a result may have the
 * name of one. */
function coloured(value, key = "color") {
  if (typeof value === "string" && /color$/.test(key) && Object.hasOwn(NAMED, value)) return colourOf(NAMED[value]);
  if (Array.isArray(value)) return value.map((inner) => coloured(inner, key));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([inner, of]) => [inner, coloured(of, inner)]));
  }
  return value;
}

function themed(layout) {
  const axis = { gridcolor: colourOf("grid"), zerolinecolor: colourOf("grid"), linecolor: colourOf("quiet") };
  const full = coloured(layout);
  for (const key of Object.keys(full)) {
    if (/^[xy]axis/.test(key)) full[key] = { ...axis, ...full[key] };
  }
  return {
    margin: { l: 12, r: 16, t: 12, b: 12, pad: 4 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif", size: 13, color: colourOf("ink") },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", traceorder: "normal" },
    hoverlabel: { bgcolor: colourOf("paper"), bordercolor: colourOf("quiet"), font: { color: colourOf("ink") }, namelength: -1 },
    modebar: { color: colourOf("quiet"), activecolor: colourOf("soft"), bgcolor: "rgba(0,0,0,0)" },
    ...full,
  };
}

/** Columns and height of a legend of these names; more than fit scroll. */
function legendRoom(names, widthPx) {
  const lines = names.map((name) => name.split("<br>"));
  const longest = Math.max(...lines.flat().map((line) => line.length));
  const columns = Math.max(1, Math.min(names.length, Math.floor((widthPx - AXIS_PX) / (longest * CHARACTER_PX + 50))));
  const tallest = Math.max(...lines.map((some) => some.length));
  const rows = columns > 1 ? Math.ceil(names.length / columns) * tallest : lines.flat().length;
  return { columns, height: Math.min(20 * rows + 16, 240) };
}

function draw(id, figure) {
  const chart = document.querySelector(`#${id} .chart`);
  const layout = themed(figure.layout);
  const entries = figure.data.filter((trace) => trace.showlegend !== false && trace.name);
  layout.showlegend = entries.length > 1;
  if (layout.showlegend) {
    // Above a chart, in room of its own: Plotly would take it from the chart.
    const room = legendRoom(entries.map((trace) => trace.name), chart.clientWidth);
    layout.height += room.height;
    layout.margin = { ...layout.margin, t: room.height };
    layout.legend = { ...layout.legend, orientation: room.columns > 1 ? "h" : "v", y: 1, maxheight: room.height };
  }
  return Plotly.react(chart, coloured(figure.data), layout, CONFIG);
}

// --- the timeline

const shown = { first: 0, second: -1, view: null };

function timelineHeight(lines, count) {
  const rows = Math.min(560, Math.max(150, 16 * lines.ranks));
  return count > 1 ? Math.min(rows, 400) : rows;
}

/** Index of the first span of every rank; spans are sorted by rank, then start. */
function rowsOf(lines) {
  if (lines.rows) return lines.rows;
  const rows = new Array(lines.ranks + 1).fill(0);
  for (const rank of lines.rank) rows[rank + 1] += 1;
  for (let rank = 0; rank < lines.ranks; rank += 1) rows[rank + 1] += rows[rank];
  lines.rows = rows;
  return rows;
}

/** Traces of one timeline within x0..x1 seconds and the given ranks; gaps between bars where pixels allow. */
function spanTraces(lines, suffix, x0, x1, low, high, widthPx, heightPx) {
  const rows = rowsOf(lines);
  const shapes = data.kinds.map(() => ({ x: [], y: [] }));
  const rowPx = heightPx / Math.max(1, high - low + 1);
  const inset = rowPx > 5 ? 0.06 : 0;
  const secondsPerPx = (x1 - x0) / Math.max(1, widthPx);
  const gap = rowPx > 5 ? secondsPerPx : 0;
  const from = Math.max(0, Math.floor(low));
  const to = Math.min(lines.ranks - 1, Math.ceil(high));
  const every = Math.max(1, Math.floor(1 / rowPx)); // more rows than pixels: one stands for its neighbours
  for (let rank = from; rank <= to; rank += every) {
    for (let i = rows[rank]; i < rows[rank + 1]; i += 1) {
      const start = lines.start[i] * lines.tick;
      let end = start + lines.long[i] * lines.tick;
      if (end < x0 || start > x1) continue;
      if (end - start > 3 * gap) end -= gap;
      const { x, y } = shapes[lines.kind[i]];
      const top = rank - 0.5 + inset;
      const bottom = rank + every - 0.5 - inset;
      x.push(start, end, end, start, null);
      y.push(top, top, bottom, bottom, null);
    }
  }
  return shapes.map((shape, kind) => ({
    type: "scatter",
    mode: "none",
    fill: "toself",
    fillcolor: coloured(data.kinds[kind].colour),
    name: data.kinds[kind].name,
    legendgroup: data.kinds[kind].name,
    legendrank: kind,
    hoverinfo: "skip",
    x: shape.x,
    y: shape.y,
    xaxis: "x",
    yaxis: `y${suffix}`,
  }));
}

function drawTimeline() {
  const chart = document.querySelector("#timeline .chart");
  const chosen = [shown.first, shown.second].filter((i) => i >= 0).map((i) => data.timelines[i]);
  const longest = Math.max(...chosen.map((lines) => lines.seconds));
  const heights = chosen.map((lines) => timelineHeight(lines, chosen.length));
  const width = Math.max(240, chart.clientWidth - 80);
  const drawn = new Set(chosen.flatMap((lines) => [...new Set(lines.kind)]));
  // The first row of the margin is the mode bar's.
  const legend = legendRoom([...drawn].map((kind) => data.kinds[kind].name), chart.clientWidth).height + 22;
  const titles = chosen.map((lines) => (chosen.length > 1 ? brokenInto(lines.label, width / CHARACTER_PX / 1.15) : []));
  const room = titles.map((lines) => (lines.length ? 18 * lines.length + 6 : 0));
  const inner = heights.reduce((sum, height, n) => sum + height + room[n], 0);
  const view = shown.view || {};
  const xRange = view.x || [0, longest];
  const layout = {
    height: inner + legend + 56,
    dragmode: "zoom",
    hovermode: false,
    showlegend: true,
    xaxis: { title: { text: "s" }, range: xRange, anchor: `y${chosen.length > 1 ? 2 : ""}`, automargin: true },
    margin: { l: 56, r: 16, t: legend, b: 48, pad: 2 },
    annotations: [],
    shapes: [],
  };
  const used = new Set();
  const traces = [];
  let top = 1;
  chosen.forEach((lines, n) => {
    const suffix = n ? "2" : "";
    top -= room[n] / inner;
    const bottom = Math.max(0, top - heights[n] / inner);
    const full = [lines.ranks - 0.5, -0.5];
    const yRange = view[`y${suffix}`] || full;
    layout[`yaxis${suffix}`] = {
      title: { text: "rank" },
      domain: [bottom, Math.min(1, top)],
      range: yRange,
      showgrid: false,
      zeroline: false,
      ...(heights[n] / Math.abs(yRange[0] - yRange[1]) > 13 ? { dtick: 1 } : { nticks: 14 }),
      tickformat: ",d",
    };
    if (room[n]) {
      layout.annotations.push({
        text: titles[n].map(escaped).join("<br>"), align: "left", x: 0, xref: "paper", xanchor: "left", y: top, yref: "paper", yanchor: "bottom",
        showarrow: false, font: { weight: 600 },
      });
    }
    layout.shapes.push({
      type: "line", x0: lines.seconds, x1: lines.seconds, y0: bottom, y1: top, yref: "paper",
      line: { color: colourOf("ink"), width: 1.5 },
    });
    const made = spanTraces(lines, suffix, ...xRange, Math.min(...yRange), Math.max(...yRange), width, heights[n]);
    const present = new Set(lines.kind);
    made.forEach((trace, kind) => {
      if (!present.has(kind)) return;
      trace.showlegend = !used.has(kind);
      used.add(kind);
      traces.push(trace);
    });
    top = bottom;
  });
  return Plotly.react(chart, traces, themed(layout), TIMELINE_CONFIG);
}

/** Lines of at most so many characters, three at most; broken at spaces where there are any. */
function brokenInto(text, characters) {
  const most = Math.max(8, Math.floor(characters));
  const lines = text.match(new RegExp(`\\S.{0,${most - 2}}\\S(?=\\s|$)|\\S.{0,${most - 1}}`, "gsu")) || [text];
  return lines.length > 3 ? [...lines.slice(0, 2), `${lines[2].slice(0, most - 2)} …`] : lines;
}

const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/** Keeps the view that the reader zoomed to, and draws its spans anew with the gaps of its scale. */
function followZoom(chart) {
  let redrawing = false;
  chart.on("plotly_relayout", (change) => {
    if (redrawing || !Object.keys(change).some((key) => /^[xy]axis/.test(key))) return;
    const reset = Object.keys(change).some((key) => /autorange$/.test(key));
    const range = (axis) => (chart.layout[axis] ? chart.layout[axis].range.slice() : undefined);
    shown.view = reset ? null : { x: range("xaxis"), y: range("yaxis"), y2: range("yaxis2") };
    redrawing = true;
    drawTimeline().finally(() => { redrawing = false; });
  });
  chart.on("plotly_doubleclick", () => {
    shown.view = null;
    drawTimeline();
  });
}

const number = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

function tipText(lines, i) {
  const start = lines.start[i] * lines.tick;
  const seconds = lines.long[i] * lines.tick;
  const text = [`rank ${lines.rank[i]}: ${data.kinds[lines.kind[i]].name}`];
  text.push(`${number(seconds)} s, from ${number(start)} s`);
  const [degree, sequences, tokens, predicted, actual] = lines.tasks[lines.task[i]] || [];
  if (lines.task[i] >= 0) {
    const known = [[degree, "ranks"], [sequences, "sequences"], [tokens, "tokens"]].filter(([value]) => value != null);
    const counts = known.map(([value, name]) => `${value.toLocaleString("en")} ${value === 1 ? name.slice(0, -1) : name}`);
    text.push([`task ${lines.task[i]}`, ...counts].join(", "));
  }
  if (predicted != null && actual != null) text.push(`predicted ${number(predicted)} s, was ${number(actual)} s`);
  return text.join("\n");
}

/** The span under the pointer, found by rank and time. */
function spanAt(chart, event) {
  const areas = [...chart.querySelectorAll(".nsewdrag")];
  for (let n = 0; n < areas.length; n += 1) {
    const box = areas[n].getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width;
    const down = (event.clientY - box.top) / box.height;
    if (across < 0 || across > 1 || down < 0 || down > 1) continue;
    const lines = data.timelines[n ? shown.second : shown.first];
    const [x0, x1] = chart.layout.xaxis.range;
    const [y0, y1] = chart.layout[n ? "yaxis2" : "yaxis"].range; // the upper end of a reversed axis is its second
    const rank = Math.round(y1 + down * (y0 - y1));
    if (!lines || rank < 0 || rank >= lines.ranks) return null;
    const tick = (x0 + across * (x1 - x0)) / lines.tick;
    const rows = rowsOf(lines);
    for (let i = rows[rank]; i < rows[rank + 1]; i += 1) {
      if (lines.start[i] <= tick && tick < lines.start[i] + lines.long[i]) return [lines, i];
    }
  }
  return null;
}

function followPointer(chart) {
  const tip = document.getElementById("tip");
  chart.addEventListener("mousemove", (event) => {
    const found = spanAt(chart, event);
    tip.hidden = !found;
    if (!found) return;
    tip.textContent = tipText(...found);
    const right = event.clientX + 316 > window.innerWidth;
    tip.style.left = right ? "" : `${event.clientX + 14}px`;
    tip.style.right = right ? `${window.innerWidth - event.clientX + 14}px` : "";
    tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - 110)}px`;
  });
  chart.addEventListener("mouseleave", () => { tip.hidden = true; });
}

function chooser(text, key, withNone) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  label.append(text, select);
  if (withNone) select.add(new Option("nothing", "-1"));
  data.timelines.forEach((lines, i) => select.add(new Option(lines.label, String(i))));
  select.value = String(shown[key]);
  select.addEventListener("change", () => {
    shown[key] = Number(select.value);
    shown.view = null;
    drawTimeline();
  });
  return label;
}

function startTimeline() {
  const all = data.timelines;
  if (!all.length) return [];
  // Results stand in the order of the page, quickest first: beside it the slowest on as many ranks.
  const rivals = all.map((_, i) => i).filter((i) => i > 0 && all[i].ranks === all[0].ranks);
  shown.second = rivals.reduce((worst, i) => (worst < 0 || all[i].seconds > all[worst].seconds ? i : worst), -1);
  const tools = document.querySelector("#timeline .tools");
  if (all.length > 1) tools.append(chooser("Show", "first", false), chooser("above", "second", true));
  const chart = document.querySelector("#timeline .chart");
  return [drawTimeline().then(() => {
    followZoom(chart);
    followPointer(chart);
  })];
}

function drawAll() {
  return Object.entries(data.figures).map(([id, figure]) => draw(id, figure));
}

Promise.all([...startTimeline(), ...drawAll()]).then(() => { document.body.dataset.ready = "yes"; });
const redraw = () => {
  drawAll();
  if (data.timelines.length) drawTimeline();
};
dark.addEventListener("change", redraw);
let narrow = window.innerWidth < NARROW_PX;
window.addEventListener("resize", () => {
  if (narrow === window.innerWidth < NARROW_PX) return;
  narrow = !narrow;
  redraw();
});
