// The way in, and what can be done with an account.

import { $, dialog, form } from "./dom.js";
import { post } from "./api.js";

/** Shows the form to log in or make an account, until one has worked. */
export function enter(entered) {
  $("chat").hidden = true;
  $("entrance").hidden = false;
  document.title = "Chat";
  // Whoever comes next is not told who was here.
  $("entrance-form").reset();
  $("entrance-name").focus();
  $("entrance-form").onsubmit = async (event) => {
    event.preventDefault();
    const which = event.submitter?.value ?? "login";
    const made = $("entrance-form");
    const said = $("entrance-error");
    said.textContent = "";
    for (const field of ["name", "password"]) made.elements[field].removeAttribute("aria-invalid");
    const buttons = [...made.querySelectorAll("button")];
    for (const button of buttons) button.disabled = true;
    try {
      const me = await post(`/${which}`, { name: made.elements.name.value, password: made.elements.password.value });
      made.elements.password.value = "";
      $("entrance").hidden = true;
      entered(me);
    } catch (error) {
      said.textContent = error.message;
      const field = made.elements[error.field ?? "name"];
      field?.setAttribute("aria-invalid", "true");
      field?.focus();
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  };
}

/** The dialog of somebody's account. `left` is called when there is no session any more. */
export function account(me, left) {
  const leave = (path) => async (values) => {
    await post(path, values);
    $("dialog").close();
    left();
  };
  const password = (name, label, autocomplete) => [name, label, { type: "password", autocomplete, required: true }];
  dialog(
    `Account of ${me.name}`,
    form([], "Log out", leave("/logout")),
    form([], "Log out everywhere", leave("/logout-everywhere")),
    form([password("old", "Password", "current-password"), password("new", "New password", "new-password")], "Change password", async (values, made) => {
      await post("/password", values);
      made.replaceChildren("The password is changed, and every other session has ended.");
    }),
    form([password("password", "Password", "current-password")], "Delete account", leave("/account/delete")),
  );
}
