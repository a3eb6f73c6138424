// Forms that speak to the API: data-api names the path, fields become JSON by their data-type,
// refusals are shown beside the fields they are of.

import { startMade } from "./actions.js";
import { json } from "./api.js";
import "./dialogs.js";
import { toast } from "./toast.js";

// JSON where it is some, else the text itself.
export function loose(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const READ = {
  boolean: (text) => text === "yes",
  loose,
  integer: (text) => Number.parseInt(text, 10),
  number: (text) => Number(text),
  json: (text) => JSON.parse(text),
  list: (text) => text.split(",").map((part) => part.trim()).filter(Boolean),
};

function body(form) {
  const values = {};
  for (const input of form.elements) {
    if (!input.name || input.matches(":disabled") || input.type === "submit") continue;
    if (input.type === "checkbox") {
      put(values, input.name, input.checked);
    } else if (input.value.trim() !== "") {
      put(values, input.name, read(input));
    }
  }
  return Object.keys(values).length ? values : undefined;
}

// A name like 'hyperparameters.momentum' is a field of a field.
function put(values, name, value) {
  const [outer, inner] = name.split(".", 2);
  if (inner === undefined) values[outer] = value;
  else values[outer] = { ...values[outer], [inner]: value };
}

// Also where only the part after # differs: what the page shows has changed.
function goTo(url) {
  const target = new URL(url, location.href);
  if (target.pathname !== location.pathname) {
    location.assign(target);
    return;
  }
  history.replaceState(null, "", target);
  location.reload();
}

export function read(input) {
  const text = input.value.trim();
  try {
    return READ[input.dataset.type]?.(text) ?? text;
  } catch (error) {
    throw new FieldError(input.name, `This is not JSON: ${error.message}`);
  }
}

class FieldError extends Error {
  constructor(name, message) {
    super(message);
    this.fields = { [name]: [message] };
  }
}

export function clear(form) {
  form.querySelector("[data-form-problem]").hidden = true;
  for (const place of form.querySelectorAll(".problem")) place.textContent = "";
  for (const input of form.elements) input.removeAttribute("aria-invalid");
}

// Messages go to their field; what names no field of this form goes to the form's head.
export function show(form, error) {
  const left = [];
  let first = null;
  for (const [name, messages] of Object.entries(error.fields ?? {})) {
    const named = (wanted) => [...form.elements].find((input) => input.name === wanted && !input.matches(":disabled"));
    const key = named(name) ? name : name.split(".")[0];
    const input = named(key);
    const place = (input?.closest(".field") ?? form).querySelector(`[data-problem="${key}"]`);
    if (!place) {
      left.push(`${name}: ${messages.join(" ")}`);
      continue;
    }
    const prefix = name === key ? "" : `${name.slice(key.length + 1)}: `;
    place.textContent = `${place.textContent} ${prefix}${messages.join(" ")}`.trim();
    if (!input) {
      place.scrollIntoView({ block: "center" });
      continue;
    }
    input.setAttribute("aria-invalid", "true");
    const group = input.closest("details");
    if (group) group.open = true;
    first ??= input;
  }
  if (first === null || left.length) {
    const head = form.querySelector("[data-form-problem]");
    head.hidden = false;
    head.textContent = left.length ? left.join(" ") : error.message;
  }
  first?.focus();
}

async function submit(form, button) {
  if (form.hasAttribute("aria-busy")) return; // its other button was faster
  clear(form);
  form.setAttribute("aria-busy", "true");
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    const made = await json("POST", form.dataset.api, body(form));
    if (button.name === "start") await startMade(made.id);
    goTo(form.dataset.then.replace("{id}", made?.id));
  } catch (error) {
    if (error.fields || error.status) show(form, error);
    else toast(error.message, { error: true });
    free(form);
  }
}

function free(form) {
  form.removeAttribute("aria-busy");
  for (const button of form.querySelectorAll("button")) {
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

const forms = document.querySelectorAll("form[data-api]");

// A page brought back from the browser's cache has its forms as they were sent.
addEventListener("pageshow", (event) => {
  if (event.persisted) forms.forEach(free);
});

for (const form of forms) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form, event.submitter ?? form.querySelector("button"));
  });
}
