// What several pages say of a run.

import { stateBadge } from "../components.js";
import { h } from "../dom.js";
import { count, counted } from "../format.js";

/** A link to a run's page. */
export function runLink(id) {
  return h("a", { href: `#/runs/${encodeURIComponent(id)}` }, id);
}

/** A run's state; one that its operator has ended is no failure. */
export function runBadge(run) {
  return stateBadge(isStopped(run) ? "stopped" : run.state);
}

/** How far a run is, in words: rounds that came to nothing have numbers too, so that a number is no share. */
export function runProgress(run) {
  const goal = counted(run.terms.rounds, "round");
  if (run.state === "finished") return `all of ${goal} published`;
  if (waitsForSignature(run)) return "waits for the operator’s signature";
  return run.round ? `at round ${count(run.round)}, ${count(run.terms.rounds)} to publish` : `${goal} to publish`;
}

/** Whether a run has been prepared, and goes on once its operator has signed what it is. */
export function waitsForSignature(run) {
  return Boolean(run.base_scores) && !run.signed && !hasEnded(run);
}

export function hasEnded({ state }) {
  return state === "finished" || state === "failed";
}

/** Whether a run was ended by its operator, which is no failure. */
export function isStopped({ reason }) {
  return (reason ?? "").startsWith("stopped: ");
}

/** A model by the last part of its name. */
export function modelName(reference) {
  return reference.replace(/\/+$/, "").split("/").at(-1);
}
