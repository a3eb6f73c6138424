// An image that a person drops, and what the job's best model sees in it.

import { upload } from "./api.js";
import { el } from "./elements.js";
import { percent } from "./format.js";
import { drawPrediction } from "./prediction.js";
import { toast } from "./toast.js";

const LOWEST = "0.05"; // is asked for; the slider then shows what is above its own score
const MOST_CLASSES = 10;

export function offerTry(base) {
  const drop = document.getElementById("try-drop");
  const file = document.getElementById("try-file");
  file.addEventListener("change", () => {
    if (file.files[0]) run(file.files[0], base, drop);
    file.value = "";
  });
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) run(event.dataTransfer.files[0], base, drop);
  });
}

let asked = 0;

async function run(file, base, drop) {
  asked += 1;
  const mine = asked;
  drop.setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    const form = new FormData();
    form.append("file", file);
    form.append("threshold", LOWEST);
    const told = await upload(`${base}/predict`, form);
    const took = (performance.now() - began) / 1000;
    // Not every format that the model takes is one that a browser can draw.
    const picture = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
    if (mine !== asked) return; // another image was chosen meanwhile
    await show(told, picture, `Answered in ${took.toFixed(2)} s; the model took ${Math.round(1000 * told.seconds)} ms.`);
  } catch (error) {
    toast(error.message, { error: true });
  } finally {
    if (mine === asked) drop.removeAttribute("aria-busy");
  }
}

async function show(told, picture, sentence) {
  document.getElementById("try-result").hidden = false;
  document.getElementById("try-told").textContent = sentence;
  const canvas = document.getElementById("try-canvas");
  const chooser = document.getElementById("try-threshold");
  const slider = chooser.querySelector("input");
  chooser.hidden = !told.objects;

  async function draw() {
    const score = Number(slider.value);
    chooser.querySelector("output").textContent = score.toFixed(2);
    const objects = told.objects?.filter((one) => one.score >= score) ?? null;
    await drawPrediction(canvas, picture, { ...told, objects });
    document.getElementById("try-list").replaceChildren(list({ ...told, objects }));
    canvas.setAttribute("aria-label", inWords({ ...told, objects }));
  }

  slider.oninput = draw;
  await draw();
}

function inWords({ classes, objects, legend }) {
  if (classes) return `The image; likeliest class: ${classes[0].name}, ${percent(classes[0].score)}`;
  if (objects) return `The image with ${objects.length} found: ${objects.map((one) => one.class).join(", ")}`;
  return `The image with the places of ${legend.map((one) => one.name).join(", ")}`;
}

function list({ classes, objects, legend }) {
  const entries =
    classes?.slice(0, MOST_CLASSES).map(({ name, score }) => [name, score, null, true]) ??
    objects?.map((one) => [one.class, one.score, one.colour, false]) ??
    legend.map(({ name, share, colour }) => [name, share, colour, false]);
  if (!entries.length) return el("p", { className: "muted" }, "Nothing was found with this score.");
  return el("ul", { className: "scores" }, ...entries.map((entry) => row(...entry)));
}

function row(name, share, colour, withBar) {
  const swatch = el("span", { className: "swatch" });
  if (colour) swatch.style.setProperty("--swatch", colour);
  const made = el("li", {}, colour ? swatch : "", el("span", { className: "name" }, name), el("span", { className: "number" }, percent(share)));
  if (withBar) made.append(el("progress", { max: 1, value: share, "aria-label": name }));
  return made;
}
