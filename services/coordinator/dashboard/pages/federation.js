// The federation at a glance.

import { get } from "../api.js";
import { badge, card, digest, empty, facts, figures, pageHead, stateBadge, table, time } from "../components.js";
import { h, renew } from "../dom.js";
import { ago, count, duration } from "../format.js";
import { every } from "../poll.js";
import { session } from "../session.js";
import { runBadge, runLink, runProgress } from "./run_parts.js";

const REFRESH_SECONDS = 5;
const NEWEST = 5;
const WORK = { prepare: "prepares", cotune: "co-tunes", evaluate: "evaluates" };

export async function show(view) {
  const [live, body] = [h("p", { class: "quiet" }), h("div", { class: "stack" })];

  async function refresh() {
    const [federation, runs, promotion] = await Promise.all([
      get("/v1/federation", view),
      get(`/v1/runs?limit=${NEWEST}`, view),
      get("/v1/promotion", view),
    ]);
    renew(live, "As of ", time(federation.now));
    renew(body, glance(federation, runs.runs), h("div", { class: "columns" }, agents(federation), workers(federation)),
      newest(runs.runs), h("div", { class: "columns" }, held(promotion), coordinator(federation)));
  }

  await refresh();
  const { federation } = await get("/v1/federation", view);
  view.put(pageHead(`Federation ${federation}`, live), body);
  every(REFRESH_SECONDS, refresh, view.signal);
}

function glance({ agents: known, workers: found, started_at: startedAt, now }, runs) {
  const approved = known.states.approved ?? 0;
  const atWork = found.filter((worker) => worker.work).length;
  return h("section", { class: "card", "aria-label": "At a glance" }, figures(
    ["Agents heard of lately", count(known.heard), `of ${count(approved)} approved`],
    ["Workers", count(found.length), atWork ? `${count(atWork)} at work` : "idle"],
    ["Runs under way", count(runs.filter((run) => run.state === "running").length), `of the newest ${count(runs.length)}`],
    ["Coordinator up for", upFor(now - startedAt)],
  ));
}

function upFor(seconds) {
  return seconds < 60 ? "under 1 min" : duration(60 * Math.floor(seconds / 60));
}

function agents({ agents: known }) {
  const total = Object.values(known.states).reduce((sum, each) => sum + each, 0);
  if (!total) return card("Agents", empty("Nobody has been invited yet. An operator invites agents."));
  const states = ["approved", "pending", "invited", "revoked"].filter((state) => known.states[state]);
  const versions = Object.entries(known.versions).map(([version, number]) => `${version} (${count(number)})`);
  return card("Agents",
    table("Agents by state", [{ name: "State" }, { name: "Agents", number: true }],
      states.map((state) => [stateBadge(state), count(known.states[state])])),
    h("p", { class: "small quiet" }, versions.length ? `Releases of those heard of: ${versions.join(", ")}. ` : "",
      "An agent that trains is not heard of until it has finished."),
    session.isOperator && h("p", {}, h("a", { href: "#/agents" }, "All agents")));
}

function workers({ workers: found, now }) {
  if (!found.length) {
    return card("Workers", empty("No worker has asked for work since the coordinator started. Runs wait for one: ",
      h("code", {}, "python -m services.coordinator.worker")));
  }
  return card("Workers", table("Workers", [{ name: "Worker" }, { name: "Does" }, { name: "Heard" }, { name: "Release" }],
    found.map((worker) => [worker.name, doing(worker), ago(now - worker.heard_at), worker.version])));
}

function doing({ work }) {
  if (!work) return "waits for work";
  return [`${WORK[work.kind] ?? work.kind} `, runLink(work.run_id), work.round ? ` round ${work.round}` : ""];
}

function newest(runs) {
  if (!runs.length) return card("Newest runs", empty("There is no run yet."));
  return card("Newest runs",
    table("Newest runs", [{ name: "Run" }, { name: "State" }, { name: "Progress" }, { name: "Made" }],
      runs.map((run) => [[runLink(run.id), run.terms.name && h("span", { class: "quiet" }, ` ${run.terms.name}`)],
        runBadge(run), runProgress(run), time(run.created_at)])),
    h("p", {}, h("a", { href: "#/runs" }, "All runs")));
}

function held({ held: adapter, pinned }) {
  if (!adapter) return card("What agents hold", empty("Nothing yet: no round has published an adapter."));
  return card("What agents hold", facts(
    ["Adapter", ["of round ", adapter.round, " of ", runLink(adapter.run_id)]],
    ["Digest", digest(adapter.digest)],
    ["Chosen", pinned ? [badge("pinned", "warn"), " by an operator"] : "the newest that was published"]));
}

function coordinator(federation) {
  return card("Coordinator", facts(
    ["Operator’s key", h("code", {}, federation.fingerprint)],
    ["Release", federation.version],
    ["Started", time(federation.started_at)],
    ["Protocol", String(federation.protocol)]));
}
