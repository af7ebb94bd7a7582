// A run's rounds as charts: accuracy, loss, and where the time goes.

import { chart } from "../chart.js";
import { stateBadge } from "../components.js";
import { count, duration, interval, nats, percent } from "../format.js";

// What was evaluated, in the order of a round: which score of a round or of the base models, and its colour.
const CURVES = [
  { key: "slm_aggregated", name: "SLM, aggregated", slot: 2 },
  { key: "slm", name: "SLM, co-tuned", slot: 1 },
  { key: "llm", name: "LLM, co-tuned", slot: 3 },
];
const BASES = [{ key: "slm", name: "base SLM", slot: 1 }, { key: "llm", name: "base LLM", slot: 3 }];

/** Where a round's time goes: each part, and the states that it is made of. */
const PARTS = [
  { name: "Agents train", states: ["open"], slot: 1 },
  { name: "Masking", states: ["keys", "shares", "masked", "consistency", "unmasking"], slot: 4 },
  { name: "Waiting for a worker", states: ["aggregated"], slot: 5 },
  { name: "Co-tuning", states: ["cotuning"], slot: 3 },
  { name: "Evaluation", states: ["evaluating"], slot: 2 },
];

/** The seconds of a part of a round. */
function secondsOf(round, part) {
  return part.states.reduce((sum, state) => sum + (round.seconds[state] ?? 0), 0);
}

/** The charts of a run as elements; `draw(run, rounds)` puts what is known into each. */
export function runCharts() {
  const accuracy = chart("Accuracy", { x: "Round", y: "Right answers (%)", unit: "%", digits: 1,
    nothing: "No round has been evaluated yet: the curve begins with the first." });
  const loss = chart("Loss", { x: "Round", y: "Loss (nats a token)", unit: "nats", digits: 4,
    nothing: "No round has been evaluated yet: the curve begins with the first." });
  const time = chart("Where the time goes", { x: "Round", y: "Seconds", unit: "s", digits: 1, stacked: true,
    nothing: "No part of a round has ended yet." });
  return {
    nodes: { accuracy, loss, time },
    draw: (run, rounds) => Promise.all([
      accuracy.draw(accuracies(run, rounds)), loss.draw(losses(run, rounds)), time.draw(times(rounds))]),
  };
}

function accuracies(run, rounds) {
  const base = run.base_scores;
  const chance = base?.slm.chance ?? 0;
  return {
    y: run.terms.task.kind === "completion" ? "Right tokens (%)" : "Right answers (%)",
    ...scored(run, rounds, (score) => 100 * score.accuracy, (score) => score.interval?.map((end) => 100 * end),
      (score) => (score.interval ? `${percent(score.accuracy)} (${interval(score.interval)})` : percent(score.accuracy))),
    rules: [...rulesOf(base, (score) => 100 * score.accuracy), ...(chance ? [{ name: "guessing", y: 100 * chance }] : [])],
  };
}

function losses(run, rounds) {
  return {
    ...scored(run, rounds, (score) => score.loss, () => null, (score) => nats(score.loss)),
    rules: rulesOf(run.base_scores, (score) => score.loss),
  };
}

function rulesOf(base, value) {
  return base ? BASES.map(({ key, name, slot }) => ({ name, slot, y: value(base[key]) })) : [];
}

/** Curves through the published rounds, and what was refused beside them; `ends` is an interval and `told` the cell of a table. */
function scored(run, rounds, value, ends, told) {
  const evaluated = rounds.filter((round) => round.scores);
  const published = evaluated.filter((round) => round.state === "published");
  const refused = evaluated.filter((round) => round.state !== "published");
  const atAgents = rounds.filter((round) => round.evaluation);
  const series = CURVES.map(({ key, name, slot }) => ({ name, slot, x: published.map((round) => round.number),
    y: published.map((round) => value(round.scores[key])), ...ring(published.map((round) => ends(round.scores[key]))) }));
  if (atAgents.length) {
    series.push({ name: "SLM at agents, before the round", slot: 4, x: atAgents.map((round) => round.number),
      y: atAgents.map((round) => value(round.evaluation)) });
  }
  if (refused.length) {
    series.push({ name: "SLM that was refused", slot: 6, points: true, x: refused.map((round) => round.number),
      y: refused.map((round) => value(round.scores.slm)) });
  }
  const base = run.base_scores;
  const columns = [{ name: "Round", number: true }, { name: "State" }, ...(atAgents.length ? [{ name: "SLM at agents", number: true }] : []),
    ...CURVES.map(({ name }) => ({ name, number: true }))];
  const rows = evaluated.map((round) => [count(round.number), stateBadge(round.state),
    ...(atAgents.length ? [round.evaluation && told(round.evaluation)] : []), ...CURVES.map(({ key }) => told(round.scores[key]))]);
  if (base) rows.unshift(["base", "before tuning", ...(atAgents.length ? [null] : []), null, told(base.slm), told(base.llm)]);
  return { series, columns, rows };
}

function ring(ends) {
  return ends.length && ends.every(Boolean) ? { low: ends.map(([low]) => low), high: ends.map(([, high]) => high) } : {};
}

function times(rounds) {
  const begun = rounds.filter((round) => PARTS.some((part) => secondsOf(round, part)));
  const parts = PARTS.filter((part) => begun.some((round) => secondsOf(round, part)));
  return {
    series: parts.map((part) => ({ name: part.name, slot: part.slot, x: begun.map((round) => round.number),
      y: begun.map((round) => secondsOf(round, part)) })),
    columns: ["Round", ...parts.map((part) => part.name), "All"].map((name) => ({ name, number: true })),
    rows: begun.map((round) => [count(round.number), ...parts.map((part) => duration(secondsOf(round, part))),
      duration(parts.reduce((sum, part) => sum + secondsOf(round, part), 0))]),
  };
}
