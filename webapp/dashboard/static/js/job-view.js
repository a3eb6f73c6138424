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

export function put(holder, field, text, title) {
  for (const element of holder.querySelectorAll(`[data-field="${field}"]`)) {
    if (element.textContent !== text) element.textContent = text;
    if (title !== undefined) element.title = title;
  }
}

export function showStatus(holder, status, attempt) {
  const focused = holder.contains(document.activeElement) ? document.activeElement : null;
  holder.dataset.status = status;
  holder.dataset.attempt = attempt;
  const badge = holder.querySelector("[data-badge]");
  badge.dataset.status = status;
  badge.textContent = capital(status);
  keepFocus(holder, focused);
}

export function showProgress(holder, progress) {
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

export function showJob(holder, job) {
  showStatus(holder, job.status, job.attempt);
  showProgress(holder, job.progress);
  showAccuracy(holder, job.accuracy, job.best?.metric);
  put(holder, "loss", number(job.loss));
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
