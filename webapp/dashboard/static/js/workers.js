// Queues and workers, looked at again every few seconds while the page is seen, and the buttons
// that let a worker take nothing new, or jobs again.

import { json } from "./api.js";
import { refreshPanel } from "./panel.js";
import { toast } from "./toast.js";

const EVERY_MS = 5000;
const TOLD = {
  POST: "It finishes what it trains and takes nothing new.",
  DELETE: "It takes jobs again in a moment.",
};

setInterval(() => {
  if (!document.hidden) refreshPanel("workers");
}, EVERY_MS);

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-drain]");
  if (!button || button.hasAttribute("aria-busy")) return;
  const { worker, drain } = button.dataset;
  button.setAttribute("aria-busy", "true"); // disabled, it would lose the keyboard's place
  try {
    await json(drain, `/api/v1/workers/${encodeURIComponent(worker)}/drain`);
    toast(`${worker}: ${TOLD[drain]}`);
    refreshPanel("workers");
  } catch (error) {
    button.removeAttribute("aria-busy");
    toast(error.message, { error: true });
  }
});
