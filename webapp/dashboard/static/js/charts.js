// A job's curves. Points are keyed by metric and epoch, so an event that comes twice, or an
// epoch that a resumed attempt trains again, replaces a point and never doubles it.

import { number, percent } from "./format.js";

const HEIGHT = 230;
const SERIES_COLOURS = 4;
const FRACTIONS = /^(top\d|precision|recall|map|mask_map|pose_map|mean_iou)/;
const TITLES = {
  loss: "Loss",
  fractions: "Accuracy",
  learning_rate: "Learning rate",
  images_per_second: "Images per second",
};
const ORDER = ["loss", "fractions", "box_loss", "cls_loss", "dfl_loss", "learning_rate"];

function groupOf(name) {
  if (FRACTIONS.test(name)) return "fractions";
  return name.replace(/^(train|val)_/, "");
}

function titleOf(group) {
  const words = group.replaceAll("_", " ");
  return TITLES[group] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

const newest = (values) => values.findLast((value) => value !== null);

export function innerWidth(element) {
  const style = getComputedStyle(element);
  return element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
}

// uPlot draws on a canvas and needs colours, not variables.
export function colour(variable) {
  const probe = document.createElement("i");
  probe.className = `probe-${variable}`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

export class Charts {
  constructor(place, { empty }) {
    this.place = place;
    this.empty = empty;
    this.values = new Map(); // metric -> Map(epoch -> value)
    this.charts = new Map(); // group -> {plot, names, box}
    this.marks = new Map(); // attempt -> the first epoch it told of
    this.dirty = new Set();
    this.frame = null;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.rebuild());
    new ResizeObserver(() => this.resize()).observe(place);
  }

  // points: [{epoch, value}] of one metric, in place of those of the same epochs.
  add(name, points) {
    if (!this.values.has(name)) this.values.set(name, new Map());
    const known = this.values.get(name);
    for (const point of points) known.set(point.epoch, point.value);
    this.dirty.add(groupOf(name));
    this.schedule();
  }

  // A dashed line before an attempt's first epoch, from the second attempt on.
  mark(attempt, epoch) {
    const known = this.marks.get(attempt);
    if (attempt < 2 || (known !== undefined && known <= epoch)) return;
    this.marks.set(attempt, epoch);
    for (const group of this.charts.keys()) this.dirty.add(group);
    this.schedule();
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    for (const group of this.dirty) this.drawGroup(group);
    this.dirty.clear();
    this.empty.hidden = this.charts.size > 0;
  }

  names(group) {
    return [...this.values.keys()].filter((name) => groupOf(name) === group).sort();
  }

  // Columns as uPlot wants them: epochs, then one array a metric, null where there is no value.
  columns(names) {
    const epochs = new Set();
    for (const name of names) for (const epoch of this.values.get(name).keys()) epochs.add(epoch);
    const xs = [...epochs].sort((a, b) => a - b);
    return [xs, ...names.map((name) => xs.map((x) => this.values.get(name).get(x) ?? null))];
  }

  drawGroup(group) {
    const names = this.names(group);
    const data = this.columns(names);
    let chart = this.charts.get(group);
    if (chart && chart.names.join() !== names.join()) {
      chart.plot.destroy();
      chart.plot = this.plot(group, names, data, chart.body);
      chart.names = names;
    } else if (chart) {
      chart.plot.setData(data);
    } else {
      chart = this.card(group);
      this.charts.set(group, chart);
      chart.plot = this.plot(group, names, data, chart.body);
      chart.names = names;
    }
    this.describe(chart, group, data);
  }

  card(group) {
    const box = document.createElement("section");
    box.className = "card";
    box.dataset.chart = group;
    const head = document.createElement("header");
    const title = document.createElement("h2");
    title.textContent = titleOf(group);
    const body = document.createElement("div");
    body.className = "chart";
    head.append(title);
    box.append(head, body);
    const rank = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
    const after = [...this.charts].filter(([other]) => rank(other) > rank(group));
    after.sort(([a], [b]) => rank(a) - rank(b));
    this.place.insertBefore(box, after[0]?.[1].box ?? null);
    return { box, body };
  }

  plot(group, names, data, body) {
    const show = group === "fractions" ? percent : number;
    const axis = { stroke: colour("muted"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const series = names.map((name, index) => this.series(name, index, show));
    const options = {
      width: innerWidth(body),
      height: HEIGHT,
      scales: { x: { time: false }, y: { range: { min: { pad: 0.08, soft: 0, mode: 3 }, max: { pad: 0.08 } } } },
      legend: { live: true },
      cursor: { points: { size: 7 }, drag: { x: true, y: false } },
      series: [{ label: "epoch", value: (plot, value) => String(value ?? plot.data[0].at(-1) ?? "–") }, ...series],
      axes: [
        { ...axis, size: 30, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
        { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => (group === "fractions" ? `${+(100 * tick).toFixed(1)} %` : number(tick))) },
      ],
      hooks: { draw: [(plot) => this.drawMarks(plot)] },
    };
    return new uPlot(options, data, body);
  }

  series(name, index, show) {
    const stroke = colour(`series-${(index % SERIES_COLOURS) + 1}`);
    return {
      label: name,
      stroke,
      dash: index >= SERIES_COLOURS ? [6, 4] : undefined,
      width: 2,
      spanGaps: true,
      points: { size: 4, fill: stroke },
      value: (plot, value, at, row) => show(row === null ? newest(plot.data[at]) : value),
    };
  }

  drawMarks(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = colour("muted");
    ctx.fillStyle = colour("muted");
    ctx.setLineDash([4, 4]);
    ctx.textAlign = "left";
    for (const [attempt, epoch] of this.marks) {
      const x = Math.round(plot.valToPos(epoch - 0.5, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(`attempt ${attempt}`, x + 4, bbox.top + 12);
    }
    ctx.restore();
  }

  // For those who do not see the canvas: the newest value of each curve, in words.
  describe(chart, group, data) {
    const show = group === "fractions" ? percent : number;
    const latest = chart.names.map((name, index) => `${name} ${show(newest(data[index + 1]))}`);
    const canvas = chart.body.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${titleOf(group)} by epoch. Epoch ${data[0].at(-1)}: ${latest.join(", ")}`);
    chart.box.dataset.points = String(data[0].length);
  }

  rebuild() {
    for (const [group, chart] of this.charts) {
      chart.plot.destroy();
      chart.plot = this.plot(group, chart.names, this.columns(chart.names), chart.body);
      this.describe(chart, group, this.columns(chart.names));
    }
  }

  resize() {
    for (const { plot, body } of this.charts.values()) {
      const width = innerWidth(body);
      if (width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }
}
