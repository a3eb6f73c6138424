// Parts of a page that the server draws, fetched again when what they show has changed.

import { html } from "./api.js";
import { updateTimes } from "./common.js";
import { toast } from "./toast.js";

const PAUSE_MS = 400;
const waiting = new Map();

export function refreshPanel(name) {
  if (waiting.has(name)) return;
  waiting.set(name, setTimeout(() => load(name), PAUSE_MS));
}

async function load(name) {
  waiting.delete(name);
  const panel = document.querySelector(`[data-panel="${name}"]`);
  if (!panel) return;
  try {
    const drawn = await html(panel.dataset.from);
    const focused = panel.contains(document.activeElement) ? document.activeElement.id : "";
    panel.innerHTML = drawn;
    updateTimes(panel);
    if (focused) document.getElementById(focused)?.focus(); // the keyboard keeps its place
  } catch (error) {
    toast(error.message, { error: true });
  }
}
