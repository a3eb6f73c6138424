// Puts what is known of a job into its element: a table's row or the job page's head.
// Status decides by CSS what is shown (data-when); here only texts and the bar change.

import { keepFocus } from "./focus.js";
import { capital, duration, number, percent } from "./format.js";

// The first that an epoch tells is its accuracy; see accuracy_metric() in adapters/contract.py.
const ACCURACY = {
  image_classification: ["top1", "map"],
  object_detection: ["map50"],
  instance_segmentation: ["mask_map50"],
  semantic_segmentation: ["mean_iou"],
  pose_estimation: ["pose_map50"],
  oriented_detection: ["map50"],
};

// What the API answers may be older than what the stream tells while the answer is on its way.
const heard = new WeakMap(); // a job's element -> {asked, told}: see showAnswer

function countsOf(holder) {
  if (!heard.has(holder)) heard.set(holder, { asked: 0, told: 0 });
  return heard.get(holder);
}

export function put(holder, field, text, title) {
  for (const element of holder.querySelectorAll(`[data-field="${field}"]`)) {
    if (element.textContent !== text) element.textContent = text;
    if (title !== undefined) element.title = title;
  }
}

export function showStatus(holder, status, attempt) {
  countsOf(holder).asked += 1; // what was asked before is overtaken
  drawStatus(holder, status, attempt);
}

function drawStatus(holder, status, attempt) {
  const focused = holder.contains(document.activeElement) ? document.activeElement : null;
  holder.dataset.status = status;
  holder.dataset.attempt = attempt;
  const badge = holder.querySelector("[data-badge]");
  badge.dataset.status = status;
  badge.textContent = capital(status);
  keepFocus(holder, focused);
}

export function showProgress(holder, progress) {
  countsOf(holder).told += 1;
  drawProgress(holder, progress);
}

function drawProgress(holder, progress) {
  if (!progress || progress.epoch == null) return;
  const epochs = progress.epochs ?? Number(holder.dataset.epochs);
  put(holder, "epochs", `${progress.epoch} / ${epochs}`);
  if (progress.percent != null) {
    put(holder, "percent", `${Math.floor(progress.percent)} %`);
    for (const bar of holder.querySelectorAll("progress")) bar.value = progress.percent;
  }
  put(holder, "eta", progress.eta_seconds == null ? "" : `${duration(progress.eta_seconds)} left`);
  if (progress.device_memory_bytes) put(holder, "memory", `${number(progress.device_memory_bytes / 2 ** 30)} GiB`);
  put(holder, "speed", number(progress.images_per_second && Math.round(progress.images_per_second)));
}

// The job's accuracy is its best epoch's, its loss the last one's: as the recorder has it.
export function showMetrics(holder, values) {
  countsOf(holder).told += 1;
  const metric = ACCURACY[holder.dataset.task]?.find((name) => values[name] != null);
  const accuracy = values[metric];
  const best = holder.dataset.accuracy;
  if (accuracy != null && (best === undefined || best === "" || accuracy > Number(best))) {
    showAccuracy(holder, accuracy, metric);
  }
  if (values.val_loss != null) put(holder, "loss", number(values.val_loss));
}

function showAccuracy(holder, accuracy, metric) {
  holder.dataset.accuracy = accuracy ?? "";
  put(holder, "metric", metric ?? "");
  put(holder, "accuracy", percent(accuracy), accuracy == null ? "" : String(accuracy));
}

export function showWaiting(holder, job) {
  put(holder, "waiting", job.waiting_reason ?? "");
}

// The stream's own word of the whole job.
export function showJob(holder, job) {
  countsOf(holder).asked += 1;
  drawMeasures(holder, job);
  draw(holder, job);
}

// Show what the API answers, a promise of the job, but nothing that was told anew meanwhile. Resolves
// to the job, or null where the answer was overtaken.
export async function showAnswer(holder, answer) {
  const counts = countsOf(holder);
  counts.asked += 1;
  const { asked, told } = counts;
  const job = await answer;
  if (counts.asked !== asked) return null;
  if (counts.told === told) drawMeasures(holder, job);
  draw(holder, job);
  return job;
}

function drawMeasures(holder, job) {
  drawProgress(holder, job.progress);
  showAccuracy(holder, job.accuracy, job.best?.metric);
  put(holder, "loss", number(job.loss));
}

function draw(holder, job) {
  drawStatus(holder, job.status, job.attempt);
  showWaiting(holder, job);
  put(holder, "error", job.error?.message ?? "");
  put(holder, "hint", job.error?.hint ?? "");
  for (const remedy of holder.querySelectorAll("[data-error-kind]")) {
    remedy.hidden = job.error?.kind !== remedy.dataset.errorKind;
  }
  for (const asked of holder.querySelectorAll("[data-displaced]")) asked.hidden = !job.displaced_by;
  put(holder, "displaced_by", String(job.displaced_by ?? ""));
  put(holder, "attempt", String(job.attempt));
  put(holder, "worker", job.worker ?? "–");
  put(holder, "device", job.device ?? "–");
}
