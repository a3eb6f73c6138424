// One event stream a page. A lost connection is the browser's own to mend, with Last-Event-ID;
// a refused one (an expired login, a proxy that answers for the server) is opened anew here.

import { goToLogin, refreshSession } from "./api.js";

const EVENTS = ["snapshot", "status", "progress", "metrics", "decided", "load", "log", "artifact"];
const REOPEN_MS = 3000;
const HIDDEN_MS = 60_000;

export function follow(url, handlers, { onLive = () => {}, until = () => false } = {}) {
  let source = null;
  let lastId = "";
  let pausing = null;

  function open() {
    if (source && source.readyState !== EventSource.CLOSED) return;
    source = new EventSource(lastId ? `${url}?last_event_id=${lastId}` : url);
    source.addEventListener("open", () => onLive("on"));
    for (const name of EVENTS) source.addEventListener(name, take);
    source.addEventListener("error", mend);
  }

  function take(event) {
    lastId = event.lastEventId;
    handlers[event.type]?.(JSON.parse(event.data));
  }

  async function mend() {
    if (until()) {
      source.close();
      onLive("ended");
      return;
    }
    onLive("off");
    if (source.readyState !== EventSource.CLOSED) return;
    if ((await refreshSession()) === 401) goToLogin();
    else setTimeout(open, REOPEN_MS);
  }

  // A browser has six connections to a host: a page that nobody sees gives its own back.
  function seenOrNot() {
    clearTimeout(pausing);
    if (!document.hidden) {
      if (!until()) open();
    } else {
      pausing = setTimeout(() => {
        source.close();
        if (!until()) onLive("paused");
      }, HIDDEN_MS);
    }
  }

  open();
  document.addEventListener("visibilitychange", seenOrNot);
  addEventListener("pagehide", () => source.close());
  // A page brought back from the browser's cache has no stream any more.
  addEventListener("pageshow", (event) => {
    if (event.persisted && !until()) open();
  });
  return { open };
}

// The little sign that says whether the page is up to date.
export function showLive(state) {
  const sign = document.getElementById("live");
  sign.dataset.live = state;
  sign.textContent = { on: "Live", off: "Reconnecting…", paused: "Paused", ended: "Final" }[state];
}
