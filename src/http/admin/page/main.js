// Puts the page together: views behind the URL's hash, and a look at the server every two seconds.

const LOOK_MS = 2_000;
const LOOK_HIDDEN_MS = 10_000;
const VIEWS = ["overview", "topics", "connections"];

const series = new Series();
const health = { ready: "", stuck: "" };
const views = {};
let shown = "";
let answeredAt = 0;

// The hash is the view and what it looks for. The key is never in it.
function readHash() {
  const [name, query = ""] = location.hash.slice(1).split("?");
  const view = VIEWS.includes(name) ? name : "overview";
  for (const each of VIEWS) {
    byId(`view-${each}`).hidden = each !== view;
    if (each === view) byId(`tab-${each}`).setAttribute("aria-current", "page");
    else byId(`tab-${each}`).removeAttribute("aria-current");
  }
  if (views[view] && (view !== shown || query !== queryOf(view))) views[view].state = Object.fromEntries(new URLSearchParams(query));
  for (const each of Object.values(views)) each.stop();
  views[view]?.load();
  if (view !== shown) window.scrollTo(0, 0);
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · Fantail admin`;
  shown = view;
}

function queryOf(view) {
  const plain = { how: "contains", sort: "name" };
  const kept = Object.entries(views[view].state).filter(([name, value]) => value !== "" && value !== plain[name]);
  return new URLSearchParams(kept).toString();
}

function writeHash() {
  const query = queryOf(shown);
  history.replaceState(null, "", `#${shown}${query ? "?" + query : ""}`);
}

// What `/healthz` or `/readyz` says, whatever its status.
async function probe(path) {
  try { return (await server.ask(path)).trim(); } catch (error) {
    if (error instanceof Refused && error.status === 503) return error.message;
    throw error;
  }
}

const STATES = { ready: ["good", "Ready"], starting: ["wait", "Starting"], draining: ["wait", "Draining"], full: ["error", "Full"] };

function paintState() {
  const silent = (performance.now() - answeredAt) / 1000;
  const el = byId("state");
  const lost = silent > 5;
  const [tone, text] = lost ? ["error", `No answer for ${Math.floor(silent / 5) * 5} s`] : health.stuck ? ["error", "A loop hangs"] : STATES[health.ready] ?? ["wait", health.ready];
  el.dataset.tone = tone;
  setText(el, text);
  byId("app").classList.toggle("stale", lost);
}

function onStats(stats) {
  answeredAt = performance.now();
  series.add(stats);
  setText(byId("about"), `${stats.version} · up ${spanText(stats.uptime_seconds)} · pid ${stats.pid}`);
  setText(byId("tab-topics-count"), countText(stats.topics));
  setText(byId("tab-connections-count"), countText(stats.connections));
  byId("act-drain").disabled = stats.draining;
}

async function look() {
  try {
    const [stats, ready, lives] = await Promise.all([server.json("/stats"), probe("/readyz"), probe("/healthz")]);
    health.ready = ready;
    health.stuck = lives === "ok" ? "" : lives;
    onStats(stats);
    paintOverview(series, health);
  } catch (error) {
    if (error instanceof Refused && [401, 403].includes(error.status)) return signOut("The server does not take this key any more.");
  }
  paintState();
  setTimeout(look, document.hidden ? LOOK_HIDDEN_MS : LOOK_MS);
}

async function start() {
  const stats = await logIn();
  byId("app").hidden = false;
  setText(byId("host"), location.host);
  byId("act-out").hidden = server.key === null;
  byId("act-out").addEventListener("click", () => signOut());
  byId("act-publish").addEventListener("click", () => askToPublish(shown === "connections" ? byId("connections-topic").value : ""));
  byId("act-reload").addEventListener("click", askToReload);
  byId("act-drain").addEventListener("click", () => askToDrain(series.last().stats.connections));
  views.topics = new TopicsView(writeHash);
  views.connections = new ConnectionsView(writeHash);
  onStats(stats);
  window.addEventListener("hashchange", readHash);
  readHash();
  // As in many pages: a slash goes to the search.
  window.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || dialog.el.open || /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName)) return;
    event.preventDefault();
    if (shown === "overview") {
      location.hash = "#topics";
      readHash();
    }
    byId(shown === "connections" ? "connections-topic" : "topics-name").focus();
  });
  setInterval(paintState, 1_000);
  look();
}

start();
