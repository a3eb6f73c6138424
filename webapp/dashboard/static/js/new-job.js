// The form of a new job: what may be chosen follows the framework and the data set.

import { json } from "./api.js";
import { toast } from "./toast.js";

const form = document.getElementById("new-job");
const { framework, dataset_id: dataset, task_type: task, model_name: model } = form.elements;
const list = document.getElementById("models");
const SHOWN_MODELS = 50;
let timer = null;
let asked = 0;

// The task is the data set's; frameworks that cannot do it are not offered.
function followDataset() {
  const chosen = dataset.selectedOptions[0];
  if (!chosen?.dataset.task) return;
  task.value = chosen.dataset.task;
  for (const option of framework.options) {
    option.disabled = !option.dataset.tasks.split(" ").includes(chosen.dataset.task);
  }
  if (framework.selectedOptions[0]?.disabled) {
    const able = [...framework.options].find((option) => !option.disabled);
    if (able) framework.value = able.value;
  }
  followFramework();
}

function followFramework() {
  for (const help of form.querySelectorAll("[data-framework]")) {
    help.hidden = help.dataset.framework !== framework.value;
  }
  for (const option of form.elements.optimizer.options) {
    const fits = !option.value || option.dataset.frameworks.split(" ").includes(framework.value);
    option.hidden = option.disabled = !fits;
    if (!fits && option.selected) form.elements.optimizer.value = "";
  }
  searchModels();
}

async function searchModels() {
  asked += 1;
  const mine = asked;
  const query = new URLSearchParams({ framework: framework.value, limit: SHOWN_MODELS });
  if (task.value) query.set("task_type", task.value);
  if (model.value) query.set("q", model.value);
  try {
    const found = await json("GET", `/api/v1/models?${query}`);
    if (mine !== asked) return; // an older answer that was overtaken
    list.replaceChildren(...found.items.map(asOption));
    describeModel(found.items.find((item) => item.name === model.value), found.total);
  } catch (error) {
    toast(error.message, { error: true });
  }
}

function asOption(item) {
  const option = document.createElement("option");
  option.value = item.name;
  option.label = `${item.params_m} M parameters, ${item.input_size} px`;
  return option;
}

const WEIGHTS = {
  cached: "pretrained weights are here",
  download: "pretrained weights would be downloaded",
  none: "no pretrained weights",
};

function describeModel(found, total) {
  const hint = document.getElementById("model-hint");
  hint.textContent = found
    ? `${found.params_m} M parameters, ${found.input_size} px, ${WEIGHTS[found.pretrained]}.`
    : `${total} models fit; type to search.`;
}

dataset.addEventListener("change", followDataset);
framework.addEventListener("change", followFramework);
model.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(searchModels, 200);
});
followDataset();
if (!dataset.value) followFramework();
