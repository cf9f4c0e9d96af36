// The chat's page: who is here, which rooms, and the one connection to the edge that all of them share.

import { connect } from "./fantail/fantail.js";
import { Presence } from "./fantail/presence.js";
import { $, dialog, el, form } from "./dom.js";
import { get, post, speakFor, whenLoggedOut } from "./api.js";
import { account, enter } from "./account.js";
import { People } from "./people.js";
import { Room } from "./room.js";
import { Privates } from "./private.js";

// How long after the end of a connection for good another is made.
const AGAIN_MS = 2_000;
// How often what could not be sent is tried again.
const RETRY_MS = 5_000;
const STATES = { connecting: "connecting…", open: "online", waiting: "offline, connecting again…", closed: "offline, connecting again…" };

let me = null;
let rooms = new Map();
let invited = [];
let current = null;
let client = null;
let people = null;
let edgeUrl = "";
let again = 0;
let refreshing = null;
let listing = null;
// What the address names is no room, and not yet known to be a conversation.
let isAsking = false;
// Which rooms the connection's token names.
let named = "";

const privates = new Privates({ open, changed, current: () => current, listed: listRooms });

const isIn = (room) => !["invited", "banned"].includes(room.role);

function show(state) {
  $("state").textContent = STATES[state];
  $("state").className = state === "waiting" || state === "closed" ? "trouble" : "";
}

// --- The edge

async function connectEdge() {
  disconnect();
  const mine = me;
  show("connecting");
  let first;
  try {
    first = await get("/edge");
  } catch (error) {
    if (me === mine && error.code !== "logged_out") later();
    return;
  }
  if (me !== mine || client) return;
  edgeUrl = first.url;
  named = namesOf();
  let token = first.token;
  const presence = new Presence();
  const made = client = connect(edgeUrl, presence.options({
    getToken: async () => {
      const told = token ? { url: edgeUrl, token } : await get("/edge");
      token = null;
      // The application was started anew, and its edge is elsewhere, where this page may not connect to. What is typed and
      // what is on its way is kept.
      if (told.url !== edgeUrl) location.reload();
      return told.token;
    },
    onState: (state, why) => {
      if (client !== made) return;
      show(state);
      if (state === "open") for (const room of rooms.values()) room.retry();
      if (state === "open") refresh();
      if (state === "open") privates.retry();
      else if (state !== "connecting") people.lost();
      if (state === "closed" && why) later();
    },
  }));
  for (const room of rooms.values()) follow(made, room);
  made.subscribe(`people/${me.id}`, {
    onMessage: ({ data }) => { if (!privates.hear(data)) refresh(); },
    // What was told of rooms meanwhile is lost, too.
    getState: () => { refresh(); return privates.sync(); },
    onError: () => {},
  });
  people.connect(presence);
}

function follow(made, room) {
  made.subscribe(`rooms/${room.id}`, {
    onMessage: ({ data }) => room.hear(data),
    getState: () => room.sync(),
    // Not in it any more, or not for this token.
    onError: (error) => { if (error?.code === "not_allowed") refresh(); },
  });
}

function disconnect() {
  clearTimeout(again);
  const old = client;
  client = null;
  old?.close();
}

function later(wait = AGAIN_MS) {
  clearTimeout(again);
  disconnect();
  show("waiting");
  again = setTimeout(async () => { if (me) await connectEdge(); }, wait);
}

const namesOf = () => [...rooms.keys()].sort().join();

// --- Rooms

/** Asks who one is and which rooms one is in; if others than before, the token is another, too. */
function refresh() {
  refreshing ??= get("/me").then(take).catch(() => {}).finally(() => { refreshing = null; });
  return refreshing;
}

function take(told) {
  if (!me) return;
  // Somebody else has logged in with this browser: nothing of the one is shown to, or sent by, the other.
  if (me.id !== told.id) return location.reload();
  const before = rooms;
  rooms = new Map();
  for (const one of told.rooms.filter(isIn)) {
    const room = before.get(one.id) ?? new Room(one, me, changed);
    const role = room.role;
    const { unread, seen } = room;
    room.update(one);
    // What this page has seen meanwhile it knows better.
    if (room.change !== null && seen >= one.seen) Object.assign(room, { unread, seen });
    if (room.isShown && role !== room.role) room.show();
    rooms.set(one.id, room);
  }
  invited = told.rooms.filter((one) => one.role === "invited");
  if (!(isAsking && !current) && !current?.isPrivate && !rooms.has(current?.id)) open(rooms.get(wanted()) ?? rooms.values().next().value ?? null);
  listRooms();
  if (client && named !== namesOf()) connectEdge();
  people.load();
}

/** The room that the address names; a name that is no text is of none. */
function wanted() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

function open(room) {
  current?.hide();
  current = room;
  $("message-list").replaceChildren();
  $("more").textContent = room || isAsking ? "" : "You are in no room: find one or make one.";
  $("composer").hidden = $("leave").hidden = !room;
  $("chat").classList.toggle("private", Boolean(room?.isPrivate));
  $("private-bar").hidden = !room?.isPrivate;
  $("title").textContent = room?.name ?? "Chat";
  $("draft").value = room?.draft ?? "";
  $("draft-error").textContent = $("invite-said").textContent = "";
  grow();
  narrow(null);
  if (room) {
    history.replaceState(null, "", `#${encodeURIComponent(room.id)}`);
    room.show();
  }
  if (room?.isPrivate) privates.shown(room);
  listRooms();
  privates.list();
  // Of two who write to each other nobody is listed.
  people.open(room?.isPrivate ? null : room);
}

function listRooms() {
  const one = (room) => el("li", {}, el("button", { type: "button", onclick: () => { open(room); $("draft").focus(); }, ...(room === current ? { "aria-current": "true" } : {}) },
    room.name,
    room.unread ? el("span", { className: "count" }, room.unread > 99 ? "99+" : String(room.unread), el("span", { className: "unseen" }, " unread")) : null));
  const invitation = (room) => el("li", {}, el("button", { type: "button", onclick: () => invitedTo(room) }, room.name, el("span", { className: "count" }, "invited")));
  const had = document.activeElement?.closest?.("#room-list li");
  const at = had ? [...had.parentElement.children].indexOf(had) : -1;
  $("room-list").replaceChildren(...[...rooms.values()].map(one), ...invited.map(invitation));
  if (at >= 0) $("room-list").children[at]?.firstChild.focus();
  const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, privates.unread);
  document.title = `${unread ? `(${unread}) ` : ""}${current?.name ?? "Chat"}`;
}

function invitedTo(room) {
  const act = (path) => async () => {
    await post(`/rooms/${room.id}/${path}`);
    $("dialog").close();
    await refresh();
    if (rooms.has(room.id)) open(rooms.get(room.id));
  };
  dialog(`You are invited to ${room.name}`, form([], "Join", act("join")), form([], "Decline", act("leave")));
}

// Told by a room what has come. However much comes at once, the list is made once.
function changed(room, message) {
  listing ??= setTimeout(() => {
    listing = null;
    if (me) listRooms();
  });
  if (room === current && message) people.heard(message);
}

async function findRooms() {
  const list = el("ul");
  const enterRoom = async (id) => {
    await refresh();
    $("dialog").close();
    if (rooms.has(id)) open(rooms.get(id));
  };
  const look = async (values, after = "") => {
    const { rooms: found, next } = await get(`/rooms?name=${encodeURIComponent(values?.name ?? "")}&after=${encodeURIComponent(after)}`);
    const one = (room) => el("li", { className: "row" },
      el("span", {}, `${room.name} · ${room.members} ${room.members === 1 ? "member" : "members"} `),
      el("button", { type: "button", className: "small", "aria-label": `${rooms.has(room.id) ? "Open" : "Join"} ${room.name}`, onclick: async () => {
        try {
          if (!rooms.has(room.id)) await post(`/rooms/${room.id}/join`);
          await enterRoom(room.id);
        } catch (error) { failed(error); }
      } }, rooms.has(room.id) ? "Open" : "Join"));
    const more = el("li", {}, el("button", { type: "button", onclick: () => look(values, next).catch(failed) }, "More rooms"));
    list.replaceChildren(...(found.length ? found.map(one) : [el("li", {}, "There is no open room of this name.")]), ...(next ? [more] : []));
  };
  const make = (isOpen) => async (values) => {
    const { id } = await post("/rooms", { name: values.name, open: isOpen });
    await enterRoom(id);
  };
  const failed = dialog("Rooms",
    form([["name", "Find an open room", { type: "search" }]], "Find", look),
    list,
    form([["name", "New room for everybody", { autocomplete: "off" }]], "Make open room", make(true)),
    form([["name", "New room by invitation", { autocomplete: "off" }]], "Make room by invitation", make(false)));
  look().catch(failed);
}

// --- The page

function narrow(which) {
  for (const name of ["rooms", "people"]) {
    const isOn = which === name && !$("chat").classList.contains(name);
    $("chat").classList.toggle(name, isOn);
    $(`show-${name}`).setAttribute("aria-expanded", String(isOn));
  }
}

function grow() {
  const draft = $("draft");
  draft.rows = Math.min(8, draft.value.split("\n").length);
}

function send() {
  const text = $("draft").value;
  $("draft-error").textContent = "";
  if (!current || !text.trim()) return;
  if ([...text].length > me.message_characters_max) {
    $("draft-error").textContent = `A message has at most ${me.message_characters_max} characters: send it in parts.`;
    return;
  }
  current.send(text.trimEnd());
  people.stops();
  $("draft").value = current.draft = "";
  grow();
}

function begin(told) {
  me = told;
  speakFor(me.id);
  rooms = new Map();
  current = null;
  people = new People(me, refresh, () => client?.transport);
  $("entrance").hidden = true;
  $("chat").hidden = false;
  const asked = wanted();
  isAsking = Boolean(asked) && !told.rooms.some((room) => room.id === asked && isIn(room));
  if (isAsking) open(null);
  take(told);
  privates.begin(me).then(() => {
    if (me !== told) return;
    isAsking = false;
    if (current) return;
    open(privates.all.get(asked) ?? rooms.values().next().value ?? null);
    if (document.activeElement === document.body) $("draft").focus();
  });
  connectEdge();
  $("draft").focus();
}

function end() {
  // It would tell the next person's session what this one has read.
  current?.hide();
  people.close();
  disconnect();
  me = null;
  current = null;
  privates.end();
  speakFor(null);
  $("state").textContent = "";
  $("dialog").close();
  enter(begin);
}

$("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("draft").addEventListener("input", () => {
  grow();
  if (!current) return;
  current.draft = $("draft").value;
  if (current.draft.trim()) people.writes();
  else people.stops();
});
$("draft").addEventListener("keydown", (event) => {
  // Where there is a keyboard; on a phone Enter begins a line, and the button sends.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && matchMedia("(pointer: fine)").matches) {
    event.preventDefault();
    send();
  }
});
$("messages").addEventListener("scroll", () => {
  if ($("messages").scrollTop < 200) current?.older();
  current?.saw();
});
$("to-newest").addEventListener("click", () => { $("messages").scrollTop = $("messages").scrollHeight; $("draft").focus(); });
$("find-room").addEventListener("click", findRooms);
$("show-account").addEventListener("click", () => account(me, end));
$("show-rooms").addEventListener("click", () => narrow("rooms"));
$("show-people").addEventListener("click", () => narrow("people"));
for (const which of ["rooms", "people"]) {
  $(which).addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !$("chat").classList.contains(which)) return;
    narrow(null);
    $(`show-${which}`).focus();
  });
}
$("leave").addEventListener("click", async () => {
  if (!current || !confirm(`Leave ${current.name}?`)) return;
  await post(`${current.path}/leave`).catch((error) => { $("draft-error").textContent = error.message; });
  await refresh();
});
$("invite").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = $("invite-said");
  try {
    const person = await post(`${current.path}/invite`, { name: $("invite-name").value });
    said.textContent = `${person.name} is invited.`;
    $("invite-name").value = "";
    people.load();
  } catch (error) {
    said.textContent = error.message;
  }
});
window.addEventListener("online", () => { for (const room of rooms.values()) room.retry(); privates.retry(); });
// What failed since the database was away, or since there was too much of it: nothing here is told when that is over.
setInterval(() => {
  if (!me) return;
  for (const room of rooms.values()) room.retry();
  privates.retry();
}, RETRY_MS);
document.addEventListener("visibilitychange", () => { current?.saw(); });
window.addEventListener("hashchange", () => {
  const room = rooms.get(wanted()) ?? privates.all.get(wanted());
  if (room && room !== current) open(room);
});
privates.bind();
whenLoggedOut(() => {
  if (!me) return;
  end();
  // It may have ended because somebody else's has begun, in another tab.
  get("/me").then(() => location.reload(), () => {});
});

async function load() {
  try {
    begin(await get("/me"));
  } catch (error) {
    if (error.code === "logged_out") enter(begin);
    else setTimeout(load, AGAIN_MS);
  }
}
load();
