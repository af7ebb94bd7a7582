// An agent is invited: the file that its organisation is given.

import { change, get, Superseded } from "../api.js";
import { command, facts, notice, pageHead, time } from "../components.js";
import { h, put, save } from "../dom.js";
import { invitation } from "../invitation.js";
import { session } from "../session.js";
import { hasSha256 } from "../sha256.js";

const NAME_RULE = "Letters, digits, dots, dashes and underscores; 64 at most, and a letter or a digit first.";
const NAME = "[A-Za-z0-9][A-Za-z0-9._\\-]{0,63}";
const MOST_HOURS = 720;

export async function show(view) {
  const head = pageHead("Invite an agent");
  if (!session.isOperator) return view.put(head, notice("", null, h("p", {}, "Operators invite agents.")));
  if (!hasSha256()) return view.put(head, onTheCommandLine());
  const federation = await get("/v1/federation", view);
  const name = field("agent", "Agent", `${NAME_RULE} It is called so from then on.`,
    { pattern: NAME, title: NAME_RULE, maxlength: 64, required: true });
  const hours = field("hours", "Hours", `How long the invitation is good: 1 to ${MOST_HOURS}.`,
    { type: "number", min: 1, max: MOST_HOURS, value: 24, required: true });
  const url = field("url", "Address for the agent", "Where the organisation’s machine finds this coordinator.",
    { type: "url", value: location.origin, required: true });
  const ca = field("ca", "CA certificate", "A file in PEM, where the coordinator’s certificate is of a CA of its own: tls/ca.pem, as a rule.",
    { type: "file", accept: ".pem,.crt" });
  const compared = h("input", { id: "compared", type: "checkbox", required: true, "data-anew": true });
  const fault = h("p", { class: "fault", role: "alert" });
  const button = h("button", { class: "primary", type: "submit" }, "Make the invitation");

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    put(fault);
    try {
      const certificate = (await ca.control.files[0]?.text()) ?? null;
      const agent = name.control.value;
      const { now } = await get("/v1/federation", view); // its hours begin now, and not when the form was opened
      const made = await invitation({ federation, now, url: url.control.value, name: agent, hours: Number(hours.control.value), certificate });
      await change("PUT", `/v1/agents/${agent}/invitation`, made.told);
      done(view, made.file);
    } catch (error) {
      if (error instanceof Superseded) return;
      put(fault, error.detail ?? error.message);
      button.disabled = false;
    }
  }

  view.put(head, h("form", { class: "stack", onsubmit: submit },
    h("section", { class: "card stack", "aria-label": "Whose" }, h("h2", {}, "For whom"),
      h("div", { class: "fields" }, name.node, hours.node, url.node, ca.node)),
    h("section", { class: "notice warn" }, h("h2", {}, "Is this your operator’s key?"),
      h("p", {}, "The agent will go by the key below. It comes from the coordinator, as this page does: compare its fingerprint with the ",
        "one of your own key before you trust it."),
      facts(["Federation", federation.federation], ["Fingerprint", h("code", {}, federation.fingerprint)]),
      command("fedcollm doctor"),
      h("div", { class: "row" }, compared, h("label", { for: "compared" }, "I have compared it, and it is mine")),
      h("p", { class: "small" }, "Where you would trust nothing that comes from the coordinator, make the invitation with a command instead: ",
        h("code", {}, "fedcollm agents invite AGENT"), ".")),
    fault, h("div", { class: "row" }, button, h("a", { class: "button", href: "#/agents" }, "Back to the agents"))));
}

function field(id, title, help, attributes) {
  const control = h("input", { id, autocomplete: "off", spellcheck: "false", "aria-describedby": `${id}-help`, ...attributes });
  const node = h("div", { class: "field" }, h("label", { for: id }, title), control,
    h("p", { class: "small quiet", id: `${id}-help` }, help));
  return { control, node };
}

function onTheCommandLine() {
  return notice("warn", "Not from here",
    h("p", {}, "This page came over plain HTTP from another machine, where browsers do not let it make keys and digests. ",
      "Open the dashboard over HTTPS, or make the invitation with a command."),
    command("fedcollm agents invite AGENT"));
}

function done(view, file) {
  const { name } = file;
  view.put(pageHead(`${name} is invited`), h("div", { class: "stack" },
    h("section", { class: "card stack", "aria-label": "The invitation" },
      h("p", {}, `Give this file to whoever runs ${name}, by a way that both of you trust, and to nobody else: whoever has it is let in once.`),
      facts(["Lets in", name], ["At", file.coordinator_url], ["Until", time(file.expires_at)]),
      h("div", {}, h("button", { class: "primary", type: "button",
        onclick: () => save(`${name}.invitation`, `${JSON.stringify(file, null, 2)}\n`, "application/json") }, `Download ${name}.invitation`)),
      h("p", { class: "small quiet" }, "It is in this page and nowhere else: leave the page, and it is gone. Then invite the agent again.")),
    notice("", "What is next",
      h("p", {}, "The organisation enrols its agent with the file, and reads you the agent’s check code. Then approve it, where the operator’s key is:"),
      command(`fedcollm agents approve ${name}`)),
    h("p", {}, h("a", { href: "#/agents" }, "Back to the agents"))));
  const heading = document.querySelector("main h1");
  heading.tabIndex = -1;
  heading.focus();
  document.documentElement.dataset.ready = "invited";
}
