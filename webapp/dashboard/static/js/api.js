// The one door to the server: sends the CSRF token, refreshes an expired login once, and turns
// problem documents into errors that can be shown to a person.

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The server answered with status ${status}.`);
    this.status = status;
    this.fields = problem.errors || {};
  }
}

// Instances on one host have cookies of their own names; the page says which.
const CSRF_COOKIE = document.querySelector('meta[name="csrf-cookie"]').content;

function cookie(name) {
  const entry = document.cookie.split("; ").find((part) => part.startsWith(`${name}=`));
  return entry ? decodeURIComponent(entry.slice(name.length + 1)) : "";
}

async function send(method, path, body) {
  const headers = { Accept: "application/json, text/html;q=0.9, text/plain;q=0.8" };
  if (method !== "GET") headers["X-CSRF-TOKEN"] = cookie(CSRF_COOKIE);
  const isForm = body instanceof FormData; // the browser itself says of what type a form is
  if (body !== undefined && !isForm) headers["Content-Type"] = "application/json";
  try {
    return await fetch(path, {
      method,
      headers,
      body: body === undefined || isForm ? body : JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw new ApiError(0, { detail: "The server cannot be reached. Is it running, and are you online?" });
  }
}

let refreshing = null;

// Of several requests that find the login expired, one refreshes it for all.
// Reading anything renews an access cookie that ran out, as long as the login lives. Resolves to
// the status of the answer, 0 where there was none.
export function refreshSession() {
  refreshing ??= fetch("/api/v1/auth/me", { credentials: "same-origin" })
    .then((response) => response.status)
    .catch(() => 0)
    .finally(() => {
      refreshing = null;
    });
  return refreshing;
}

export function goToLogin() {
  const here = location.pathname + location.search;
  location.assign(`/login?next=${encodeURIComponent(here)}`);
}

async function request(method, path, body) {
  let response = await send(method, path, body);
  if (response.status === 401) {
    await refreshSession();
    response = await send(method, path, body);
    if (response.status === 401) goToLogin();
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new ApiError(response.status, problem);
}

// Sends a form with a file; tells how much of it is sent. Returns its answer, and what ends it.
export function sendForm(path, form, onSent) {
  const sending = new XMLHttpRequest();
  const answer = new Promise((resolve, reject) => {
    sending.upload.addEventListener("progress", (event) => onSent(event.loaded, event.total));
    sending.addEventListener("load", () => {
      if (sending.status >= 200 && sending.status < 300) resolve(sending.response);
      else reject(new ApiError(sending.status, sending.response ?? {}));
    });
    sending.addEventListener("abort", () => reject(new ApiError(0, { detail: "It was cancelled." })));
    sending.addEventListener("error", () => {
      reject(new ApiError(0, { detail: "The connection broke before everything was sent; try again." }));
    });
  });
  sending.open("POST", path);
  sending.responseType = "json";
  sending.setRequestHeader("Accept", "application/json");
  sending.setRequestHeader("X-CSRF-TOKEN", cookie(CSRF_COOKIE));
  sending.send(form);
  return { answer, abort: () => sending.abort() };
}

export async function json(method, path, body) {
  const response = await request(method, path, body);
  return response.status === 204 ? null : response.json();
}

export async function upload(path, form) {
  return (await request("POST", path, form)).json();
}

export async function html(path) {
  return (await request("GET", path)).text();
}

export async function text(path) {
  const response = await request("GET", path);
  return { text: await response.text(), headers: response.headers };
}
