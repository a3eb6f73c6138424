// On every page: relative times that stay true.

import { ago } from "./format.js";

export function updateTimes(root = document) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[data-ago]")) {
    const text = ago(Date.parse(element.dateTime), now);
    if (element.textContent !== text) element.textContent = text;
  }
}

setInterval(updateTimes, 5000);
updateTimes();
