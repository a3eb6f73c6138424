// What follows training on a job's page: shown when there is a model, an evaluation, a card.

import { json, text } from "./api.js";
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

const details = card.querySelector("details");

function followDetails() {
  if (details.open) showCard().catch(report);
}

// What was kept between the page and its stream is told by neither.
export async function lookForFiles() {
  if (!evaluation.hidden && !card.hidden) return;
  const { items } = await json("GET", `${base}/artifacts?limit=200`);
  const isThere = (name) => items.some((item) => item.name === name);
  if (evaluation.hidden && isThere("evaluation/evaluation.json")) showEvaluation();
  if (isThere("model_card.md")) card.hidden = false;
}

details.addEventListener("toggle", followDetails);
followDetails(); // it may have been opened before this script had come

// Told by job.js: a file is complete.
document.addEventListener("job-artifact", ({ detail }) => {
  if (detail.name === "evaluation/evaluation.json") showEvaluation();
  if (detail.name === "model_card.md") card.hidden = false;
});

// Told by job.js: the whole job, as it is now.
document.addEventListener("job-seen", ({ detail: job }) => {
  trained.hidden = !ENDED.includes(job.status) || !job.best_model_path;
  offer();
});

let offered = false;

function offer() {
  if (trained.hidden || offered) return;
  offered = true; // also when the job is resumed and ends again
  watchExports(trained, base);
}

if (!evaluation.hidden) showEvaluation();
offer();
offerTry(base);
