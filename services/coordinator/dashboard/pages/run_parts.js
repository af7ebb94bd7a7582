// What several pages say of a run.

import { h } from "../dom.js";
import { count, counted } from "../format.js";

/** A link to a run's page. */
export function runLink(id) {
  return h("a", { href: `#/runs/${encodeURIComponent(id)}` }, id);
}

/** How far a run is, in words: rounds that came to nothing have numbers too, so that a number is no share. */
export function runProgress({ state, round, terms }) {
  const goal = counted(terms.rounds, "round");
  if (state === "finished") return `all of ${goal} published`;
  return round ? `at round ${count(round)}; ${goal} to publish` : `${goal} to publish`;
}

/** A model by the last part of its name. */
export function modelName(reference) {
  return reference.replace(/\/+$/, "").split("/").at(-1);
}
