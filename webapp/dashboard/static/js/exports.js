// The rows of the exports: asks for one, follows it to its end, offers the file.

import { json } from "./api.js";
import { toast } from "./toast.js";

const POLL_MS = 1500; // the job has ended, and its event stream with it
const STATES = { requested: "Waiting for a worker", running: "Exporting…", completed: "Exported", failed: "Failed" };

export function watchExports(place, base) {
  const rows = [...place.querySelectorAll("[data-export]")];
  for (const row of rows) {
    part(row, "export")?.addEventListener("click", () => ask(row));
  }
  let waiting = null;
  let asked = 0;

  async function look() {
    clearTimeout(waiting);
    asked += 1;
    const mine = asked;
    try {
      const { items } = await json("GET", `${base}/exports`);
      if (mine !== asked) return; // overtaken
      let active = false;
      for (const row of rows) {
        const newest = items.find((item) => item.format === row.dataset.export);
        if (newest) show(row, newest, base);
        active ||= newest?.status === "requested" || newest?.status === "running";
      }
      if (active) waiting = setTimeout(look, POLL_MS);
    } catch (error) {
      toast(error.message, { error: true });
    }
  }

  async function ask(row) {
    clearTimeout(waiting);
    asked += 1; // what was asked before does not know of this export
    const button = part(row, "export");
    button.disabled = true;
    try {
      show(row, await json("POST", `${base}/export`, { format: row.dataset.export }), base);
    } catch (error) {
      button.disabled = false;
      toast(error.message, { error: true });
    }
    look();
  }

  look();
}

const part = (row, name) => row.querySelector(`[data-part="${name}"]`);

function show(row, { status, artifact, largest_difference: difference, error }, base) {
  row.dataset.state = status;
  const reason = error ? `: ${error.message} ${error.hint}`.trimEnd() : "";
  part(row, "state").textContent = STATES[status] + reason;
  part(row, "difference").textContent = difference == null ? "–" : difference === 0 ? "0" : difference.toExponential(1);
  const download = part(row, "download");
  download.hidden = status !== "completed";
  if (artifact) download.href = `${base}/artifacts/${artifact.split("/").map(encodeURIComponent).join("/")}`;
  const button = part(row, "export");
  if (button) button.disabled = status === "requested" || status === "running";
}
