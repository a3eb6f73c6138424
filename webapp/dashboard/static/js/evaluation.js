// The best model's evaluation: numbers, the table of classes, confusion, curves, the worst images.

import { json } from "./api.js";
import { el } from "./elements.js";
import { number, percent } from "./format.js";
import { heatMap } from "./heat-map.js";
import { drawCurves } from "./pr-curves.js";

const TITLES = {
  top1: "Top-1", top5: "Top-5", f1: "F1", map: "mAP", map50: "mAP50", map50_95: "mAP50-95",
  mask_map50: "Mask mAP50", mask_map50_95: "Mask mAP50-95", pose_map50: "Pose mAP50",
  pose_map50_95: "Pose mAP50-95", mean_iou: "Mean IoU", pixel_accuracy: "Pixel accuracy",
  ap: "AP", ap50: "AP50", ap50_95: "AP50-95", iou: "IoU", all_right: "All labels right",
};
const MOST_ROWS = 500;

const titleOf = (name) => TITLES[name] ?? name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");
const shown = (name, value) => (name === "loss" ? number(value) : percent(value));
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export async function loadEvaluation(section, base) {
  const whole = await json("GET", `${base}/evaluation`);
  const splits = Object.keys(whole.splits);
  const chooser = section.querySelector("#evaluation-split");
  const select = chooser.querySelector("select");
  select.replaceChildren(...splits.map((name) => el("option", { value: name }, name)));
  select.onchange = () => show(section, whole, select.value, base);
  chooser.hidden = splits.length < 2;
  show(section, whole, splits[0], base);
  section.dataset.loaded = "true";
}

function show(section, whole, split, base) {
  const told = whole.splits[split];
  const put = (part, ...children) => section.querySelector(`[data-part="${part}"]`).replaceChildren(...children);
  put("about", about(told, split));
  put("metrics", ...Object.entries(told.metrics).map(stat), ...calibrationStat(told));
  put("classes", titled("Classes", classTable(told)));
  put("confusion", ...(told.confusion ? [titled("Confusion matrix", heatMap(told.confusion))] : []));
  put("confused", ...confused(told));
  put("wrong", ...gallery(told, base));
  const place = section.querySelector('[data-part="curves"]');
  place.replaceChildren();
  if (told.curves.length) drawCurves(place, told.curves);
}

function about(told, split) {
  const all = told.images === told.images_in_split;
  const images = all ? `all ${plural(told.images, "image")}` : `${told.images} of ${told.images_in_split} images`;
  const point = told.operating_point == null ? "" : ` Precision and recall at a score of ${number(told.operating_point)}.`;
  return `On ${images} of ${split}, in ${number(told.seconds)} s.${point} ${told.notes.join(" ")}`;
}

function stat([name, value]) {
  return el("div", { className: "stat" }, el("dt", {}, titleOf(name)), el("dd", {}, shown(name, value)));
}

function calibrationStat(told) {
  if (!told.calibration) return [];
  return [
    el(
      "div",
      { className: "stat", title: "How far the model's confidence is from how often it is right" },
      el("dt", {}, "Calibration error"),
      el("dd", {}, percent(told.calibration.error)),
    ),
  ];
}

function titled(title, content) {
  return el("div", {}, el("h3", {}, title), content);
}

function classTable(told) {
  const columns = ["name", "support", ...told.columns];
  const body = el("tbody");
  const heads = columns.map((column) => {
    const button = el("button", { type: "button", className: "sort" }, column === "name" ? "Class" : titleOf(column));
    const head = el("th", { scope: "col", className: column === "name" ? "" : "number" }, button);
    button.addEventListener("click", () => sortBy(column, head));
    return head;
  });
  const rows = [...told.classes];

  function sortBy(column, head) {
    const falls = head.ariaSort ? head.ariaSort === "ascending" : column !== "name";
    const way = falls ? -1 : 1;
    rows.sort((a, b) => way * compare(a[column], b[column]));
    for (const other of heads) other.removeAttribute("aria-sort");
    head.ariaSort = falls ? "descending" : "ascending";
    fill();
  }

  function fill() {
    body.replaceChildren(...rows.slice(0, MOST_ROWS).map((row) => el("tr", {}, ...columns.map((column) => cell(row, column)))));
  }

  fill();
  const table = el("table", { className: "table" }, el("thead", {}, el("tr", {}, ...heads)), body);
  return el("div", { className: "table-scroll framed tall", tabIndex: 0, role: "group", "aria-label": "Classes" }, table);
}

function compare(a, b) {
  if (a == null || b == null) return (a == null) - (b == null);
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

function cell(row, column) {
  if (column === "name") return el("td", { className: "title" }, row.name);
  const value = column === "support" ? row.support.toLocaleString("en") : percent(row[column]);
  return el("td", { className: "number" }, value);
}

function confused(told) {
  const pairs = told.most_confused.slice(0, 8);
  if (!pairs.length) return [];
  const ofObjects = told.columns.includes("ap50"); // there the background is no class
  const words = ({ truth, predicted }) => {
    if (ofObjects && predicted === "background") return `${truth} missed`;
    if (ofObjects && truth === "background") return `${predicted} found where there is none`;
    return `${truth} taken for ${predicted}`;
  };
  const items = pairs.map((pair) => el("li", {}, `${words(pair)}: ${pair.count.toLocaleString("en")}`));
  return [titled("Most often confused", el("ul", { className: "small" }, ...items))];
}

function gallery(told, base) {
  if (!told.wrong.length) return [];
  const wide = "missed" in told.wrong[0] || "mean_iou" in told.wrong[0];
  const items = told.wrong.map((entry) => {
    const [head, detail] = caption(entry);
    const image = el("img", {
      src: `${base}/evaluation/wrong/${encodeURIComponent(entry.file)}`,
      alt: `${entry.image}: ${head}`,
      loading: "lazy",
    });
    return el("li", {}, el("figure", {}, image, el("figcaption", {}, head, el("span", {}, detail))));
  });
  return [titled("Most wrong images", el("ul", { className: wide ? "gallery wide" : "gallery" }, ...items))];
}

function caption(entry) {
  if ("missed" in entry) {
    const parts = [
      [entry.missed, "missed"],
      [entry.false, "false"],
      [entry.mistaken, "mistaken"],
    ].filter(([count]) => count);
    return [parts.map(([count, word]) => `${count} ${word}`).join(", "), entry.image];
  }
  if ("mean_iou" in entry) return [`Mean IoU ${percent(entry.mean_iou)}`, entry.image];
  const said = entry.predicted.join(", ") || "nothing";
  const sure = entry.score == null ? "" : ` (${percent(entry.score)})`;
  return [`${said}${sure}, truly ${entry.truth.join(", ") || "nothing"}`, entry.image];
}
