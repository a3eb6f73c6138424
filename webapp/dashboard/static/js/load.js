// What a job's processes take of their machine, by time. The server keeps a bounded number of
// samples, so what was drawn live is replaced when the page asks again.

import { colour, innerWidth } from "./charts.js";
import { MISSING } from "./format.js";

const HEIGHT = 150;
const GIB = 2 ** 30;
const percents = (value) => (value == null ? MISSING : `${Math.round(value)} %`);
const gibibytes = (value) => (value == null ? MISSING : `${value.toFixed(2)} GiB`);

// 200 % of processor are two whole cores.
const KINDS = {
  cpu_percent: { title: "Processor", show: percents },
  memory_bytes: { title: "Memory", show: gibibytes, unit: GIB },
  gpu_percent: { title: "GPU", show: percents },
  gpu_memory_bytes: { title: "GPU memory", show: gibibytes, unit: GIB },
};

const inUnit = (name, value) => value / (KINDS[name].unit ?? 1);

export class LoadCharts {
  constructor(place, { section }) {
    this.place = place;
    this.section = section;
    this.curves = new Map(); // name -> [times, values]
    this.plots = new Map(); // name -> {plot, body}
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
    new ResizeObserver(() => this.resize()).observe(place);
  }

  // found: the answer of …/load, in place of all that was known but what was told after it.
  set(found) {
    for (const [name, points] of Object.entries(found)) {
      const known = this.curves.get(name) ?? [[], []];
      const times = points.map((point) => Date.parse(point.time) / 1000);
      const values = points.map((point) => inUnit(name, point.value));
      const last = times.at(-1) ?? -Infinity;
      const newer = known[0].filter((time) => time > last).length;
      const from = known[0].length - newer;
      this.curves.set(name, [[...times, ...known[0].slice(from)], [...values, ...known[1].slice(from)]]);
      this.draw(name);
    }
  }

  add(event) {
    for (const name of Object.keys(KINDS)) {
      if (event[name] == null) continue;
      if (!this.curves.has(name)) this.curves.set(name, [[], []]);
      const [times, values] = this.curves.get(name);
      const time = Date.parse(event.time) / 1000;
      if (times.length && time <= times.at(-1)) continue; // told before
      times.push(time);
      values.push(inUnit(name, event[name]));
      this.draw(name);
    }
  }

  draw(name) {
    const curve = this.curves.get(name);
    if (curve[0].length === 0) return;
    this.section.hidden = false;
    let drawn = this.plots.get(name);
    if (!drawn) {
      const body = document.createElement("div");
      body.className = "chart load-chart";
      body.dataset.load = name;
      this.place.append(body);
      drawn = { body, plot: null };
      this.plots.set(name, drawn);
    }
    if (drawn.plot) drawn.plot.setData(curve);
    else drawn.plot = this.plot(name, curve, drawn.body);
    const canvas = drawn.body.querySelector("canvas");
    const { title, show } = KINDS[name];
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title} by time; now ${show(curve[1].at(-1))}`);
    drawn.body.dataset.points = String(curve[0].length);
  }

  plot(name, curve, body) {
    const { title, show } = KINDS[name];
    const axis = { stroke: colour("muted"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const stroke = colour(name.startsWith("gpu") ? "series-2" : "series-1");
    const options = {
      width: innerWidth(body),
      height: HEIGHT,
      scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.08, 1)] } },
      legend: { live: true },
      cursor: { points: { size: 7 }, drag: { x: true, y: false } },
      series: [
        { label: "time", value: (_, value) => (value == null ? MISSING : new Date(value * 1000).toLocaleTimeString()) },
        { label: title, stroke, width: 2, points: { size: 3, fill: stroke }, value: (plot, value) => show(value ?? plot.data[1].at(-1)) },
      ],
      axes: [
        { ...axis, size: 30 },
        { ...axis, size: 64, values: (_, ticks) => ticks.map(show) },
      ],
    };
    return new uPlot(options, curve, body);
  }

  rebuild() {
    for (const [name, drawn] of this.plots) {
      drawn.plot.destroy();
      drawn.plot = null;
      this.draw(name);
    }
  }

  resize() {
    for (const { plot, body } of this.plots.values()) {
      const width = innerWidth(body);
      if (plot && width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }
}
