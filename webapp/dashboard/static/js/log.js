// The log's tail. It follows the end until the reader scrolls up, and again from the end on.

import { text } from "./api.js";

const TAIL_LINES = 500;
const KEPT_LINES = 5000;

export class Log {
  constructor(view, jump, { jobId, report }) {
    this.view = view;
    this.jump = jump;
    this.jobId = jobId;
    this.report = report; // of what could not be fetched
    this.attempt = 0;
    this.offset = null; // bytes of the attempt's log that are shown; null: not loaded yet
    this.early = []; // events that came while the tail was on its way
    this.loads = 0;
    this.lines = 0;
    this.following = true;
    view.addEventListener("scroll", () => this.follow(this.atEnd()));
    jump.addEventListener("click", () => {
      this.follow(true);
      view.focus();
    });
  }

  atEnd() {
    return this.view.scrollHeight - this.view.scrollTop - this.view.clientHeight < 24;
  }

  follow(on) {
    this.following = on;
    this.jump.hidden = on;
    if (on) this.view.scrollTop = this.view.scrollHeight;
  }

  // Fetch the end of an attempt's log, then let in what was told meanwhile.
  async load(attempt) {
    if (attempt < 1) return;
    this.attempt = attempt;
    this.offset = null;
    this.loads += 1;
    const mine = this.loads;
    const answer = await text(`/api/v1/training/jobs/${this.jobId}/logs?attempt=${attempt}&tail=${TAIL_LINES}`);
    if (mine !== this.loads) return; // asked for again meanwhile
    this.view.replaceChildren();
    this.lines = 0;
    this.append(answer.text);
    this.offset = Number(answer.headers.get("X-Next-Offset"));
    for (const event of this.early.splice(0)) this.take(event);
  }

  take(event) {
    if (event.attempt > this.attempt) {
      this.early = [event];
      this.load(event.attempt).catch(this.report);
      return;
    }
    if (event.attempt < this.attempt) return;
    if (this.offset === null) {
      this.early.push(event);
      return;
    }
    if (event.offset < this.offset) return; // it was in the tail
    const added = event.lines.map((line) => `${line}\n`).join("");
    this.append(added);
    this.offset = event.offset + new TextEncoder().encode(added).length;
  }

  append(added) {
    if (!added) return;
    this.view.append(document.createTextNode(added));
    this.lines += added.split("\n").length - 1;
    while (this.lines > KEPT_LINES && this.view.firstChild !== this.view.lastChild) {
      this.lines -= this.view.firstChild.data.split("\n").length - 1;
      this.view.firstChild.remove();
    }
    if (this.following) this.view.scrollTop = this.view.scrollHeight;
  }
}
