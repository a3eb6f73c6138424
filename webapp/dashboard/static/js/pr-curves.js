// Precision by recall, a curve a class, on uPlot.

import { colour, innerWidth } from "./charts.js";
import { el } from "./elements.js";
import { percent } from "./format.js";

const HEIGHT = 260;
const SERIES_COLOURS = 4;
const MOST_SHOWN = 8; // at first; the legend switches the others on
const MOST_IN_LEGEND = 30;

export function drawCurves(place, curves) {
  const body = el("div", { className: "curves-chart" });
  place.append(el("h3", {}, "Precision by recall"), body);
  const table = uPlot.join(curves.map(({ points }) => [points.map(([recall]) => recall), points.map(([, precision]) => precision)]));
  let plot = make();

  function make() {
    const made = new uPlot(options(curves, innerWidth(place)), table, body);
    const canvas = body.querySelector("canvas");
    canvas.setAttribute("role", "img");
    const told = curves.slice(0, MOST_SHOWN).map(({ name, ap }) => `${name} ${percent(ap)}`);
    canvas.setAttribute("aria-label", `Precision by recall. Average precision: ${told.join(", ")}`);
    return made;
  }

  new ResizeObserver(() => {
    const width = innerWidth(place);
    if (body.isConnected && width > 0 && width !== plot.width) plot.setSize({ width, height: HEIGHT });
  }).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (!body.isConnected) return;
    plot.destroy();
    plot = make();
  });
}

function options(curves, width) {
  const axis = { stroke: colour("muted"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const ticks = (_, values) => values.map((value) => `${Math.round(100 * value)} %`);
  const series = curves.map(({ name, ap }, index) => ({
    label: `${name} ${percent(ap)}`,
    stroke: colour(`series-${(index % SERIES_COLOURS) + 1}`),
    dash: index >= SERIES_COLOURS ? [6, 4] : undefined,
    width: 2,
    spanGaps: true,
    show: index < MOST_SHOWN,
    points: { show: false },
    value: (_, value) => percent(value),
  }));
  return {
    width,
    height: HEIGHT,
    scales: { x: { time: false, range: [0, 1] }, y: { range: [0, 1.02] } },
    legend: { show: curves.length <= MOST_IN_LEGEND, live: false },
    cursor: { drag: { x: false, y: false } },
    series: [{ label: "Recall", value: (_, value) => percent(value) }, ...series],
    axes: [{ ...axis, size: 30, values: ticks }, { ...axis, size: 52, values: ticks }],
  };
}
