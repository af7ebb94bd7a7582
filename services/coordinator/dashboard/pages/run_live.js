// What a run is at: what it waits for and what to do next, and the phases of the round that is under way.

import { badge, card, command, notice, time } from "../components.js";
import { h, renew } from "../dom.js";
import { count, counted, duration } from "../format.js";
import { session } from "../session.js";
import { isStopped, waitsForSignature } from "./run_parts.js";

const STAGES = {
  keys: "members announce their keys",
  shares: "members deal shares of their secrets",
  masked: "members send masked updates",
  consistency: "members confirm whose updates have come",
  unmasking: "members release what unmasks the sum",
};
const ENDED = new Set(["published", "refused", "aborted"]);

// A round's phases, each with its states, and where it is left out.
const PHASES = [
  { name: "Agents train", states: ["open"] },
  { name: "Masking", states: Object.keys(STAGES), isMissing: (terms) => terms.aggregation !== "SecureAggregation" },
  { name: "Wait for a worker", states: ["aggregated"] },
  { name: "Co-tuning", states: ["cotuning"] },
  { name: "Evaluation", states: ["evaluating"] },
  { name: "Published", states: ["published"] },
];

/** What a round is at, in words: its phase, or how it has ended. */
export function phaseName(round) {
  const phase = PHASES.find(({ states }) => states.includes(round.state));
  return (phase?.name ?? round.state).toLowerCase();
}

/** What stands in the way of a run, or how it has ended, and what whoever looks can do; null where it just goes on. */
export function standing(run) {
  const start = session.isOperator ? "Start it with the button above." : "An operator can start it.";
  if (run.state === "draft") {
    return notice(null, "This run is a draft", h("p", {}, `Nothing happens yet. ${start} A worker then prepares it, `,
      "and its first round opens once the operator has signed what came of it."));
  }
  if (run.state === "paused") {
    return notice("warn", "This run is paused", h("p", {}, "It hands out no work and no rounds. ",
      session.isOperator ? "“Resume” lets it go on." : "An operator can let it go on."));
  }
  if (run.state === "failed") {
    return isStopped(run)
      ? notice("warn", "An operator has ended this run", h("p", {}, run.reason.slice("stopped: ".length)))
      : notice("bad", "This run has failed", h("p", {}, run.reason),
        h("p", {}, "What it published stays. The log below says what came before."));
  }
  if (run.state === "finished") {
    return notice("good", "This run is finished", h("p", {}, `All of its ${counted(run.terms.rounds, "round")} are published.`));
  }
  if (waitsForSignature(run)) {
    return notice("warn", "It waits to be signed",
      h("p", {}, "A worker has prepared it. On the machine with the operator’s key, with the operator’s own file of the terms:"),
      command(`fedcollm runs sign ${run.id} --terms FILE`),
      h("p", { class: "small" }, "The coordinator cannot sign: it has the public half of the key alone. The command compares ",
        "the file with what the coordinator says that the run is."));
  }
  if (!run.base_scores) {
    return notice(null, "A worker prepares this run", h("p", {}, "It loads both models, checks that they fit together and ",
      "evaluates them. Where this takes long, the federation’s page says whether there is a worker."));
  }
  return null;
}

/** The round that is under way, as an element with `draw(run, rounds)` and `tick()`, which moves its timers. */
export function liveRound() {
  const section = h("div", {});
  let known = null;

  section.draw = (run, rounds) => {
    const round = rounds.at(-1);
    known = run.state === "running" && round && !ENDED.has(round.state)
      ? { run, round } : null;
    section.tick();
  };
  section.tick = () => {
    if (known === null) return renew(section);
    const elapsed = Math.max(0, session.now() - known.round.since);
    renew(section, card(`Round ${count(known.round.number)}`, steps(known, elapsed), h("div", { class: "gather" }, detail(known, elapsed))));
  };
  return section;
}

function steps({ run, round }, elapsed) {
  const phases = PHASES.filter((phase) => !phase.isMissing?.(run.terms));
  const at = phases.findIndex((phase) => phase.states.includes(round.state));
  return h("ol", { class: "phases" }, phases.map((phase, number) => {
    const spent = phase.states.reduce((sum, state) => sum + (round.seconds[state] ?? 0), 0);
    const [state, told] = number < at ? ["done", duration(spent)] : number > at ? ["next", "to come"] : ["now", duration(Math.floor(spent + elapsed))];
    return h("li", { class: state, "aria-current": state === "now" ? "step" : null },
      h("span", { class: "step" }, phase.name), h("span", { class: "small" }, state === "done" && h("span", { class: "unseen" }, "done in "), told));
  }));
}

function detail({ run, round }, elapsed) {
  const secret = run.terms.aggregation === "SecureAggregation";
  if (round.state === "open") return gathering(run.terms, round, elapsed, secret);
  if (STAGES[round.state]) {
    const number = Object.keys(STAGES).indexOf(round.state) + 1;
    return [h("p", {}, `Stage ${number} of 5: ${STAGES[round.state]}. ${counted(round.accepted, "member")}.`),
      round.attempts > 1 && h("p", { class: "small quiet" }, `This is attempt ${round.attempts} of the round.`)];
  }
  if (round.state === "aggregated") return h("p", {}, `${counted(round.accepted, "update")} added up. No worker has taken the co-tuning yet.`);
  if (round.state === "cotuning") return h("p", {}, "A worker tunes both models with each other, on the coordinator’s auxiliary set.");
  return h("p", {}, "A worker evaluates the candidates on the validation set; the gate then publishes or refuses.");
}

function gathering({ cohort }, round, elapsed, secret) {
  const there = secret ? `${count(round.accepted)} ready` : counted(round.accepted, "update");
  const needed = `${count(cohort.min_count)} ${cohort.min_count === 1 ? "is" : "are"} needed`;
  const asked = cohort.min_count < cohort.max_count ? `: ${needed}, ${count(cohort.max_count)} at most. ` : `: ${needed}. `;
  return [
    h("p", {}, h("strong", {}, there), asked, closing(cohort, round, elapsed)),
    h("progress", { max: cohort.max_count, value: Math.min(round.accepted, cohort.max_count), "aria-label": there }),
    (round.refused > 0 || round.late > 0) && h("p", { class: "small quiet" }, `Refused: ${count(round.refused)}. Late: ${count(round.late)}.`),
    round.attempts > 0 && h("p", { class: "small quiet" }, `${counted(round.attempts, "attempt")} at adding up came to nothing so far.`),
  ];
}

/** What an open round waits for, by the closing rule (docs/protocol.md, step 5). */
function closing({ min_count: least, max_count: most, min_seconds: wait, max_seconds: limit }, { accepted }, elapsed) {
  const left = (end) => duration(Math.max(0, Math.round(end - elapsed)));
  if (accepted >= most) return "All are there.";
  if (accepted >= least) return `It goes on without the rest in ${left(wait)}.`;
  if (least < most && elapsed < wait) return `It waits ${left(wait)} for all.`;
  return `It gives up in ${left(limit)}.`;
}

/** Rounds that came to nothing, each with its reason. */
export function troubles(rounds) {
  const failed = rounds.filter((round) => round.reason).toReversed();
  if (!failed.length) return null;
  const items = failed.map((round) => h("li", {}, h("strong", {}, `Round ${count(round.number)} `),
    badge(round.state, round.state === "aborted" ? "bad" : "warn"), " ", round.ended_at && [time(round.ended_at), ": "], round.reason));
  const NEWEST = 3;
  return card(`${counted(failed.length, "round")} came to nothing`, h("ul", {}, items.slice(0, NEWEST)),
    items.length > NEWEST && h("details", {}, h("summary", {}, `${count(items.length - NEWEST)} before`), h("ul", {}, items.slice(NEWEST))));
}
