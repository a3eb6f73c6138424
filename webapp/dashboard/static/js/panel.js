// Parts of a page that the server draws, fetched again when what they show has changed.

import { html } from "./api.js";
import { updateTimes } from "./common.js";
import { toast } from "./toast.js";

const PAUSE_MS = 400;
const waiting = new Map();
const shown = new Map(); // name -> which of all questions its panel shows the answer of
let asked = 0;

export function refreshPanel(name) {
  if (waiting.has(name)) return;
  waiting.set(name, setTimeout(() => load(name), PAUSE_MS));
}

async function load(name) {
  waiting.delete(name);
  const panel = document.querySelector(`[data-panel="${name}"]`);
  if (!panel) return;
  asked += 1;
  const mine = asked;
  try {
    const drawn = await html(panel.dataset.from);
    if (mine < shown.get(name)) return; // a newer answer was faster
    if (panel.matches(":active")) {
      refreshPanel(name); // later: the click that is half done would be lost with its button
      return;
    }
    shown.set(name, mine);
    const focused = panel.contains(document.activeElement) ? document.activeElement.id : "";
    panel.innerHTML = drawn;
    updateTimes(panel);
    if (focused) document.getElementById(focused)?.focus(); // the keyboard keeps its place
  } catch (error) {
    toast(error.message, { error: true });
  }
}
