// A data set's page: the filter of its findings, another look with its progress, and its deletion.

import { json } from "./api.js";
import "./dialogs.js";
import { toast } from "./toast.js";
import { Waiting, followCheck, newCheckId } from "./waiting.js";

const page = document.getElementById("dataset");
const address = `/api/v1/datasets/${page.dataset.dataset}`;

function filter(button) {
  for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
  for (const finding of document.querySelectorAll(".finding")) {
    finding.hidden = Boolean(button.dataset.filter) && finding.dataset.severity !== button.dataset.filter;
  }
}

async function lookAgain(button) {
  const box = document.querySelector("[data-looking]");
  const waiting = new Waiting(box.querySelector("[data-waiting]"));
  const id = newCheckId();
  button.disabled = true;
  box.hidden = false;
  waiting.show("checking", 0, null);
  const stop = followCheck(id, waiting);
  try {
    await json("POST", `${address}/validate`, { check_id: id });
    location.reload();
  } catch (error) {
    toast(error.message, { error: true });
    box.hidden = true;
    button.disabled = false;
    button.focus();
  } finally {
    stop();
  }
}

async function remove() {
  try {
    await json("DELETE", address);
    location.assign(page.dataset.back);
  } catch (error) {
    toast(error.message, { error: true });
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.matches("[data-filter]")) filter(button);
  else if (button?.matches("[data-look-again]")) lookAgain(button);
});
const dialog = document.getElementById("delete-dialog");
dialog?.addEventListener("close", () => {
  if (dialog.returnValue === "confirm") remove();
});
