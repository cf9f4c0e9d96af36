// Says what is wrong, from what the database has, asked past the application, and what users have kept. Starts nothing.

const KEYS = ["seq", "change", "kind", "text", "client_id", "deleted"];

/** The messages of every room as the database has them: room → seq → message. */
export function readDatabase(postgres) {
  const rows = postgres.rows("SELECT json_build_object('room', room, 'seq', seq, 'change', change, 'kind', kind, 'text', body, 'client_id', client_id, 'deleted', deleted <> 0, 'author', author) FROM messages ORDER BY room, seq");
  const rooms = new Map();
  for (const row of rows) {
    if (!rooms.has(row.room)) rooms.set(row.room, new Map());
    rooms.get(row.room).set(row.seq, row);
  }
  return rooms;
}

/** How far every room has come: room → change. */
export function readHeads(postgres) {
  return new Map(postgres.rows("SELECT json_build_array(id, change) FROM rooms"));
}

const same = (one, other) => KEYS.every((key) => one[key] === other[key]);

/** Every fault, at most some of each kind, in words. */
export function judge(database, users, pages) {
  const faults = [];
  const fault = (text) => { if (faults.length < 50) faults.push(text); };
  const acknowledged = new Map();
  for (const user of users) {
    for (const problem of user.problems) fault(problem);
    for (const one of user.acknowledged.values()) {
      acknowledged.set(`${user.id} ${one.client_id}`, one);
      const row = database.get(one.room)?.get(one.seq);
      if (!row || row.client_id !== one.client_id || row.author !== user.id) fault(`lost: ${user.name}'s ${one.client_id} in ${one.room}`);
      else if (row.text !== one.text || row.deleted !== one.deleted) fault(`other words than acknowledged: ${JSON.stringify(row)} for ${JSON.stringify(one)}`);
    }
  }
  const authors = new Set(users.map(({ id }) => id));
  for (const [room, rows] of database) {
    const [said, changes] = [new Set(), new Set()];
    for (const row of rows.values()) {
      if (changes.has(row.change)) fault(`two of one change in ${room}: ${row.change}`);
      changes.add(row.change);
      if (row.kind !== "text") continue;
      const key = `${row.author} ${row.client_id}`;
      if (said.has(key) || (row.text && said.has(row.text))) fault(`twice in the database: ${JSON.stringify(row)}`);
      said.add(key).add(row.text);
      if (authors.has(row.author) && !acknowledged.has(key)) fault(`in the database, and nobody was told so: ${JSON.stringify(row)}`);
    }
  }
  for (const user of users) {
    for (const [id, room] of user.rooms) {
      const rows = [...(database.get(id) ?? new Map()).values()].filter(({ seq }) => seq >= room.from);
      if (rows.length !== room.messages.size) fault(`${user.name} has ${room.messages.size} messages of ${id}, the database ${rows.length}`);
      const wrong = rows.find((row) => !same(row, room.messages.get(row.seq) ?? {}));
      if (wrong) fault(`${user.name} has another ${id}: ${JSON.stringify(room.messages.get(wrong.seq))} for ${JSON.stringify(wrong)}`);
    }
  }
  const lobby = [...(database.get("lobby") ?? new Map()).values()].filter(({ kind }) => kind === "text");
  for (const { name, shown, said } of pages) {
    const rows = lobby.filter(({ seq }) => shown.length && seq >= shown[0].seq);
    if (shown.length < Math.min(20, lobby.length)) fault(`${name}'s page shows ${shown.length} messages`);
    const words = rows.map((row) => ({ seq: row.seq, text: row.deleted ? "This message was deleted." : row.text }));
    if (JSON.stringify(words) !== JSON.stringify(shown)) {
      const at = words.findIndex((row, number) => JSON.stringify(row) !== JSON.stringify(shown[number]));
      fault(`${name}'s page shows ${shown.length} messages, the database has ${words.length}; first other: ${JSON.stringify([words[at], shown[at]])}`);
    }
    for (const text of said) {
      const count = lobby.filter((row) => row.text === text).length;
      if (count !== 1) fault(`${name}'s page said ${JSON.stringify(text)}, which is there ${count} times`);
    }
  }
  return faults;
}

/** Whether the judge finds what is planted: faults that it does not find, in words. */
export function check(database, users, pages) {
  const copy = () => new Map([...database].map(([id, rows]) => [id, new Map([...rows].map(([seq, row]) => [seq, { ...row }]))]));
  const texts = (rooms) => [...rooms.get("lobby").values()].filter(({ kind, deleted }) => kind === "text" && !deleted);
  const planted = {
    "a message that is lost": (rooms) => { const row = texts(rooms).at(-1); rooms.get("lobby").delete(row.seq); },
    "a message that is there twice": (rooms) => { const row = texts(rooms).at(-1); rooms.get("lobby").set(1e9, { ...row, seq: 1e9, change: 1e9 }); },
    "other words": (rooms) => { texts(rooms).at(-1).text += "!"; },
    "a change that somebody has not heard of": (rooms) => { texts(rooms).at(-1).change += 1; },
    "a deletion that is not there": (rooms) => { texts(rooms).at(-1).deleted = true; },
  };
  const missed = [];
  for (const [what, plant] of Object.entries(planted)) {
    const rooms = copy();
    plant(rooms);
    if (judge(rooms, users, pages).length === 0) missed.push(what);
  }
  const page = pages[0];
  for (const [what, shown] of [["a page without its last message", page.shown.slice(0, -1)], ["a page with a message twice", [...page.shown, page.shown.at(-1)]]]) {
    if (judge(database, users, [{ ...page, shown }]).length === 0) missed.push(what);
  }
  return missed;
}
