// On every page: relative times that stay true, and the way out.

import { json } from "./api.js";
import { ago } from "./format.js";
import { showNext, toast } from "./toast.js";

export function updateTimes(root = document) {
  const now = Date.now();
  for (const element of root.querySelectorAll("time[data-ago]")) {
    const text = ago(Date.parse(element.dateTime), now);
    if (element.textContent !== text) element.textContent = text;
  }
}

async function logOut(button) {
  button.disabled = true;
  try {
    await json("POST", "/api/v1/auth/logout");
    location.assign("/login");
  } catch (error) {
    button.disabled = false;
    toast(error.message, { error: true });
  }
}

document.getElementById("logout").addEventListener("click", (event) => logOut(event.currentTarget));
setInterval(updateTimes, 5000);
updateTimes();
showNext();
