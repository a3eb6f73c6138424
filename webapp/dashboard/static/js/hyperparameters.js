// The hyperparameters of the chosen framework: what differs from the defaults, as fields and as
// JSON. A field left empty is not sent, so the default holds.

import { loose, read } from "./forms.js";

const PREFIX = "hyperparameters.";

export class Hyperparameters {
  constructor(form) {
    this.form = form;
    this.json = document.getElementById("hyperparameters-json");
    this.problem = document.getElementById("hyperparameters-json-problem");
    this.count = document.getElementById("changed-count");
    form.addEventListener("input", (event) => {
      if (event.target === this.json) this.fromJson();
      else if (event.target.name?.startsWith(PREFIX)) this.show();
    });
    document.getElementById("reset-hyperparameters").addEventListener("click", () => this.set({}));
  }

  // Only the chosen framework's fields are shown and sent, and of these those of the task.
  choose(framework, task) {
    for (const set of this.form.querySelectorAll("fieldset[data-framework]")) {
      set.hidden = set.disabled = set.dataset.framework !== framework;
    }
    for (const field of this.form.querySelectorAll(".hyperparameters [data-tasks]")) {
      const fits = field.dataset.tasks.split(" ").includes(task);
      field.hidden = !fits;
      for (const input of field.querySelectorAll("input, select")) input.disabled = !fits;
    }
    this.show();
  }

  inputs() {
    return [...this.form.elements].filter(
      (input) => input.name?.startsWith(PREFIX) && !input.matches(":disabled"),
    );
  }

  values() {
    const values = {};
    for (const input of this.inputs()) {
      if (input.value.trim() !== "") values[input.name.slice(PREFIX.length)] = read(input);
    }
    return values;
  }

  // Unknown names are told, and leave the known ones to be set.
  set(values) {
    const known = new Map(this.inputs().map((input) => [input.name.slice(PREFIX.length), input]));
    for (const [name, input] of known) input.value = name in values ? written(values[name]) : "";
    const unknown = Object.keys(values).filter((name) => !known.has(name));
    this.say(unknown.length ? `There is no ${unknown.join(", ")} here.` : "");
    this.show();
  }

  fromJson() {
    const text = this.json.value.trim();
    try {
      const values = text ? JSON.parse(text) : {};
      if (values === null || typeof values !== "object" || Array.isArray(values)) {
        throw new SyntaxError("an object is wanted, like {\"name\": value}");
      }
      this.set(values);
    } catch (error) {
      this.say(`This is not JSON: ${error.message}`);
    }
  }

  say(problem) {
    this.problem.textContent = problem;
    this.json.setCustomValidity(problem);
    if (problem) this.json.setAttribute("aria-invalid", "true");
    else this.json.removeAttribute("aria-invalid");
  }

  show() {
    const changed = this.inputs().filter((input) => input.value.trim() !== "");
    this.count.textContent = changed.length ? `${changed.length} changed` : "All at their defaults";
    for (const group of this.form.querySelectorAll(".hyperparameters details.group")) {
      const mine = changed.filter((input) => group.contains(input)).length;
      const sign = group.querySelector("[data-changed]");
      sign.hidden = mine === 0;
      sign.textContent = `${mine} changed`;
    }
    if (document.activeElement === this.json) return;
    const values = this.values();
    this.json.value = Object.keys(values).length ? JSON.stringify(values, null, 2) : "";
    this.say("");
  }
}

function written(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "string" && loose(value) === value ? value : JSON.stringify(value);
}
