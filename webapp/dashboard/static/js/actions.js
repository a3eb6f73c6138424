// The buttons of a job: start, cancel, resume, clone. A button is disabled while its request runs.

import { json } from "./api.js";
import { keepFocus } from "./focus.js";
import { toast } from "./toast.js";

const jobs = (id) => `/api/v1/training/jobs/${id}`;

const ACTIONS = {
  async start(id) {
    await json("POST", `${jobs(id)}/start`);
    return "Queued.";
  },
  async resume(id) {
    await json("POST", `${jobs(id)}/resume`);
    return "Queued again; it goes on from its last checkpoint.";
  },
  async clone(id) {
    const copy = await json("POST", `${jobs(id)}/clone`, {});
    location.assign(`/jobs/${copy.id}`);
    return "";
  },
  // What ran out of memory, as a new job with half the batch.
  async halve(id, holder, button) {
    const overrides = { batch_size: Number(button.dataset.batchSize) };
    const copy = await json("POST", `${jobs(id)}/clone`, { overrides });
    await json("POST", `${jobs(copy.id)}/start`);
    location.assign(`/jobs/${copy.id}`);
    return "";
  },
  async cancel(id, holder) {
    const mode = holder.dataset.status === "running" ? await askHow(holder) : "now";
    if (mode === null) return "";
    await json("POST", `${jobs(id)}/cancel`, { mode });
    return mode === "after_epoch" ? "It stops after this epoch." : "Cancelling.";
  },
};

// Resolves to the chosen mode, or null where the person thought better of it.
function askHow(holder) {
  const dialog = document.getElementById("cancel-dialog");
  dialog.querySelector("[data-job-name]").textContent = holder.dataset.name;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const chosen = dialog.querySelector("input[name=mode]:checked");
        resolve(dialog.returnValue === "confirm" ? chosen.value : null);
      },
      { once: true },
    );
  });
}

async function run(button) {
  const holder = button.closest("[data-job]");
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    const message = await ACTIONS[button.dataset.action](holder.dataset.job, holder, button);
    if (message) {
      toast(`${holder.dataset.name}: ${message}`);
      document.dispatchEvent(new CustomEvent("job-changed", { detail: holder.dataset.job }));
    }
  } catch (error) {
    toast(error.message, { error: true });
  } finally {
    button.disabled = false;
    button.removeAttribute("aria-busy");
    keepFocus(holder, button);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (button) run(button);
});
