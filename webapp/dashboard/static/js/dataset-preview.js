// Some images of a data set with what its annotations say, drawn over them; a larger view of each.

import { json } from "./api.js";
import { LAYERS, classColour, draw } from "./annotations.js";

const place = document.getElementById("preview");
const classes = JSON.parse(place.dataset.classes);
const keypoints = JSON.parse(place.dataset.keypoints);
const grid = place.querySelector("[data-preview-grid]");
const state = place.querySelector("[data-preview-state]");
const split = place.querySelector("[data-preview-split]");
const more = place.querySelector("[data-preview-more]");
const layers = place.querySelector("[data-layers]");
const legend = place.querySelector("[data-legend]");
const dialog = document.getElementById("image-dialog");
const STEPS = [12, 30, 60];
const LEGEND_SHOWN = 24;
let limit = STEPS[0];
let asked = 0;
let items = [];
let open = 0; // which image the dialog shows

const nameOf = (id) => classes[id] ?? `class ${id}`;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function picture(item) {
  if (!item.thumbnail) return element("span", { class: "preview-broken" }, "It cannot be read");
  return draw(item, { skeleton: keypoints?.skeleton ?? [] });
}

// What a person who cannot see it is told: the file and how many of each class.
function inWords(item) {
  const counts = new Map();
  for (const thing of item.objects) counts.set(thing.class_id, (counts.get(thing.class_id) ?? 0) + 1);
  if (!counts.size) return item.classes.map(nameOf).join(", ") || "no class";
  return [...counts].map(([id, number]) => `${number} ${nameOf(id)}`).join(", ");
}

function card(item, number) {
  const button = element("button", { type: "button", class: "preview-open", "aria-label": `${item.file}: ${inWords(item)}` }, picture(item));
  button.addEventListener("click", () => show(number));
  const labels = element("span", { class: "preview-labels", "aria-hidden": "true" });
  for (const id of item.classes.slice(0, 3)) labels.append(chip(id));
  if (item.classes.length > 3) labels.append(element("span", { class: "muted small" }, `+${item.classes.length - 3}`));
  if (!item.classes.length) labels.append(element("span", { class: "muted small" }, "no class"));
  return element("li", { class: "preview-card" }, button, labels);
}

function chip(id) {
  const made = element("span", { class: "class-chip" }, element("span", { class: "swatch" }), nameOf(id));
  made.firstChild.style.setProperty("background-color", classColour(id));
  return made;
}

function showLegend() {
  const used = [...new Set(items.flatMap((item) => item.classes))].sort((a, b) => a - b);
  legend.hidden = used.length === 0;
  legend.replaceChildren(...used.slice(0, LEGEND_SHOWN).map((id) => element("li", {}, chip(id))));
  if (used.length > LEGEND_SHOWN) legend.append(element("li", { class: "muted small" }, `and ${used.length - LEGEND_SHOWN} more`));
}

// Only what these images have can be switched off.
function showLayers() {
  const had = new Map([...layers.querySelectorAll("input")].map((input) => [input.value, input.checked]));
  const present = LAYERS.filter((layer) => items.some(layer.isIn));
  layers.replaceChildren(
    ...present.map((layer) => {
      const input = element("input", { type: "checkbox", value: layer.name });
      input.checked = had.get(layer.name) ?? true;
      input.addEventListener("change", followLayers);
      return element("label", { class: "layer" }, input, layer.title);
    }),
  );
  followLayers();
}

function followLayers() {
  for (const root of [place, dialog]) {
    for (const input of layers.querySelectorAll("input")) root.classList.toggle(`hide-${input.value}`, !input.checked);
  }
}

async function load() {
  asked += 1;
  const mine = asked;
  state.hidden = false;
  state.textContent = "Fetching images…";
  try {
    const query = new URLSearchParams({ split: split.value, limit });
    const found = await json("GET", `/api/v1/datasets/${place.dataset.dataset}/preview?${query}`);
    if (mine !== asked) return; // an older answer that was overtaken
    items = found.items;
    grid.replaceChildren(...items.map(card));
    state.hidden = items.length > 0;
    state.textContent = "No image in this split.";
    more.hidden = items.length < limit || limit >= STEPS.at(-1);
    showLegend();
    showLayers();
  } catch (error) {
    if (mine === asked) state.textContent = error.message;
  }
}

function show(number) {
  open = (number + items.length) % items.length;
  const item = items[open];
  dialog.querySelector("h2").textContent = item.file;
  dialog.querySelector("[data-stage]").replaceChildren(picture(item));
  const size = item.width ? `${item.width} × ${item.height} px. ` : "";
  dialog.querySelector("[data-image-facts]").textContent = `${size}${inWords(item)}. ${item.problems.join(" ")}`;
  dialog.querySelector("[data-image-objects]").replaceChildren(...item.classes.map((id) => element("li", {}, chip(id))));
  if (!dialog.open) dialog.showModal();
}

dialog.addEventListener("click", (event) => {
  const step = event.target.closest("[data-step]");
  if (step) show(open + Number(step.dataset.step));
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") show(open - 1);
  if (event.key === "ArrowRight") show(open + 1);
});
dialog.addEventListener("close", () => grid.children[open]?.querySelector("button").focus());
split.addEventListener("change", () => {
  limit = STEPS[0];
  load();
});
more.addEventListener("click", () => {
  limit = STEPS.find((step) => step > limit) ?? limit;
  load();
});
if (split.options.length) load();
else state.textContent = "The data set has no image.";
