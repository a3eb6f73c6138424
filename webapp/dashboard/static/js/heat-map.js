// A confusion matrix as a table that reads as one: the colour repeats what the number says.

import { el } from "./elements.js";

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function heatMap({ truth, predicted, matrix }) {
  const corner = el("td", { className: "none" });
  const heads = predicted.map((name) => el("th", { scope: "col", title: name }, name));
  const rows = matrix.map((counts, row) => {
    const sum = counts.reduce((a, b) => a + b, 0);
    const cells = counts.map((count, column) => cell(count, sum, truth[row], predicted[column]));
    return el("tr", {}, el("th", { scope: "row", title: truth[row] }, truth[row]), ...cells);
  });
  const table = el(
    "table",
    { className: "heat" },
    el("caption", { className: "visually-hidden" }, "Rows: what is true. Columns: what the model says."),
    el("thead", {}, el("tr", {}, corner, ...heads)),
    el("tbody", {}, ...rows),
  );
  const frame = el("div", { className: "table-scroll framed tall", tabIndex: 0, role: "group", "aria-label": "Confusion matrix" }, table);
  return el("div", {}, frame, el("p", { className: "small muted" }, "Rows are what is true, columns what the model says."));
}

function cell(count, sum, truth, predicted) {
  const share = sum ? count / sum : 0;
  const made = el("td", {}, count ? compact.format(count) : "·");
  made.className = count === 0 ? "none" : truth === predicted ? "right" : "";
  made.style.setProperty("--share", share.toFixed(3));
  made.title = `${truth}, said to be ${predicted}: ${count.toLocaleString("en")} (${(100 * share).toFixed(1)} % of the row)`;
  return made;
}
