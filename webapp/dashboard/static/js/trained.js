// What follows training on a job's page: shown when there is a model, an evaluation, a card.

import { text } from "./api.js";
import { loadEvaluation } from "./evaluation.js";
import { watchExports } from "./exports.js";
import { toast } from "./toast.js";
import { offerTry } from "./try-it.js";

const ENDED = ["completed", "failed", "cancelled"];
const id = document.querySelector("[data-job]").dataset.job;
const base = `/api/v1/training/jobs/${id}`;
const evaluation = document.getElementById("evaluation");
const trained = document.getElementById("trained");
const card = document.getElementById("model-card");
const report = (error) => toast(error.message, { error: true });

function showEvaluation() {
  evaluation.hidden = false;
  loadEvaluation(evaluation, base).catch(report);
}

async function showCard() {
  const place = card.querySelector("pre");
  place.textContent = (await text(`${base}/artifacts/model_card.md`)).text;
}

card.querySelector("details").addEventListener("toggle", (event) => {
  if (event.target.open) showCard().catch(report);
});

// Told by job.js: a file is complete.
document.addEventListener("job-artifact", ({ detail }) => {
  if (detail.name === "evaluation/evaluation.json") showEvaluation();
  if (detail.name === "model_card.md") card.hidden = false;
});

// Told by job.js: the whole job, as it is now.
document.addEventListener("job-seen", ({ detail: job }) => {
  const usable = ENDED.includes(job.status) && Boolean(job.best_model_path);
  if (usable && trained.hidden) watchExports(trained, base);
  trained.hidden = !usable;
});

if (!evaluation.hidden) showEvaluation();
if (!trained.hidden) watchExports(trained, base);
offerTry(base);
