// Charts by plotly.js: this module alone knows it. Each chart has a table of the same numbers, and words where there are
// none. Colours and type are those of style.css, on light screens and on dark ones.

import { table } from "./components.js";
import { h, put, renew, svg } from "./dom.js";

const FEW = 30; // points that have room for a marker each
const DASHES = ["solid", "dot", "dash", "dashdot", "longdash", "longdashdot"];
const STROKES = ["none", "2 2", "6 3", "6 2 2 2", "8 3", "8 2 2 2"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"];
// plotly.js has a style element for maps, which the Content-Security-Policy refuses. It makes none where this id is taken.
const STYLE_OF_MAPS = "9f215cf04c5486422605d13261cb87401f4e7763b6296af81e98efbc0130da53";
const CONFIG = { displayModeBar: false, responsive: true };

let loading = null;
const shown = new Set();

/**
 * A chart and its table, as an element with `draw(data)`, which is on the page by then. While it is drawn it is aria-busy.
 *
 * `title` names it, `x` and `y` are its axes with their units, and `nothing` is said while there is no number. `digits`
 * are those of a value, and `unit` what stands behind one. `stacked` charts are bars, one upon the other.
 *
 * `data` is `{series, rules, rows, columns, y}`: series are `{name, slot, x, y, low, high, points}` with a number of the
 * palette as `slot`, `low` and `high` the ends of an interval where there is one, and `points` where nothing joins them;
 * rules are `{name, slot, y}`, a line each from side to side; columns and rows are the table; `y` names that axis where
 * it depends on the data.
 */
export function chart(title, options) {
  const plot = h("div", { class: "plot", role: "img", "aria-label": title });
  const legend = h("ul", { class: "legend" });
  const nothing = h("div", { class: "empty" }, h("p", {}, options.nothing));
  const numbers = h("div", {});
  const details = h("details", { ontoggle: () => { fill(); section.paint(); } }, h("summary", {}, "The numbers"), numbers);
  const section = h("section", { class: "card chart", "aria-label": title }, h("h2", {}, title), legend, plot, nothing, details);
  let data = { series: [], rules: [], columns: [], rows: [] };

  function fill() {
    put(numbers, details.open && table(`${title}: the numbers`, data.columns, data.rows, { wide: true }));
  }

  async function paint() {
    const isEmpty = data.series.every((series) => series.y.length === 0);
    plot.hidden = legend.hidden = details.hidden = isEmpty;
    nothing.hidden = !isEmpty;
    if (isEmpty) return;
    plot.setAttribute("aria-busy", "true");
    await painted(); // what else is on the page is seen first: plotly.js takes a moment to begin
    const Plotly = await load();
    if (!plot.isConnected) return;
    const look = palette();
    const traces = [...data.series.flatMap((series) => tracesOf(series, look, options)),
      ...data.rules.map((rule) => ruleOf(rule, look, spanOf(data.series), options))];
    await Plotly.react(plot, traces, layoutOf(look, data, { ...options, y: data.y ?? options.y }), CONFIG);
    plot.removeAttribute("aria-busy");
  }

  section.draw = async (fresh) => {
    data = { rules: [], ...fresh };
    plot.setAttribute("aria-label", `${title}: ${data.series.map((each) => each.name).join(", ")}. The numbers follow as a table.`);
    if (details.open) fill();
    renew(legend, data.series.map((series) => entry(series, options)), data.rules.map((rule) => entry(rule, { isRule: true })));
    await paint().catch(() => plot.replaceChildren("The chart could not be drawn; the numbers are below."));
  };
  section.paint = paint;
  shown.add(section);
  return section;
}

// What is drawn is drawn again in the other colours, and forgotten once it is on no page.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const section of shown) {
    if (section.isConnected) section.paint();
    else shown.delete(section);
  }
});

function painted() {
  return new Promise((resolve) => { requestAnimationFrame(() => setTimeout(resolve)); });
}

/** Load plotly.js, once. */
function load() {
  loading ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "plotly.js", onload: () => resolve(globalThis.Plotly),
      onerror: () => { loading = null; script.remove(); reject(new Error("plotly.js could not be loaded")); } });
    document.head.append(h("meta", { id: STYLE_OF_MAPS }), script);
  });
  return loading;
}

function palette() {
  const css = getComputedStyle(document.documentElement);
  const token = (name) => css.getPropertyValue(`--${name}`).trim();
  return {
    ink: token("ink"), quiet: token("quiet"), line: token("line"), surface: token("surface"), strong: token("line-strong"),
    font: token("font"), series: [1, 2, 3, 4, 5, 6].map((slot) => token(`series-${slot}`)),
  };
}

function tracesOf(series, look, { stacked, digits, unit }) {
  const at = series.slot - 1;
  const colour = look.series[at];
  const said = { name: series.name, x: series.x, y: series.y, hovertemplate: `%{y:,.${digits}f} ${unit}` };
  const isFew = series.x.length <= FEW;
  if (stacked) {
    return [{ ...said, type: "bar", marker: { color: colour, line: { color: look.surface, width: isFew ? 1 : 0 } } }];
  }
  const marker = { color: colour, symbol: SYMBOLS[at], size: series.points ? 10 : 6 };
  if (series.points) {
    return [{ ...said, type: "scatter", mode: "markers", marker: { ...marker, symbol: "x-thin", line: { color: colour, width: 2 } } }];
  }
  const line = { color: colour, width: 2, dash: DASHES[at] };
  const curve = { ...said, type: "scatter", mode: isFew ? "lines+markers" : "lines", line, marker };
  return series.low?.length ? [band(series, colour), curve] : [curve];
}

/** The interval of a curve, as a ring around it: up along its upper end, and back along the lower. */
function band({ x, low, high }, colour) {
  return { type: "scatter", mode: "lines", x: [...x, ...x.toReversed()], y: [...high, ...low.toReversed()], fill: "toself",
    fillcolor: `${colour}26`, line: { width: 0 }, hoverinfo: "skip" };
}

function ruleOf({ name, slot, y }, look, [first, last], { digits, unit }) {
  const colour = slot ? look.series[slot - 1] : look.quiet;
  return { type: "scatter", mode: "lines", name, x: [first, last], y: [y, y], line: { color: colour, width: 1.25, dash: slot ? "dash" : "dot" },
    hovertemplate: `%{y:,.${digits}f} ${unit}` };
}

function spanOf(series) {
  const all = series.flatMap((each) => each.x);
  const [first, last] = [Math.min(...all), Math.max(...all)];
  return first === last ? [first - 0.5, last + 0.5] : [first, last];
}

/** A line of the legend: the name, and beside it what stands for it. */
function entry({ name, slot, points }, { stacked, isRule }) {
  const dash = slot ? "6 4" : "2 3";
  const glyph = svg("svg", { class: slot ? `series-${slot}` : "rule", width: 28, height: 12, "aria-hidden": "true" },
    stacked ? svg("rect", { x: 8, width: 12, height: 12, rx: 2, fill: "currentColor" }) : points ? mark("x")
      : [svg("line", { x1: 0, x2: 28, y1: 6, y2: 6, stroke: "currentColor", "stroke-width": isRule ? 1.25 : 2,
        "stroke-dasharray": isRule ? dash : STROKES[slot - 1] }), !isRule && mark(SYMBOLS[slot - 1])]);
  return h("li", {}, glyph, " ", name);
}

function mark(symbol) {
  const d = { circle: "M14 3a3 3 0 1 0 .01 0z", square: "M11 3h6v6h-6z", diamond: "M14 2l4 4-4 4-4-4z", "triangle-up": "M14 2l4 7h-8z",
    cross: "M13 3h2v2h2v2h-2v2h-2v-2h-2V5h2z", star: "M14 2l1 3h3l-2 2 1 3-3-2-3 2 1-3-2-2h3z", x: "M10 2l8 8m0-8l-8 8" }[symbol];
  return svg("path", { d, fill: symbol === "x" ? "none" : "currentColor", stroke: symbol === "x" ? "currentColor" : "none", "stroke-width": 2 });
}

function layoutOf(look, { series }, { x, y, stacked }) {
  const axis = { gridcolor: look.line, linecolor: look.strong, zeroline: false, fixedrange: true, automargin: true,
    tickfont: { color: look.quiet }, title: { font: { color: look.quiet } } };
  const rounds = new Set(series.flatMap((each) => each.x)).size;
  return {
    autosize: true,
    height: 300,
    margin: { l: 8, r: 8, t: 8, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: look.font, size: 12, color: look.ink },
    barmode: "stack",
    bargap: rounds > FEW ? 0 : 0.25,
    dragmode: false,
    hovermode: "x unified",
    hoverlabel: { bgcolor: look.surface, bordercolor: look.strong, font: { color: look.ink, family: look.font, size: 12 } },
    xaxis: { ...axis, title: { ...axis.title, text: x }, showgrid: false, tickformat: ",d", dtick: rounds <= 12 ? 1 : undefined,
      nticks: 8, unifiedhovertitle: { text: `${x} %{x}` }, hoverformat: ",d" },
    yaxis: { ...axis, title: { ...axis.title, text: y }, rangemode: stacked ? "tozero" : "normal", nticks: 6 },
    showlegend: false,
  };
}

