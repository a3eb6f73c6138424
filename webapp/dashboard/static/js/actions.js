// The buttons of a job: start, cancel, resume, clone, delete. A button is disabled while its request runs.

import { json } from "./api.js";
import { keepFocus } from "./focus.js";
import { bytes } from "./format.js";
import { toast, toastNext } from "./toast.js";

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
  async clone(id, holder) {
    goToCopy(await json("POST", `${jobs(id)}/clone`, {}), holder);
    return "";
  },
  // What ran out of memory, as a new job with half the batch.
  async halve(id, holder, button) {
    const overrides = { batch_size: Number(button.dataset.batchSize) };
    const copy = await json("POST", `${jobs(id)}/clone`, { overrides });
    await startMade(copy.id);
    goToCopy(copy, holder);
    return "";
  },
  async cancel(id, holder, button) {
    const mode = holder.dataset.status === "running" ? await askHow(holder, button) : "now";
    if (mode === null) return "";
    await json("POST", `${jobs(id)}/cancel`, { mode });
    return mode === "after_epoch" ? "It stops after this epoch." : "Cancelling.";
  },
  async delete(id, holder, button) {
    if (!(await askWhetherToDelete(id, holder, button))) return "";
    await json("DELETE", jobs(id));
    document.dispatchEvent(new CustomEvent("job-deleted", { detail: holder }));
    return "";
  },
};

// Starts a job that was just made and whose page comes next. Where that is refused, the job is there
// all the same: its page says why, and has the button to try again.
export async function startMade(id) {
  try {
    await json("POST", `${jobs(id)}/start`);
  } catch (error) {
    toastNext(`It was not started. ${error.message}`, { error: true });
  }
}

// The copy is on its own page. Who may not let a job take another's place has a copy that
// does not.
function goToCopy(copy, holder) {
  if ("preempt" in holder.dataset && !copy.preempt) {
    toastNext("The copy takes no other job's place: only an owner of the project may allow that.");
  }
  location.assign(`/jobs/${copy.id}`);
}

// Resolves to the chosen mode, or null where the person thought better of it.
async function askHow(holder, button) {
  const dialog = document.getElementById("cancel-dialog");
  const sure = await confirmed(dialog, holder, button);
  return sure ? dialog.querySelector("input[name=mode]:checked").value : null;
}

async function askWhetherToDelete(id, holder, button) {
  const dialog = document.getElementById("delete-dialog");
  const job = await json("GET", jobs(id));
  dialog.querySelector("[data-begun]").hidden = job.attempt === 0;
  dialog.querySelector("[data-never-begun]").hidden = job.attempt > 0;
  dialog.querySelector("[data-job-size]").textContent = job.output_bytes ? ` (${bytes(job.output_bytes)})` : "";
  return confirmed(dialog, holder, button);
}

// Resolves to whether the person went through with what a dialog asks about a job. A new status that
// hides the button answers the question: the job ended, or another person started it.
function confirmed(dialog, holder, button) {
  if (!button.checkVisibility()) return false;
  const statuses = new MutationObserver(() => {
    if (!button.checkVisibility()) dialog.close();
  });
  statuses.observe(holder, { attributeFilter: ["data-status"] });
  dialog.querySelector("[data-job-name]").textContent = holder.dataset.name;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const answer = () => {
      statuses.disconnect();
      resolve(dialog.returnValue === "confirm");
    };
    dialog.addEventListener("close", answer, { once: true });
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
