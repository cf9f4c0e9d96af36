// Elements by hand: whatever anybody has written goes in as text, and is never read as HTML.

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (names with a dash, and `role`) and children. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

let opener = null;

/** Opens the dialog with a title and what stands in it; gives what shows an error there. */
export function dialog(title, ...body) {
  $("dialog-title").textContent = title;
  $("dialog-error").textContent = "";
  $("dialog-body").replaceChildren(...body);
  if (!$("dialog").open) {
    opener = document.activeElement;
    $("dialog").showModal();
  }
  return (error) => { $("dialog-error").textContent = error?.message ?? ""; };
}

// The browser gives focus back to what had it; that may have been made anew meanwhile.
$("dialog").addEventListener("close", () => {
  if (!opener || opener.isConnected) return;
  const name = opener.getAttribute("aria-label");
  const again = name ? document.querySelector(`button[aria-label="${CSS.escape(name)}"]`) : null;
  (again ?? $("draft")).focus();
});

/** A form of labelled fields, each [name, label, properties], that does something with their values. */
export function form(fields, button, act) {
  const rows = fields.map(([name, label, properties]) => el("label", {}, label, " ", el("input", { name, ...properties })));
  const made = el("form", {}, ...rows, el("button", { type: "submit", className: "primary" }, button));
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(made));
    $("dialog-error").textContent = "";
    try {
      await act(values, made);
    } catch (error) {
      $("dialog-error").textContent = error.message;
      made.elements[error.field]?.focus();
    }
  });
  return made;
}
