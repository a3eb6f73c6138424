// Short messages at the page's corner. Errors stay until they are closed.

const SHOWN_MS = 5000;

const NEXT = "modelyard-toasts"; // in the browser's tab: what the next page is to say

const next = () => JSON.parse(sessionStorage.getItem(NEXT) ?? "[]");

// Says something on the page that is gone to.
export function toastNext(message, options = {}) {
  sessionStorage.setItem(NEXT, JSON.stringify([...next(), [message, options]]));
}

export function showNext() {
  const messages = next();
  sessionStorage.removeItem(NEXT);
  for (const [message, options] of messages) toast(message, options);
}

export function toast(message, { error = false } = {}) {
  const region = document.getElementById(error ? "toasts-errors" : "toasts-notes");
  const box = document.createElement("div");
  box.className = error ? "toast error" : "toast";
  const text = document.createElement("p");
  text.textContent = message;
  const close = document.createElement("button");
  close.className = "button quiet compact";
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => box.remove());
  box.append(text, close);
  region.append(box);
  if (!error) setTimeout(() => box.remove(), SHOWN_MS);
}
