// The form of a new data set: a zip that is sent with its progress, or a folder of the server.

import { ApiError, json, refreshSession, sendForm } from "./api.js";
import { clear, read, show } from "./forms.js";
import { bytes } from "./format.js";
import { Waiting, followCheck, giveUp, newCheckId } from "./waiting.js";

const form = document.getElementById("dataset-form");
const { file, name } = form ? form.elements : {};
const submitButton = form?.querySelector("[data-submit]");
const giveUpButton = form?.querySelector("[data-give-up]");
let underWay = null; // {id, abort}: what the cancel button ends

const source = () => form.elements.source.value;

function followSource() {
  for (const part of form.querySelectorAll("[data-source]")) part.hidden = part.dataset.source !== source();
  submitButton.textContent = source() === "upload" ? "Upload" : "Register";
}

function followFile() {
  const chosen = file.files[0];
  const hint = document.getElementById("file-chosen");
  hint.textContent = chosen ? `${chosen.name}, ${bytes(chosen.size)}` : "Choose a file, or drop it here.";
  if (chosen && !name.value) name.value = chosen.name.replace(/\.zip$/i, "").slice(0, 100);
}

function values() {
  const found = {};
  for (const key of ["name", "format", "task_type", "val_share", "split_seed"]) {
    const input = form.elements[key];
    if (input.value.trim() !== "") found[key] = read(input);
  }
  return found;
}

// What can be known before anything is sent.
function problems(described) {
  const found = {};
  if (!described.name) found.name = ["Give it a name"];
  if (source() === "path" && !form.elements.path.value.trim()) found.path = ["Name a folder"];
  if (source() === "upload") {
    const chosen = file.files[0];
    const most = Number(form.dataset.mostBytes);
    if (!chosen) found.file = ["Choose a zip file"];
    else if (chosen.size > most) found.file = [`It has ${bytes(chosen.size)}; at most ${bytes(most)} are taken`];
  }
  return found;
}

function register(described, id) {
  const body = { ...described, project_id: Number(form.dataset.project), path: form.elements.path.value.trim(), check_id: id };
  return json("POST", "/api/v1/datasets", body);
}

async function send(described, id, waiting) {
  await refreshSession(); // a login that ran out is renewed by reading, not by sending gigabytes
  if (underWay.givenUp) throw new ApiError(0, { detail: "It was cancelled." });
  const body = new FormData();
  body.set("project_id", form.dataset.project);
  body.set("check_id", id);
  for (const [key, value] of Object.entries(described)) body.set(key, String(value));
  body.set("file", file.files[0]); // last: what is wrong with the rest is said before it is sent
  const sending = sendForm(`/api/v1/datasets/upload?project_id=${form.dataset.project}`, body, (done, total) => {
    if (done < total) waiting.show("sending", done, total);
    else if (!underWay.stop) underWay.stop = followCheck(id, waiting);
  });
  underWay.abort = sending.abort;
  return sending.answer;
}

function busy(on) {
  submitButton.disabled = on;
  if (on) submitButton.setAttribute("aria-busy", "true");
  else submitButton.removeAttribute("aria-busy");
  giveUpButton.hidden = !on;
}

async function submit() {
  clear(form);
  const described = values();
  const wrong = problems(described);
  if (Object.keys(wrong).length) {
    show(form, { fields: wrong });
    return;
  }
  const id = newCheckId();
  const waiting = new Waiting(form.querySelector("[data-waiting]"));
  underWay = { id, abort: null, stop: null, givenUp: false };
  busy(true);
  try {
    waiting.show(source() === "upload" ? "sending" : "checking", 0, null);
    if (source() === "path") underWay.stop = followCheck(id, waiting);
    const made = source() === "path" ? await register(described, id) : await send(described, id, waiting);
    location.assign(`/datasets/${made.id}`);
  } catch (error) {
    if (!underWay.givenUp) show(form, error instanceof ApiError || error.fields ? error : { message: error.message });
    waiting.hide();
    busy(false);
    if (underWay.givenUp) submitButton.focus();
  } finally {
    underWay.stop?.();
  }
}

function cancel() {
  underWay.givenUp = true;
  underWay.abort?.();
  giveUp(underWay.id);
}

function drop(event) {
  event.preventDefault();
  event.currentTarget.classList.remove("over");
  const [dropped] = event.dataTransfer.files;
  if (!dropped) return;
  const transfer = new DataTransfer();
  transfer.items.add(dropped);
  file.files = transfer.files;
  followFile();
}

if (form) {
  const zone = document.getElementById("drop-zone");
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", drop);
  file.addEventListener("change", followFile);
  form.addEventListener("change", (event) => event.target.name === "source" && followSource());
  giveUpButton.addEventListener("click", cancel);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  followSource();
  followFile();
}
