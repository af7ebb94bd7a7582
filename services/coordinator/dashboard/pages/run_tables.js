// A run's rounds, adapters, terms and log as tables.

import { getFile } from "../api.js";
import { card, digest, empty, facts, stateBadge, table, time } from "../components.js";
import { h, renew, save } from "../dom.js";
import { bytes, count, counted, duration, interval, nats, percent, written } from "../format.js";
import { session } from "../session.js";

const NEWEST = 10;
const LINES = 15;
const MOST_LINES = 500;

const ROUND_COLUMNS = [{ name: "Round", number: true }, { name: "State" }, { name: "Updates", number: true }, { name: "SLM aggregated", number: true },
  { name: "SLM co-tuned", number: true }, { name: "LLM co-tuned", number: true }, { name: "SLM’s loss", number: true }, { name: "Time", number: true },
  { name: "SLM adapter" }];

/** The rounds, newest first; all of them once that is asked for. */
export function roundTable() {
  let [isWhole, known] = [false, []];
  const body = h("div", {});
  const more = h("button", { type: "button", onclick: () => { isWhole = true; section.draw(known); } });
  const section = h("section", { class: "card", "aria-label": "Rounds" }, h("h2", {}, "Rounds"), body, h("p", {}, more));
  section.draw = (rounds) => {
    known = rounds;
    const newest = rounds.toReversed();
    more.parentElement.hidden = isWhole || newest.length <= NEWEST;
    more.textContent = `Show all ${count(newest.length)}`;
    renew(body, newest.length
      ? table("Rounds, newest first", ROUND_COLUMNS, (isWhole ? newest : newest.slice(0, NEWEST)).map(roundRow))
      : empty("No round has opened yet."));
  };
  return section;
}

/** How long a round took, up to the state that it is in. */
export function secondsOf(round) {
  return Object.values(round.seconds).reduce((sum, each) => sum + each, 0);
}

function roundRow(round) {
  const { scores } = round;
  const share = (score) => score && percent(score.accuracy);
  const spent = secondsOf(round);
  return [count(round.number), stateBadge(round.state), updates(round), share(scores?.slm_aggregated), share(scores?.slm), share(scores?.llm),
    scores && nats(scores.slm.loss), spent > 0 && duration(spent),
    round.slm_adapter && digest(round.slm_adapter)];
}

function updates({ accepted, refused, late, attempts }) {
  const others = [refused && `${count(refused)} refused`, late && `${count(late)} late`, attempts > 1 && `${count(attempts)} attempts`].filter(Boolean);
  return others.length ? [count(accepted), h("span", { class: "small quiet" }, ` (${others.join(", ")})`)] : count(accepted);
}

/** The newest adapters of a run, for its operator to fetch. */
export function adapterCard(run, artefacts) {
  if (!artefacts.length) return card("Adapters", empty("Nothing yet: the first round that is published makes them."));
  const names = { "slm-adapter": "SLM", "llm-adapter": "LLM" };
  return card("Adapters",
    table("Newest adapters", [{ name: "Of" }, { name: "Round", number: true }, { name: "Size", number: true }, { name: "Digest" },
      ...(session.isOperator ? [{ name: "File" }] : [])],
    artefacts.map((each) => [names[each.name], count(each.round), bytes(each.bytes), digest(each.digest),
      ...(session.isOperator ? [fetching(run, each.name)] : [])])),
    h("p", { class: "small quiet" }, "Agents get the SLM’s; the LLM’s stays with the coordinator."));
}

function fetching(run, name) {
  const button = h("button", { type: "button", class: "copy", "aria-label": `Download ${name}`, onclick: go }, "Download");
  async function go() {
    button.disabled = true;
    try {
      save(`${run.id}-${name}.safetensors`, await getFile(`/v1/runs/${run.id}/artefacts/${name}`));
    } finally {
      button.disabled = false;
    }
  }
  return button;
}

/** What the operator has decided. */
export function termsCard({ terms, created_at: createdAt }) {
  const { cohort, training, cotuning } = terms;
  const every = leaves(terms).map(([name, value]) => [h("code", {}, name), String(value)]);
  return card("Terms", facts(
    ["LLM", h("span", { class: "anywhere" }, terms.llm)],
    ["SLM", h("span", { class: "anywhere" }, terms.slm)],
    ["Task", terms.task.kind.replace("_", " ")],
    ["Rounds", count(terms.rounds)],
    ["Cohort", `${count(cohort.min_count)} to ${counted(cohort.max_count, "agent")}, after ${duration(cohort.min_seconds)} to ${duration(cohort.max_seconds)}`],
    ["Training", `${counted(training.epochs, "epoch")}, ${counted(training.batch_size, "example")} a step, learning rate ${training.optimiser.learning_rate}`],
    ["Co-tuning", `${counted(cotuning.passes, "pass", "passes")}, weight of distillation ${cotuning.distillation_weight}`],
    ["Updates", terms.aggregation === "SecureAggregation" ? "added up under masks: nobody reads one alone" : "readable by the coordinator"],
    ["Gate", terms.gate.enabled ? `on, tolerance ${terms.gate.tolerance} nats` : "off"],
    ["Made", time(createdAt)]),
  h("details", {}, h("summary", {}, "All terms"), table("All terms", [{ name: "Term" }, { name: "Value" }], every)));
}

function leaves(value, prefix = "") {
  return Object.entries(value).flatMap(([name, each]) =>
    each !== null && typeof each === "object" && !Array.isArray(each)
      ? leaves(each, `${prefix}${name}.`) : [[prefix + name, each === null ? "left out" : Array.isArray(each) ? each.join(", ") : each]]);
}

/** The run's log, newest first, as an element with `draw(events)`. */
export function logCard() {
  let [isWhole, known] = [false, []];
  const list = h("div", {});
  const more = h("button", { type: "button", onclick: () => { isWhole = true; section.draw(known); } });
  const section = h("section", { class: "card", "aria-label": "Log" }, h("h2", {}, "Log"), list, h("p", {}, more));
  section.draw = (events) => {
    known = events;
    const shown = events.slice(isWhole ? -MOST_LINES : -LINES).toReversed();
    more.parentElement.hidden = isWhole || events.length <= LINES;
    more.textContent = `Show more, up to ${count(Math.min(events.length, MOST_LINES))} of ${counted(events.length, "line")}`;
    renew(list, shown.length
      ? table("Log, newest first", [{ name: "Time" }, { name: "Event" }, { name: "Round", number: true }, { name: "More" }], shown.map(logRow))
      : empty("Nothing has happened yet."));
  };
  return section;
}

function logRow({ at, kind, round, detail }) {
  const more = Object.entries(detail).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${written(value)}`);
  return [time(at), h("code", { class: "nowrap" }, kind), round && count(round), more.join(", ")];
}

/** A score as a figure: its accuracy, how sure that is, and how much tuning has brought. */
export function scoreFigure(name, score, base) {
  if (!score) return [name, "–", null, "not evaluated yet"];
  const gain = base && `${signed(100 * (score.accuracy - base.accuracy))} points on the base model`;
  const sure = score.interval && `95 % interval ${interval(score.interval)}`;
  return [name, percent(score.accuracy), null, [sure, gain].filter(Boolean).map((each) => h("span", {}, each))];
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
}
