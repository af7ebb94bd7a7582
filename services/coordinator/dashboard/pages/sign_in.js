// Signing in: a token is tried, and kept in this tab.

import { notice } from "../components.js";
import { h } from "../dom.js";
import { sentence } from "../format.js";
import { session, signIn } from "../session.js";

export async function show(view) {
  const fault = h("p", { class: "fault", id: "token-fault", role: "alert" });
  const field = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    "aria-describedby": "token-help token-fault" });
  const button = h("button", { class: "primary", type: "submit" }, "Sign in");

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    fault.textContent = "";
    field.removeAttribute("aria-invalid");
    try {
      await signIn(field.value.trim());
    } catch (error) {
      fault.textContent = said(error);
      field.setAttribute("aria-invalid", "true");
      button.disabled = false;
      field.focus();
    }
  }

  view.put(h("div", { class: "narrow stack" },
    session.ended && notice("warn", "You were signed out", h("p", {}, sentence(session.ended)),
      h("p", {}, "Sign in again, and this page goes on where it was.")),
    h("form", { class: "card stack", onsubmit: submit },
      h("div", {}, h("h1", { tabindex: -1 }, "Sign in"),
        h("p", { class: "quiet" }, "With an operator’s or a viewer’s token of this coordinator.")),
      h("div", { class: "field" },
        h("label", { for: "token" }, "Token"), field,
        h("p", { class: "small quiet", id: "token-help" },
          "It begins with fct_. It stays in this tab, and is forgotten when you sign out or close it."),
        fault),
      h("div", {}, button)),
    h("p", { class: "small quiet" }, "Whoever looks after the coordinator makes one: ",
      h("code", {}, "fedcollm tokens issue NAME --role viewer"))));
}

function said(error) {
  if (error.status === 403) return "This token is for a machine: only operators and viewers may look.";
  if (error.status === 401) return error.detail.includes("no token") ? "This coordinator does not know the token: look whether all of it is there." : sentence(error.detail);
  return error.detail ?? error.message;
}
