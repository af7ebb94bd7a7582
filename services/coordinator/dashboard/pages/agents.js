// The agents: who was invited, has enrolled, is a member, was revoked; when each was heard of, and what it does.

import { change, get, withQuery } from "../api.js";
import { badge, card, command, confirm, empty, figures, notice, pageHead, stateBadge, table, time } from "../components.js";
import { h, renew } from "../dom.js";
import { ago, count } from "../format.js";
import { every } from "../poll.js";
import { session } from "../session.js";

const REFRESH_SECONDS = 10;
const A_PAGE = 100;

// What an agent means that declines a run by one of these words; troubleshooting has all codes. That its data or its policy
// do not allow it is all that an agent says of either.
const MEANINGS = {
  unwilling: "its data or its own policy do not allow it to take part",
  unusable: "its own policy does not allow it to hold the adapter",
  base_model_mismatch: "its SLM is another one",
  tokenizer_mismatch: "its tokenizer is another one",
  lora_mismatch: "the adapter is not the LoRA that was signed",
  lora_target_missing: "its SLM has no such modules",
  manifest_unsigned: "the run is not signed",
  manifest_mismatch: "the run is not what was signed",
  signature_invalid: "a signature is not its operator’s",
  card_invalid: "the adapter’s model card does not hold together",
  certificate_expired: "a certificate is over",
  federation_mismatch: "the run is another federation’s",
  key_invalid: "a key of an attempt is none",
};

export async function show(view) {
  const after = view.query.get("after");
  const [federation, list] = await load(view, after);
  const body = h("div", { class: "stack" });
  const draw = (seen, page) => renew(body, ...parts(seen, page, after));
  draw(federation, list);
  view.put(
    pageHead("Agents", session.isOperator && h("a", { class: "button primary", href: "#/agents/invite" }, "Invite an agent")),
    body);
  body.addEventListener("click", async ({ target }) => {
    const name = target.dataset?.revoke;
    if (name && (await revoke(name))) draw(...(await load(view, after)));
  });
  every(REFRESH_SECONDS, async () => draw(...(await load(view, after))), view.signal);
}

function load(view, after) {
  const list = session.isOperator ? get(withQuery("/v1/agents", { after, limit: A_PAGE }), view) : null;
  return Promise.all([get("/v1/federation", view), list]);
}

function parts({ agents, now }, list, after) {
  const { states, heard, versions } = agents;
  const all = Object.values(states).reduce((sum, each) => sum + each, 0);
  const counts = card("How many", figures(
    ["Members", count(states.approved)],
    ["Heard in the last minute", count(heard), `of ${count(states.approved)}`],
    ["To be approved", count(states.pending)],
    ["Invited", count(states.invited)],
    ["Revoked", count(states.revoked)]),
    h("p", { class: "small quiet" }, "An agent that trains is not heard of until it has finished."));
  if (list === null) {
    return [counts, card("Releases", releases(versions)),
      notice("", "Who they are is for operators", h("p", {}, "A viewer sees how many agents there are, and not which: their names are in the audit log."))];
  }
  const pending = list.agents.filter(({ state }) => state === "pending");
  return [counts, pending.length ? approval(pending) : null,
    h("section", { class: "card", "aria-label": "Agents" }, h("h2", {}, "By name"),
      list.agents.length
        ? table("Agents by name", COLUMNS, list.agents.map((each) => row(each, now)))
        : empty(all ? "There are no agents after this one." : "Nobody was invited yet: begin with “Invite an agent”."),
      pager(list, after, all))];
}

function releases(versions) {
  const known = Object.entries(versions).sort();
  if (!known.length) return empty("No agent was heard of in the last minute.");
  return table("Releases of the agents that were heard of", [{ name: "Release" }, { name: "Agents", number: true }],
    known.map(([release, number]) => [release, count(number)]));
}

const COLUMNS = [{ name: "Agent" }, { name: "State" }, { name: "Heard" }, { name: "Release" }, { name: "What it does" },
  { name: "Until" }, { name: "Change" }];

function row(agent, now) {
  return [agent.name, stateBadge(agent.state), heardOf(agent.heard, now), agent.heard?.version ?? "–",
    doing(agent), until(agent, now), agent.state === "revoked" ? "–"
      : h("button", { type: "button", class: "danger", "data-revoke": agent.name, "aria-label": `Revoke ${agent.name}` }, "Revoke")];
}

function heardOf(heard, now) {
  if (!heard) return "not since the coordinator started";
  return [h("time", { datetime: new Date(1000 * heard.at).toISOString() }, ago(now - heard.at)),
    heard.left ? [" ", badge("stopped")] : "", heard.second_at === null ? "" : [" ", badge("runs twice", "bad")]];
}

function doing({ state, heard }) {
  if (state !== "approved") return { invited: "is to enrol", pending: "waits for approval", revoked: "nothing any more" }[state];
  if (!heard) return "–";
  const declined = Object.entries(heard.declines).map(([run, code]) =>
    h("p", { class: "small" }, badge("declines", "warn"), " ", runLink(run), `: ${MEANINGS[code] ?? "see"} `, h("code", {}, `(${code})`)));
  if (!heard.assigned) return declined.length ? declined : "waits";
  return ["has ", runLink(heard.assigned.run_id), `, round ${count(heard.assigned.round)}`, declined];
}

function runLink(run) {
  return h("a", { href: `#/runs/${run}` }, run);
}

function until(agent, now) {
  const end = agent.state === "approved" ? agent.not_after : agent.state === "revoked" ? null : agent.invitation_expires_at;
  if (end === null) return "–";
  return [time(end), end < now ? [" ", badge("over", "bad")] : ""];
}

function approval(pending) {
  const names = pending.map(({ name }) => name).join(" ");
  return notice("warn", "To be approved",
    h("p", {}, "A key has come. Have the organisation read the check code of its agent, by telephone for instance, and approve it ",
      "where the operator’s key is: the command shows the code, and signs only what you say is the same. This page has no such key."),
    command(`fedcollm agents approve ${names}`));
}

function pager(list, after, all) {
  if (!after && !list.next) return null;
  return h("nav", { class: "row", "aria-label": "Pages of agents" },
    h("span", { class: "quiet" }, `${count(all)} agents, ${A_PAGE} a page`),
    after && h("a", { class: "button", href: "#/agents" }, "First page"),
    list.next && h("a", { class: "button", href: `#/agents?after=${encodeURIComponent(list.next)}` }, "Next page"));
}

function revoke(name) {
  return confirm({
    title: `Revoke ${name}?`,
    text: `From its next request on ${name} can do nothing. What it has added to adapters stays in them. A new invitation lets it come back.`,
    label: `Revoke ${name}`,
    danger: true,
    reason: "Why (the audit log keeps it)",
    action: (reason) => change("POST", `/v1/agents/${name}/revoke`, { reason }),
  });
}
