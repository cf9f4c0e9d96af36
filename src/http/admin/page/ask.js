// The one dialog: a question before something is done, what it needs to know, and what became of it.

const dialog = { el: byId("ask"), act: null, busy: false };

// Opens it. `fields` are elements; `act()` does it and resolves with words to show in the dialog, or with `null` to close it.
function ask({ title, fields = [], yes, danger = false, focus = null, act }) {
  setText(byId("ask-title"), title);
  byId("ask-body").replaceChildren(...fields);
  setText(byId("ask-fault"), "");
  const button = byId("ask-yes");
  button.hidden = !act;
  button.disabled = false;
  setText(button, yes ?? "");
  button.classList.toggle("danger", danger);
  setText(byId("ask-no"), act ? "Cancel" : "Done");
  dialog.act = act ?? null;
  if (!dialog.el.open) dialog.el.showModal();
  // With nothing to fill in, Enter does nothing by accident.
  (focus ?? byId("ask-no")).focus();
}

byId("ask-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (dialog.busy || !dialog.act) return;
  const { act } = dialog;
  dialog.busy = true;
  byId("ask-yes").disabled = true;
  setText(byId("ask-fault"), "");
  try {
    const words = await act();
    if (words === null) dialog.el.close();
  } catch (error) {
    setText(byId("ask-fault"), faultText(error));
  }
  dialog.busy = false;
  byId("ask-yes").disabled = false;
});
byId("ask-no").addEventListener("click", () => dialog.el.close());
// A click beside it, as Escape does; not the end of a drag that began inside.
dialog.el.addEventListener("pointerdown", (event) => { if (event.target === dialog.el) dialog.el.close(); });

let saidTimer = 0;
function say(text) {
  const said = byId("said");
  said.textContent = text;
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => { said.textContent = ""; }, 12_000);
}

function paragraph(text, className = "") { return make("p", className, text); }

let fieldSerial = 0;
function labelled(text, input) {
  input.id ||= `field-${fieldSerial += 1}`;
  const label = make("label", "", text);
  label.htmlFor = input.id;
  return make("div", "row", label, input);
}

function textInput(value = "") {
  const input = make("input");
  Object.assign(input, { type: "text", value, autocomplete: "off", spellcheck: false });
  input.setAttribute("autocapitalize", "off");
  return input;
}

const CLOSE_CODES = [
  [1012, "1012 · restart: clients come back"], [1013, "1013 · try again later"], [1001, "1001 · going away"],
  [1000, "1000 · done: most clients stay away"], [1008, "1008 · not allowed: clients stay away"], [4000, "4000 · of the application"],
];

// The question before connections are closed. `form` says which.
function askToClose(title, text, form, after) {
  const code = make("select");
  for (const [value, words] of CLOSE_CODES) code.append(new Option(words, value));
  const reason = textInput();
  reason.maxLength = 123;
  ask({
    title, yes: "Close", danger: true,
    fields: [paragraph(text), labelled("Code", code), labelled("Reason, sent to the client", reason)],
    act: async () => {
      const { closed } = await server.json("/connections/close", { method: "POST", form: { ...form, code: code.value, reason: reason.value } });
      say(`${manyText(closed, "connection")} told to close.`);
      after();
      return null;
    },
  });
}

function askToUnsubscribe(title, text, form, after) {
  ask({
    title, yes: "Unsubscribe", danger: true,
    fields: [paragraph(text), paragraph("Clients are not told. What one publishes goes to its first topic; if that subscription ends, it goes nowhere.", "note")],
    act: async () => {
      const { unsubscribed } = await server.json("/connections/unsubscribe", { method: "POST", form });
      say(`${manyText(unsubscribed, "subscription")} ended.`);
      after();
      return null;
    },
  });
}

// One key for one message: a second try publishes nothing twice.
function freshKey() { return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""); }

function askToPublish(topicName = "") {
  const topic = textInput(topicName);
  const message = make("textarea");
  Object.assign(message, { rows: 5, spellcheck: false });
  const hex = make("input");
  hex.type = "checkbox";
  const result = make("p", "result");
  result.setAttribute("role", "status");
  let key = freshKey();
  for (const input of [topic, message, hex]) input.addEventListener("input", () => { key = freshKey(); });
  ask({
    title: "Publish a message", yes: "Publish", focus: topicName ? message : topic,
    fields: [labelled("Topic", topic), labelled("Message", message), make("label", "check", hex, " Bytes, typed as hex"), result],
    act: async () => {
      setText(result, "");
      if (topic.value === "") throw new Refused(400, "A topic has a name.");
      const bytes = hex.checked ? parseHex(message.value) : null;
      if (hex.checked && !bytes) throw new Refused(400, "Hex is pairs of digits from 0 to f, such as 48 65 6c 6c 6f.");
      const said = await server.json(`/publish/${encodeURIComponent(topic.value)}`, {
        method: "POST", body: bytes ?? message.value, query: bytes ? { binary: "1" } : {},
        headers: { "Idempotency-Key": key, "Content-Type": bytes ? "application/octet-stream" : "text/plain;charset=utf-8" },
      });
      key = freshKey();
      setText(result, `Published to ${manyText(said.subscribers, "subscriber")}, with offset ${grouped.format(said.offset)}.`);
      message.select();
      return result.textContent;
    },
  });
}

function askToReload() {
  ask({
    title: "Reload the configuration?", yes: "Reload",
    fields: [paragraph("Reads files and environment again, as SIGHUP does. With a mistake in it nothing changes. Connections stay.")],
    act: async () => {
      let said;
      try {
        said = await server.json("/reload", { method: "POST" });
      } catch (error) {
        if (error.status !== 422) throw error;
        said = JSON.parse(error.message);
      }
      const list = (title, lines) => (lines.length > 0 ? [make("h3", "", title), make("ul", "lines", ...lines.map((line) => make("li", "", line)))] : []);
      const changed = (said.changed ?? []).map(({ key, from, to }) => `${key}: ${from} → ${to}`);
      const restart = (said.needs_restart ?? []).map((entry) => (typeof entry === "string" ? entry : `${entry.key}: ${entry.from} → ${entry.to}`));
      ask({
        title: said.reloaded ? "Reloaded" : "Nothing was changed",
        fields: [
          ...list("Took effect", changed), ...list("Needs a restart", restart), ...list("Mistakes", said.mistakes ?? []), ...list("Warnings", said.warnings ?? []),
          ...(said.keys_changed ? [paragraph("A file of keys has others now.")] : []),
          ...(said.reloaded && changed.length + restart.length === 0 ? [paragraph("The configuration is what it was.")] : []),
        ],
      });
      return "";
    },
  });
}

function askToDrain(connections) {
  ask({
    title: "Drain the server?", yes: "Drain", danger: true,
    fields: [
      paragraph(`It takes nobody new, tells ${manyText(connections, "client")} to go, spread over the drain time, and ends.`),
      paragraph("This can't be taken back: the process stops.", "note"),
    ],
    act: async () => {
      await server.ask("/drain", { method: "POST" });
      say("Draining.");
      return null;
    },
  });
}
