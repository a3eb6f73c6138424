// A project's experiments, kept true by the project's one event stream.

import { html, json } from "./api.js";
import "./actions.js";
import { updateTimes } from "./common.js";
import { showAnswer, showJob, showMetrics, showProgress, showStatus, showWaiting } from "./job-view.js";
import { follow, showLive } from "./stream.js";
import { toast, toastNext } from "./toast.js";

const table = document.getElementById("experiments");
const rows = table.querySelector("tbody");
const total = document.getElementById("total");
const QUEUED_MS = 5000;
const pending = new Map(); // job -> timer: one look at the API for several events

function count(change) {
  total.textContent = String(Number(total.textContent) + change);
}

const row = (id) => rows.querySelector(`[data-job="${id}"]`);

function later(id, action) {
  clearTimeout(pending.get(id));
  pending.set(id, setTimeout(() => {
    pending.delete(id);
    action(id).catch((error) => {
      const isGone = error.status === 404 && !row(id); // deleted meanwhile
      if (!isGone) toast(error.message, { error: true });
    });
  }, 250));
}

async function refresh(id) {
  if (row(id)) await showAnswer(row(id), json("GET", `/api/v1/training/jobs/${id}`));
}

// A job that somebody else has just made: the server draws its row, on the newest page only. What is
// told of the job while the row is on its way finds no row: so the job is asked for once more.
async function insert(id) {
  if (!row(id) && table.dataset.newest === "yes") await drawRow(id);
  await refresh(id);
}

async function drawRow(id) {
  const template = document.createElement("template");
  template.innerHTML = await html(`/jobs/${id}/row`);
  if (row(id)) return;
  const newer = [...rows.children].filter((other) => Number(other.dataset.job) > Number(id)).at(-1);
  if (newer) newer.after(template.content);
  else rows.prepend(template.content);
  table.hidden = false;
  document.getElementById("empty")?.remove();
  count(1);
  updateTimes(rows);
}

function known(event, show) {
  const found = row(event.job_id);
  if (found) show(found);
  return found;
}

follow(
  `/api/v1/projects/${table.dataset.project}/events`,
  {
    snapshot(event) {
      const newest = Number(rows.firstElementChild?.dataset.job ?? 0);
      for (const job of event.jobs) {
        const found = known({ job_id: job.id }, (shown) => showJob(shown, job));
        // Made between the page and its stream.
        if (!found && job.id > newest) later(job.id, insert);
      }
    },
    status(event) {
      // The buttons change at once; why it waits or failed is asked for a moment later.
      const found = known(event, (shown) => showStatus(shown, event.status, event.attempt));
      later(event.job_id, found ? refresh : insert);
    },
    progress(event) {
      known(event, (found) => showProgress(found, event));
    },
    metrics(event) {
      known(event, (found) => showMetrics(found, event.values));
    },
  },
  { onLive: showLive },
);

// Why a job waits changes with the jobs before it and with the workers: no event of its own says so.
async function lookAtQueued() {
  if (document.hidden || !rows.querySelector('[data-status="queued"]')) return;
  const query = new URLSearchParams({ project_id: table.dataset.project, status: "queued", limit: 200 });
  const found = await json("GET", `/api/v1/training/jobs?${query}`);
  // Only the reason: of the status, the stream may know more by now.
  for (const job of found.items) known({ job_id: job.id }, (shown) => showWaiting(shown, job));
}

setInterval(() => lookAtQueued().catch(() => {}), QUEUED_MS); // the next look may succeed
document.addEventListener("job-changed", (event) => later(event.detail, refresh));

document.addEventListener("job-deleted", ({ detail: gone }) => {
  const told = `${gone.dataset.name}: Deleted.`;
  const neighbour = gone.nextElementSibling ?? gone.previousElementSibling;
  if (!neighbour) {
    toastNext(told);
    location.assign(table.dataset.first);
    return;
  }
  toast(told);
  gone.remove();
  neighbour.querySelector("a[href]").focus(); // the keyboard keeps its place
  count(-1);
});
