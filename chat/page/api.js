// The application by HTTP. An error has the server's code and sentence; without an answer the code is "offline".

const TIMEOUT_MS = 15_000;
let csrf = "";
let who = null;
let onLoggedOut = () => {};

export class ApiError extends Error {
  constructor({ code, message, field }, status) {
    super(message);
    Object.assign(this, { code, field, status });
  }

  /** Whether the same may work a little later. */
  get passes() { return this.code === "offline" || this.status >= 500 || this.status === 429; }
}

/** Whom this page speaks for, by id, or null: nobody yet. */
export function speakFor(id) { who = id; }

/** What is called when the session has ended. */
export function whenLoggedOut(act) { onLoggedOut = act; }

export async function call(method, path, body) {
  const headers = { "X-CSRF-Token": csrf };
  if (method !== "GET") headers["Content-Type"] = "application/json";
  let response;
  let told;
  try {
    response = await fetch(`/api${path}`, { method, headers, body: method === "GET" ? undefined : JSON.stringify(body ?? {}), signal: AbortSignal.timeout(TIMEOUT_MS) });
    told = await response.json();
  } catch {
    throw new ApiError({ code: "offline", message: "The server can't be reached: this is tried again when it is back." }, 0);
  }
  // The session may be another person's by now, from another tab: this page does not speak for them.
  if (told.csrf && (!who || told.id === who)) csrf = told.csrf;
  if (response.ok) return told;
  const error = new ApiError(told.error ?? { code: "broken", message: `The server answered ${response.status}.` }, response.status);
  if (error.code === "csrf" && who) location.reload();
  if (error.code === "logged_out") onLoggedOut();
  throw error;
}

export const get = (path) => call("GET", path);
export const post = (path, body) => call("POST", path, body);

/** Writes as one person; refused if the page speaks for another, or for nobody, by now. */
export async function postAs(id, path, body) {
  if (who !== id) throw new ApiError({ code: "left", message: "It was not sent before you logged out." }, 0);
  return post(path, body);
}
