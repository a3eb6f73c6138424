// One event stream a page. A lost connection is the browser's own to mend, with Last-Event-ID;
// a refused one (an expired login, a restarted server) is opened anew here.

import { goToLogin, refreshSession } from "./api.js";

const EVENTS = ["snapshot", "status", "progress", "metrics", "log", "artifact"];
const REOPEN_MS = 3000;

export function follow(url, handlers, { onLive = () => {}, until = () => false } = {}) {
  let source = null;

  function open() {
    if (source && source.readyState !== EventSource.CLOSED) return;
    source = new EventSource(url);
    source.addEventListener("open", () => {
      onLive("on");
    });
    for (const name of EVENTS) {
      if (!handlers[name]) continue;
      source.addEventListener(name, (event) => handlers[name](JSON.parse(event.data), event));
    }
    source.addEventListener("error", mend);
  }

  async function mend() {
    if (until()) {
      close();
      return;
    }
    onLive("off");
    if (source.readyState !== EventSource.CLOSED) return;
    if ((await refreshSession()) === 401) goToLogin();
    else setTimeout(open, REOPEN_MS);
  }

  function close() {
    source?.close();
    onLive("ended");
  }

  open();
  addEventListener("pagehide", () => source?.close());
  // A page brought back from the browser's cache has no stream any more.
  addEventListener("pageshow", (event) => {
    if (event.persisted && !until()) open();
  });
  return { close, open };
}

// The little sign that says whether the page is up to date.
export function showLive(state) {
  const sign = document.getElementById("live");
  if (!sign) return;
  sign.dataset.live = state;
  sign.textContent = { on: "Live", off: "Reconnecting…", ended: "Final" }[state];
}
