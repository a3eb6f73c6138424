// Queues and workers, looked at again every few seconds while the page is seen.

import { refreshPanel } from "./panel.js";

const EVERY_MS = 5000;

setInterval(() => {
  if (!document.hidden) refreshPanel("workers");
}, EVERY_MS);
