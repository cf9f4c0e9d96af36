// Requests to the server: each with the key, none of it in a URL. The key lives in this tab's session.

const KEY_NAME = "fantail-admin-key";
const WHY_NAME = "fantail-admin-why";
const ANSWER_MS = 8_000;
// The characters that a key can have; a header could not carry others.
const KEY_FORM = /^[A-Za-z0-9\-._~+/=]{1,128}$/;

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// The tab's session, or this document alone where the browser lets pages store nothing.
const unstored = new Map();
function recall(name) {
  try { return sessionStorage.getItem(name); } catch { return unstored.get(name) ?? null; }
}
function remember(name, value) {
  try {
    if (value === null) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, value);
  } catch { unstored.set(name, value); }
}

const server = {
  get key() { return recall(KEY_NAME); },
  set key(key) { remember(KEY_NAME, key); },

  // The answer's text. Throws `Refused` on another status than 2xx, with the server's words.
  async ask(path, { method = "GET", query = {}, form, body, headers = {}, signal } = {}) {
    const url = new URL("." + path, document.baseURI);
    url.hash = "";
    for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== "") url.searchParams.set(name, value);
    const sent = { ...headers };
    if (this.key !== null) sent.Authorization = `Bearer ${this.key}`;
    const late = AbortSignal.timeout(ANSWER_MS);
    const answer = await fetch(url, {
      method, headers: sent, cache: "no-store", redirect: "error",
      body: form ? new URLSearchParams(Object.entries(form).filter(([, value]) => value !== undefined && value !== "")) : body,
      signal: signal ? AbortSignal.any([signal, late]) : late,
    });
    const text = await answer.text();
    if (!answer.ok) throw new Refused(answer.status, text.trim());
    return text;
  },

  async json(path, options) { return JSON.parse(await this.ask(path, options)); },
};

// What went wrong, for whoever looks.
function faultText(error) {
  if (error instanceof Refused) {
    if (error.status === 403 && /scope/.test(error.message)) return "This key may not do that: it has another scope.";
    return error.message || `The server answered ${error.status}.`;
  }
  if (error.name === "TimeoutError") return `The server did not answer within ${ANSWER_MS / 1000} s.`;
  return "The server can't be reached.";
}

// Shows the login alone. Everything that was shown of the server goes with the document.
function signOut(why) {
  server.key = null;
  if (why) remember(WHY_NAME, why);
  location.reload();
}

function showLogin(fault = "") {
  byId("app").hidden = true;
  byId("login").hidden = false;
  setText(byId("login-fault"), fault);
  byId("login-key").focus();
}

// Resolves with the first statistics, when there is a key that may read them or none is needed.
function logIn() {
  return new Promise((resolve) => {
    const attempt = async (key) => {
      try {
        if (key !== null && !KEY_FORM.test(key)) throw new Refused(401, "");
        server.key = key;
        const stats = await server.json("/stats");
        byId("login").hidden = true;
        byId("login-key").value = "";
        resolve(stats);
      } catch (error) {
        const wrong = error instanceof Refused && [401, 403].includes(error.status);
        if (wrong) server.key = null;
        if (error instanceof Refused && error.status === 401) {
          const why = recall(WHY_NAME);
          remember(WHY_NAME, null);
          showLogin(key === null ? why ?? "" : "The server does not know this key.");
        } else if (wrong) {
          showLogin(/scope/.test(error.message) ? "This key may publish only. To look, a key needs the scope read or admin." : error.message);
        } else if (byId("login").hidden) {
          // Nobody knows yet whether a key is needed.
          showLogin(`${faultText(error)} Trying again.`);
          setTimeout(() => attempt(key), 2_000);
        } else showLogin(faultText(error));
        byId("login-key").select();
      }
    };
    byId("login-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const key = byId("login-key").value.trim();
      if (key === "") showLogin("A key is needed."); else attempt(key);
    });
    attempt(server.key);
  });
}
