// How far a look at a data set is: the bar that shows it, and the questions that ask for it.

import { json } from "./api.js";
import { bytes, count } from "./format.js";

const ASK_MS = 500;

const WORDS = {
  sending: "Sending",
  receiving: "Receiving",
  unpacking: "Unpacking",
  checking: "Looking at every image",
  done: "Done",
};

// A UUID: crypto.randomUUID() is there on https and localhost only.
export function newCheckId() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  random[6] = (random[6] & 0x0f) | 0x40;
  random[8] = (random[8] & 0x3f) | 0x80;
  const hex = [...random].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

export class Waiting {
  constructor(box) {
    this.box = box;
    this.phase = box.querySelector("[data-waiting-phase]");
    this.amount = box.querySelector("[data-waiting-amount]");
    this.bar = box.querySelector("[data-waiting-bar]");
  }

  show(phase, done, total) {
    this.box.hidden = false;
    // The phase is read out when it changes, the amount is not.
    if (this.phase.textContent !== WORDS[phase]) this.phase.textContent = WORDS[phase];
    const amount = phase === "checking" ? count : bytes;
    this.amount.textContent = total ? `${amount(done)} of ${amount(total)}` : "";
    if (total) this.bar.value = (100 * done) / total;
    else this.bar.removeAttribute("value");
  }

  hide() {
    this.box.hidden = true;
  }
}

// Asks how far a look is until the returned function is called.
export function followCheck(id, waiting) {
  let stopped = false;
  async function ask() {
    if (stopped) return;
    try {
      const check = await json("GET", `/api/v1/datasets/checks/${id}`);
      if (!stopped && check.phase !== "done") waiting.show(check.phase, check.done, check.total);
    } catch {
      // The next answer may come; the request itself says what went wrong.
    }
    if (!stopped) setTimeout(ask, ASK_MS);
  }
  setTimeout(ask, ASK_MS);
  return () => {
    stopped = true;
  };
}

export async function giveUp(id) {
  await json("DELETE", `/api/v1/datasets/checks/${id}`).catch(() => {}); // it may have ended just now
}
