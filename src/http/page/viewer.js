// The dialog that shows one message as a whole, as text, as indented JSON or as bytes, and copies or saves it.

const VIEWED_CHARS_MAX = 256 * 1024;
const VIEWED_BYTES_MAX = 64 * 1024;

const viewer = {
  row: null, forms: [], form: null,
  el: Object.fromEntries(["title", "forms", "content", "note", "copy", "save", "close"]
    .map((name) => [name, document.getElementById(`viewer-${name}`)])),
  dialog: document.getElementById("viewer"),
};

// The ways in which this message can be shown: a name, all of it as text, and what of it is shown.
function formsOf(data) {
  const isText = typeof data === "string";
  const bytes = isText ? encoder.encode(data) : new Uint8Array(data);
  const text = isText ? data : utf8Of(bytes);
  const forms = [];
  if (text !== null) {
    const json = prettyJson(text);
    if (json !== null) forms.push({ name: "JSON", all: () => json, shown: json });
    forms.push({ name: "Text", all: () => text, shown: text });
  }
  const perLine = innerWidth < 700 ? 8 : 16;
  const hex = { name: "Hex", all: () => hexOf(bytes), shown: hexDump(bytes.subarray(0, VIEWED_BYTES_MAX), perLine) };
  hex.isCut = bytes.length > VIEWED_BYTES_MAX;
  // What came as bytes is shown as bytes first.
  return isText ? [...forms, hex] : [hex, ...forms];
}

function view(row) {
  const { el, dialog } = viewer;
  const size = sizeText(row.size);
  const facts = [row.kind, size, row.at.toTimeString().slice(0, 8)];
  if (row.offset !== undefined) facts.push(`offset ${grouped.format(row.offset)}`);
  el.title.replaceChildren(SPOKEN[row.dir], make("small", "", facts.join(" · ")));
  viewer.row = row;
  viewer.forms = row.data === null ? [] : formsOf(row.data);
  el.forms.replaceChildren(...viewer.forms.map((form) => {
    const button = make("button", "", form.name);
    button.type = "button";
    button.addEventListener("click", () => showForm(form));
    form.button = button;
    return button;
  }));
  el.copy.hidden = el.save.hidden = row.data === null;
  if (row.data === null) {
    el.content.textContent = row.text;
    el.note.textContent = "The page keeps 64 MiB of messages; of this one only its beginning is left.";
  } else {
    showForm(viewer.forms[0]);
  }
  if (!dialog.open) dialog.showModal();
  el.content.scrollTop = 0;
  el.content.focus();
}

function showForm(form) {
  const { el } = viewer;
  viewer.form = form;
  for (const each of viewer.forms) each.button.setAttribute("aria-pressed", String(each === form));
  const isCut = form.isCut || form.shown.length > VIEWED_CHARS_MAX;
  el.content.dataset.form = form.name.toLowerCase();
  el.content.textContent = form.shown.slice(0, VIEWED_CHARS_MAX) || "(empty)";
  el.note.textContent = isCut ? "Only the beginning is shown. Copy and Save take all of it." : "";
}

// A page that did not come over TLS or from loopback has no clipboard of its own, only that of a selection.
async function copyText(text) {
  if (navigator.clipboard) {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* Not allowed: as below. */ }
  }
  const area = make("textarea", "hidden-text");
  area.value = text;
  (viewer.dialog.open ? viewer.dialog : document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

viewer.el.copy.addEventListener("click", async () => {
  const done = await copyText(viewer.form.all());
  viewer.el.note.textContent = done ? `Copied as ${viewer.form.name === "Hex" ? "hex" : viewer.form.name === "JSON" ? "JSON" : "text"}.` : "The browser did not allow it.";
});
viewer.el.save.addEventListener("click", () => {
  const { row } = viewer;
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([row.data]));
  link.download = `message-${row.serial}.${row.kind === "text" ? "txt" : "bin"}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
});
viewer.el.close.addEventListener("click", () => viewer.dialog.close());
// A click beside it, as Escape does.
viewer.dialog.addEventListener("click", (event) => { if (event.target === viewer.dialog) viewer.dialog.close(); });
