// The form of a new job: what may be chosen follows the data set, its task, and the framework.

import { json } from "./api.js";
import { Hyperparameters } from "./hyperparameters.js";
import { Models } from "./models.js";
import { toast } from "./toast.js";

const form = document.getElementById("new-job");
const { framework, dataset_id: dataset, task_type: task, model_name: model } = form.elements;
const { pretrained, initial_job_id: initialJob, optimizer } = form.elements;
const weights = document.getElementById("weights");
const weightsHint = document.getElementById("weights-hint");
const initial = JSON.parse(form.dataset.initial);
const hyperparameters = new Hyperparameters(form);
let known = null; // what the catalog says of the model that is named

const models = new Models(model, {
  list: document.getElementById("models"),
  hint: document.getElementById("model_name-hint"),
  onChoice(found) {
    known = found;
    followWeights();
  },
});

// Of a select, offer only what fits; where the chosen one does not, the first that does.
function offer(select, fits) {
  for (const option of select.options) option.hidden = option.disabled = !fits(option);
  if (!select.selectedOptions[0]?.disabled) return;
  select.value = [...select.options].find((option) => !option.disabled)?.value ?? "";
}

function followDataset() {
  const chosen = dataset.selectedOptions[0];
  const tasks = chosen?.dataset.tasks?.split(" ");
  if (tasks) {
    offer(task, (option) => tasks.includes(option.value));
    if (chosen !== followDataset.last) task.value = preferred(tasks);
  }
  followDataset.last = chosen;
  showWarnings(chosen);
  followTask();
}

// What the data set is made for, where some framework trains it.
function preferred(tasks) {
  const options = [...task.options].map((option) => option.value);
  return tasks.find((name) => options.includes(name)) ?? "";
}

function showWarnings(chosen) {
  const place = document.getElementById("dataset-warnings");
  const warnings = chosen?.dataset.warnings ? JSON.parse(chosen.dataset.warnings) : [];
  place.hidden = warnings.length === 0;
  const more = Number(chosen?.dataset.more ?? 0);
  const lines = [...warnings, ...(more ? [`And ${more} more; see the data set's page.`] : [])];
  const head = document.createElement("strong");
  head.textContent = "The data set can be trained on, with warnings:";
  place.replaceChildren(
    head,
    ...lines.map((line) => {
      const text = document.createElement("span");
      text.textContent = line;
      return text;
    }),
  );
}

function followTask() {
  const chosen = dataset.selectedOptions[0];
  offer(framework, (option) => {
    const formats = JSON.parse(option.dataset.formats)[task.value] ?? [];
    if (chosen && !formats.includes(chosen.dataset.format)) return false;
    const several = chosen && "multiLabel" in chosen.dataset && task.value === "image_classification";
    return !several || "multiLabel" in option.dataset;
  });
  document.getElementById("framework-hint").textContent = framework.value
    ? ""
    : "No framework here trains this task on data of this format.";
  followFramework();
}

function followFramework() {
  offer(optimizer, (option) => !option.value || option.dataset.frameworks.split(" ").includes(framework.value));
  hyperparameters.choose(framework.value, task.value);
  models.restrict({ framework: framework.value, task_type: task.value });
}

function followWeights() {
  const fromJob = weights.value === "job";
  document.getElementById("initial-job").hidden = initialJob.disabled = !fromJob;
  pretrained.value = weights.value === "published" ? "yes" : "no";
  weightsHint.textContent = "";
  if (weights.value === "published" && known) {
    weightsHint.textContent = {
      cached: "They are in the weights folder.",
      download: "They are downloaded by the worker, which needs the internet or a full weights folder.",
      none: "This model has none; the worker looks in its weights folder only.",
    }[known.pretrained];
  }
  if (fromJob) offerJobs().catch((error) => toast(error.message, { error: true }));
}

let asked = 0;

async function offerJobs() {
  asked += 1;
  const mine = asked;
  const wanted = { framework: framework.value, model_name: model.value, task_type: task.value };
  const query = new URLSearchParams({ status: "completed", framework: wanted.framework, q: wanted.model_name, limit: 200 });
  const found = await json("GET", `/api/v1/training/jobs?${query}`);
  if (mine !== asked) return;
  const fitting = found.items.filter(
    (job) => job.best_model_path && Object.entries(wanted).every(([name, value]) => job[name] === value),
  );
  const kept = initialJob.value || String(initial.initial_job_id ?? "");
  initialJob.replaceChildren(...fitting.map(asOption));
  if (fitting.some((job) => String(job.id) === kept)) initialJob.value = kept;
  if (!fitting.length) weightsHint.textContent = "No completed job has this framework, model and task.";
}

function asOption(job) {
  const option = document.createElement("option");
  option.value = job.id;
  const accuracy = job.best ? `, ${job.best.metric} ${job.best.value.toFixed(3)}` : "";
  option.textContent = `${job.id}: ${job.name}${accuracy}`;
  return option;
}

// Fill the form like another job, or with the data set that a link names; what a person typed before
// this script ran stays.
function fill() {
  const { hyperparameters: values, device, tags, notes, ...rest } = initial;
  if (rest.dataset_id != null) dataset.value = rest.dataset_id;
  followDataset();
  if (rest.task_type) task.value = rest.task_type;
  followTask();
  if (rest.framework) framework.value = rest.framework;
  for (const name of ["name", "model_name", "epochs", "batch_size", "learning_rate", "image_size", "seed", "priority"]) {
    if (rest[name] != null) form.elements[name].value = rest[name];
  }
  form.elements.tags.value = (tags ?? []).join(",");
  form.elements.notes.value = notes ?? "";
  if (device) form.elements.device.value = device;
  if (rest.preempt && form.elements.preempt) form.elements.preempt.checked = true;
  if (rest.initial_job_id) weights.value = "job";
  else if (rest.pretrained) weights.value = "published";
  followFramework();
  if (rest.optimizer) optimizer.value = rest.optimizer;
  if (values) hyperparameters.set(values);
}

dataset.addEventListener("change", followDataset);
task.addEventListener("change", followTask);
framework.addEventListener("change", followFramework);
weights.addEventListener("change", followWeights);
fill();
