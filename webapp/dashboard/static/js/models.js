// The search among a framework's models: words that a name has, and what is known of each.

import { json } from "./api.js";
import { toast } from "./toast.js";

const SHOWN = 30;
const PAUSE_MS = 200;
const WEIGHTS = {
  cached: "published weights are here",
  download: "published weights can be downloaded",
  none: "no published weights",
};

export class Models {
  constructor(input, { list, hint, onChoice }) {
    this.input = input;
    this.list = list;
    this.hint = hint;
    this.onChoice = onChoice;
    this.filter = {};
    this.asked = 0;
    input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.search(), PAUSE_MS);
    });
    list.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-model]");
      if (!button) return;
      input.value = button.dataset.model;
      input.focus(); // now: when the list has come, the person may be elsewhere
      this.search();
    });
  }

  // filter: {framework, task_type}
  restrict(filter) {
    this.filter = filter;
    return this.search();
  }

  async search() {
    this.asked += 1;
    const mine = this.asked;
    const query = new URLSearchParams({ ...this.filter, limit: SHOWN });
    const typed = this.input.value.trim();
    if (typed) query.set("q", typed);
    try {
      const found = await json("GET", `/api/v1/models?${query}`);
      if (mine !== this.asked) return; // an older answer that was overtaken
      const chosen = found.items.find((item) => item.name === typed) ?? null;
      this.list.hidden = chosen !== null && found.total === 1;
      this.list.replaceChildren(...found.items.map((item) => row(item, chosen)));
      this.hint.textContent = chosen ? describe(chosen) : say(found.total);
      this.onChoice(chosen);
    } catch (error) {
      toast(error.message, { error: true });
    }
  }
}

function say(total) {
  if (total === 0) return "No model has these words in its name.";
  return total > SHOWN ? `${total} models fit; the first ${SHOWN} are below.` : `${total} fit.`;
}

function describe(item) {
  const millions = item.params_m ? `${item.params_m} M parameters, ` : "";
  return `${millions}${item.input_size} px, ${WEIGHTS[item.pretrained]}`;
}

function row(item, chosen) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.model = item.name;
  button.setAttribute("aria-pressed", String(item === chosen));
  const name = document.createElement("span");
  name.className = "mono";
  name.textContent = item.name;
  const facts = document.createElement("span");
  facts.className = "muted small";
  facts.textContent = describe(item);
  button.append(name, facts);
  const line = document.createElement("li");
  line.append(button);
  return line;
}
