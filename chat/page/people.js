// Who is in the room that is open: its members as the application tells them; who of them is there, and who is writing, as the
// edge does. Believes the edge which ids are there, since they are of tokens, the application what they are called, and of
// what members say of themselves nothing but that they are writing.

import { $, dialog, el, form } from "./dom.js";
import { get, post } from "./api.js";

// How long a member counts as writing that does not say so again, and how often who writes says so.
const WRITING_S = 6;
const WRITING_AGAIN_MS = 3_000;
// Behind a message of somebody: within that the edge has told that they write no more, and who does still has begun again. It
// folds an end and a beginning into nothing.
const DONE_MS = 1_500;
// Between two questions for the members.
const MEMBERS_MS = 1_000;
// Where nothing is told by itself, over event streams and polls, it is asked for.
const ASK_MS = 10_000;
// Names that are asked for at once, and people beside the members that are listed.
const NAMES_MAX = 100;
const LISTED_MAX = 300;
const NAMED_MAX = 3;
// Where an edge knows several issuers, an id begins with its own.
const ISSUER = "fantail-chat|";

const idOf = (id) => (id.startsWith(ISSUER) ? id.slice(ISSUER.length) : id);

export class People {
  #room = null;
  #presence = null;
  #list = null;
  #members = [];
  // Names beside the members'; null of who has none here.
  #names = new Map();
  // Who was there as it was told last, until the edge tells it by itself.
  #told = null;
  // Whose message has come since they said that they were writing.
  #done = new Set();
  #doneTimers = new Set();
  #saidAt = null;
  #loading = null;
  #naming = null;

  /** `refresh` is called when somebody's role was changed, `transport` tells by what the edge is heard. */
  constructor(me, refresh, transport) {
    Object.assign(this, { me, refresh, transport });
    this.timer = setInterval(() => { if (!document.hidden && this.#isDeaf()) this.#ask(); }, ASK_MS);
  }

  close() {
    clearInterval(this.timer);
    for (const timer of this.#doneTimers) clearTimeout(timer);
    this.#leave();
    this.#room = null;
  }

  /** Another connection, whose lists are these. */
  connect(presence) {
    this.#told = this.#here();
    this.#list = null;
    this.#presence = presence;
    this.#follow();
  }

  /** The connection is gone, and who is there is not known. */
  lost() {
    this.#told = null;
    this.draw();
  }

  /** Another room, or none. */
  open(room) {
    this.#leave();
    this.#members = [];
    this.#names = new Map();
    this.#told = null;
    this.#done.clear();
    this.#room = room;
    this.#follow();
    this.draw();
    this.load();
  }

  #follow() {
    const room = this.#room;
    if (!room || !this.#presence || this.#list) return;
    const changed = ({ states }) => {
      for (const id of states) this.#done.delete(idOf(id));
      this.draw();
    };
    this.#list = this.#presence.follow(`rooms/${room.id}`, { onChange: changed, onError: () => this.draw() });
  }

  #leave() {
    this.stops();
    this.#list?.close();
    this.#list = null;
  }

  /** The members anew: at once, and then no more often than each second. */
  load() {
    const room = this.#room;
    if (!room) return;
    if (this.#loading?.room === room) {
      this.#loading.again = true;
      return;
    }
    const turn = this.#loading = { room, again: false };
    this.#load(room).finally(() => setTimeout(() => {
      if (this.#loading !== turn) return;
      this.#loading = null;
      if (turn.again) this.load();
    }, MEMBERS_MS));
  }

  async #load(room) {
    const told = await get(`${room.path}/members`).catch(() => null);
    if (!told || room !== this.#room) return;
    this.#members = told.members;
    // Who had no name here may be a member by now.
    for (const [id, name] of this.#names) if (name === null) this.#names.delete(id);
    this.draw();
    if (this.#isDeaf()) this.#ask();
  }

  // --- Who is there

  #isDeaf() { return !this.#list?.live && ["sse", "poll"].includes(this.transport()); }

  async #ask() {
    const room = this.#room;
    const told = room && await get(`${room.path}/online`).catch(() => null);
    if (!told || room !== this.#room) return;
    for (const { id, name } of told.people) this.#names.set(id, name);
    this.#told = { count: told.count, ids: told.people.map(({ id }) => id) };
    this.draw();
  }

  /** How many are there, and who. */
  #here() {
    if (this.#list?.live) return { count: this.#list.count, ids: [...this.#list.members.keys()].map(idOf) };
    return this.#told;
  }

  // --- Who is writing

  /** Somebody types here: others are told, unless they have just been. */
  writes() {
    const now = Date.now();
    if (!this.#list?.live || (this.#saidAt !== null && now - this.#saidAt < WRITING_AGAIN_MS)) return;
    this.#saidAt = now;
    this.#list.setState({ typing: true }, WRITING_S).catch(() => {});
  }

  /** Nothing is being typed any more: it was sent or taken back. */
  stops() {
    if (this.#saidAt === null) return;
    this.#saidAt = null;
    this.#list?.setState(null).catch(() => {});
  }

  /** A message has come: who has sent it has finished. */
  heard(message) {
    if (message.kind !== "text") this.load();
    else if (message.author && !message.edited) {
      const { id } = message.author;
      this.#done.add(id);
      const timer = setTimeout(() => {
        this.#doneTimers.delete(timer);
        if (this.#done.delete(id)) this.#drawWriting(this.#named());
      }, DONE_MS);
      this.#doneTimers.add(timer);
      this.#drawWriting(this.#named());
    }
  }

  #drawWriting(named) {
    const writes = this.#list?.live ? [...this.#list.members].filter(([, state]) => state?.typing === true).map(([id]) => idOf(id)) : [];
    const names = writes.filter((id) => id !== this.me.id && !this.#done.has(id)).map((id) => named.get(id)).filter((name) => name);
    const many = names.length > NAMED_MAX;
    const who = many ? "Several people" : new Intl.ListFormat("en").format(names);
    $("writing").textContent = names.length ? `${who} ${names.length > 1 ? "are" : "is"} writing…` : "";
  }

  // --- How it looks

  #named() { return new Map([...this.#names, ...this.#members.map(({ id, name }) => [id, name])]); }

  /** Shows what is known. */
  draw() {
    const room = this.#room;
    $("invite").hidden = !room?.leads;
    const here = this.#here();
    const ids = new Set(here?.ids);
    const named = this.#named();
    this.#drawWriting(named);
    $("present").textContent = !room ? "" : here ? `${here.count} online` : "Who is online can't be had at the moment.";
    const members = new Set(this.#members.map(({ id }) => id));
    const others = [...ids].filter((id) => !members.has(id)).slice(0, LISTED_MAX);
    if (this.#members.length) this.#name(others.filter((id) => !named.has(id)));
    const listed = [...this.#members, ...others.filter((id) => named.get(id)).map((id) => ({ id, name: named.get(id), role: "member" }))];
    listed.sort((a, b) => ids.has(b.id) - ids.has(a.id));
    const had = document.activeElement?.closest?.("#people-list button")?.getAttribute("aria-label");
    $("people-list").replaceChildren(...listed.map((person) => this.#one(room, person, ids.has(person.id))));
    if (had) [...$("people-list").querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === had)?.focus();
  }

  #one(room, person, isHere) {
    const isMe = person.id === this.me.id;
    const name = el("span", { className: isHere ? "online" : "" }, person.name, isMe ? " (you)" : "", person.role === "member" ? "" : ` · ${person.role}`, isHere ? el("span", { className: "unseen" }, " online") : null);
    const tool = room.leads && !isMe ? el("button", { type: "button", className: "small", "aria-label": `Manage ${person.name}`, onclick: () => this.#manage(room, person) }, "Manage") : null;
    return el("li", {}, name, tool);
  }

  // Asks for what these are called, some at a time.
  #name(ids) {
    const room = this.#room;
    if (!ids.length || this.#naming) return;
    const some = ids.slice(0, NAMES_MAX);
    this.#naming = get(`${room.path}/names?ids=${some.map(encodeURIComponent).join()}`).then(({ people }) => {
      if (room !== this.#room) return;
      for (const id of some) this.#names.set(id, null);
      for (const { id, name } of people) this.#names.set(id, name);
    }, () => {}).finally(() => setTimeout(() => {
      this.#naming = null;
      if (this.#room) this.draw();
    }, MEMBERS_MS));
  }

  #manage(room, person) {
    const as = (role) => async () => {
      await post(`${room.path}/members/${person.id}`, { role });
      $("dialog").close();
      this.load();
      await this.refresh();
    };
    const isOut = person.role === "banned" || person.role === "invited";
    const choices = [
      [room.role === "owner" && person.role === "member", "Make moderator", "moderator"],
      [room.role === "owner" && person.role === "moderator", "Make member", "member"],
      [room.role === "owner" && !isOut, "Hand the room over", "owner"],
      [!isOut, "Remove from room", "removed"],
      [person.role !== "banned", "Ban from room", "banned"],
      [person.role === "banned", "Let come back", "removed"],
      [person.role === "invited", "Take invitation back", "removed"],
    ];
    dialog(`${person.name} in ${room.name}`, ...choices.filter(([may]) => may).map(([, text, role]) => form([], text, as(role))));
  }
}
