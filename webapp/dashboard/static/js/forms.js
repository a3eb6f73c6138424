// Forms that speak to the API: data-api names the path, fields become JSON by their data-type,
// refusals are shown beside the fields they are of.

import { json } from "./api.js";
import { toast } from "./toast.js";

const READ = {
  integer: (text) => Number.parseInt(text, 10),
  number: (text) => Number(text),
  json: (text) => JSON.parse(text),
  list: (text) => text.split(",").map((part) => part.trim()).filter(Boolean),
};

function body(form) {
  const values = {};
  for (const input of form.elements) {
    if (!input.name || input.disabled || input.type === "submit") continue;
    if (input.type === "checkbox") {
      values[input.name] = input.checked;
    } else if (input.value.trim() !== "") {
      values[input.name] = read(input);
    }
  }
  return Object.keys(values).length ? values : undefined;
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

function read(input) {
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

function clear(form) {
  form.querySelector("[data-form-problem]").hidden = true;
  for (const place of form.querySelectorAll(".problem")) place.textContent = "";
  for (const input of form.elements) input.removeAttribute("aria-invalid");
}

// Messages go to their field; what names no field of this form goes to the form's head.
function show(form, error) {
  const left = [];
  let first = null;
  for (const [name, messages] of Object.entries(error.fields ?? {})) {
    const key = name.split(".")[0];
    const input = form.elements[key];
    const place = form.querySelector(`[data-problem="${key}"]`);
    if (!input || !place) {
      left.push(`${name}: ${messages.join(" ")}`);
      continue;
    }
    const prefix = name === key ? "" : `${name.slice(key.length + 1)}: `;
    place.textContent = `${place.textContent} ${prefix}${messages.join(" ")}`.trim();
    input.setAttribute("aria-invalid", "true");
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
  clear(form);
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    const made = await json("POST", form.dataset.api, body(form));
    if (button.name === "start") await json("POST", `${form.dataset.api}/${made.id}/start`);
    goTo(form.dataset.then.replace("{id}", made?.id));
  } catch (error) {
    if (error.fields || error.status) show(form, error);
    else toast(error.message, { error: true });
    button.disabled = false;
    button.removeAttribute("aria-busy");
  }
}

for (const form of document.querySelectorAll("form[data-api]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit(form, event.submitter ?? form.querySelector("button"));
  });
}

// Dialogs that are opened by a button.
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens).showModal();
  const closer = event.target.closest("[data-closes]");
  if (closer) closer.closest("dialog").close();
});
