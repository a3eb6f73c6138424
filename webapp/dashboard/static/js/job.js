// A job's page: head, curves, log and panels, kept true by the job's one event stream.

import { json } from "./api.js";
import "./actions.js";
import { Charts } from "./charts.js";
import { showAnswer, showJob, showMetrics, showProgress, showStatus, showWaiting } from "./job-view.js";
import { LoadCharts } from "./load.js";
import { Log } from "./log.js";
import { refreshPanel } from "./panel.js";
import { follow, showLive } from "./stream.js";
import { toast, toastNext } from "./toast.js";
import { lookForFiles } from "./trained.js";

const QUEUED_MS = 5000;
const PANELS = ["attempts", "history", "artifacts"];
const ENDED = ["completed", "failed", "cancelled"];
const holder = document.querySelector("[data-job]");
const id = holder.dataset.job;
const base = `/api/v1/training/jobs/${id}`;
const charts = new Charts(document.getElementById("charts"), { empty: document.getElementById("charts-empty") });
const load = new LoadCharts(document.getElementById("load-charts"), { section: document.getElementById("load") });
const report = (error) => toast(error.message, { error: true });
const log = new Log(document.getElementById("log"), document.getElementById("log-jump"), { jobId: id, report });

const ended = () => ENDED.includes(holder.dataset.status);

async function loadLoad() {
  load.set(await json("GET", `${base}/load?points=600`));
}

let since = null; // the metrics told since the curves were asked for: newer than the answer

async function loadMetrics() {
  const mine = (since = []);
  const [metrics, attempts] = await Promise.all([
    json("GET", `${base}/metrics?points=2000`),
    json("GET", `${base}/attempts`),
  ]);
  if (mine !== since) return; // asked for again meanwhile
  for (const [name, points] of Object.entries(metrics)) {
    charts.add(name, points);
    markAttempts(points, attempts.items);
  }
  mine.forEach(drawMetrics);
  since = null;
}

function drawMetrics(event) {
  for (const [name, value] of Object.entries(event.values)) charts.add(name, [{ epoch: event.epoch, value }]);
  charts.mark(event.attempt, event.epoch);
}

// Which attempt a point is of shows in its time: it lies after that attempt's start.
function markAttempts(points, attempts) {
  for (const { number, started_at: started } of attempts) {
    const first = started && points.find((point) => point.time >= started);
    if (first) charts.mark(number, first.epoch);
  }
}

// What follows training is other scripts' concern; see trained.js.
const tell = (name, detail) => document.dispatchEvent(new CustomEvent(name, { detail }));

async function refresh() {
  const job = await showAnswer(holder, json("GET", base));
  if (job) tell("job-seen", job);
}

async function lookAtWait() {
  showWaiting(holder, await json("GET", base));
}

const stream = follow(
  `${base}/events`,
  {
    snapshot(event) {
      showJob(holder, event);
      tell("job-seen", event);
      // Between the page and its stream more may have happened than the snapshot tells.
      for (const panel of PANELS) refreshPanel(panel);
      loadMetrics().catch(report);
      loadLoad().catch(report);
      lookForFiles().catch(report);
      log.load(event.attempt).catch(report);
    },
    status(event) {
      showStatus(holder, event.status, event.attempt);
      refresh().catch(report);
      refreshPanel("attempts");
      refreshPanel("history");
      if (ended()) refreshPanel("artifacts");
    },
    progress(event) {
      showProgress(holder, event);
    },
    metrics(event) {
      showMetrics(holder, event.values);
      drawMetrics(event);
      since?.push(event);
    },
    log(event) {
      log.take(event);
    },
    load(event) {
      load.add(event);
    },
    decided() {
      refreshPanel("facts");
    },
    artifact(event) {
      refreshPanel("artifacts");
      tell("job-artifact", event);
    },
  },
  { onLive: showLive, until: ended },
);

// Why a job waits changes with the jobs before it and with the workers: no event of its own says so.
setInterval(() => {
  if (!document.hidden && holder.dataset.status === "queued") lookAtWait().catch(() => {});
}, QUEUED_MS);

document.addEventListener("job-changed", () => {
  refresh().then(() => {
    if (!ended()) stream.open();
  }, report);
});

document.addEventListener("job-deleted", () => {
  toastNext(`${holder.dataset.name}: Deleted.`);
  location.assign(holder.dataset.projectPage);
});
