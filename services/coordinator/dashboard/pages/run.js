// A run, live: what it is at, what it has learnt, and where its time goes.

import { all, change, get } from "../api.js";
import { confirm, figures } from "../components.js";
import { h, renew } from "../dom.js";
import { bytes, count, duration } from "../format.js";
import { every, follow } from "../poll.js";
import { session } from "../session.js";
import { runCharts } from "./run_charts.js";
import { liveRound, phaseName, standing, troubles } from "./run_live.js";
import { hasEnded, runBadge } from "./run_parts.js";
import { adapterCard, logCard, roundTable, scoreFigure, secondsOf, termsCard } from "./run_tables.js";

const EVENTS_A_PAGE = 500;

export async function show(view, { id }) {
  const path = `/v1/runs/${encodeURIComponent(id)}`;
  const known = { run: null, rounds: [], events: [], artefacts: [] };
  const parts = { head: h("div", {}), news: h("div", { class: "unseen", "aria-live": "polite" }), standing: h("div", {}),
    live: liveRound(), figures: h("div", {}), measured: h("div", { class: "stack" }), charts: runCharts(), troubles: h("div", {}), rounds: roundTable(),
    adapters: h("div", {}), terms: h("div", {}), log: logCard() };

  /** Ask for what may have changed: rounds that have ended stay as they are. */
  async function refresh() {
    const ended = known.rounds.findIndex((round) => round.ended_at === null);
    const kept = ended < 0 ? known.rounds : known.rounds.slice(0, ended);
    const [run, fresh, { artefacts }] = await Promise.all([
      get(path, view), all(`${path}/rounds?after=${kept.at(-1)?.number ?? 0}`, "rounds", "after", view), get(`${path}/artefacts`, view)]);
    tellNews(parts.news, known, run, fresh.at(-1));
    Object.assign(known, { run, rounds: [...kept, ...fresh], artefacts });
    draw();
  }

  function draw() {
    const { run, rounds, events, artefacts } = known;
    renew(parts.head, head(run, path, refresh));
    renew(parts.standing, standing(run));
    parts.live.draw(run, rounds);
    renew(parts.figures, glance(known));
    parts.measured.hidden = rounds.length === 0;
    renew(parts.troubles, troubles(rounds));
    parts.rounds.draw(rounds);
    renew(parts.adapters, adapterCard(run, artefacts));
    renew(parts.terms, termsCard(run));
    parts.log.draw(events);
    if (parts.measured.isConnected) parts.charts.draw(run, rounds);
  }

  async function take(events) {
    known.events.push(...events);
    if (events.length < EVENTS_A_PAGE) await refresh();
  }

  await refresh();
  const { accuracy, loss, time } = parts.charts.nodes;
  parts.measured.append(h("div", { class: "columns" }, accuracy, loss), time, parts.troubles, parts.rounds);
  view.put(parts.head, parts.news, h("div", { class: "stack" }, parts.standing, parts.live, parts.figures, parts.measured,
    parts.adapters, parts.terms, parts.log));
  parts.charts.draw(known.run, known.rounds); // which measures what is on the page, and is not waited for
  follow(id, take, view.signal, () => hasEnded(known.run));
  every(1, () => parts.live.tick(), view.signal);
}

function head(run, path, refresh) {
  return h("div", { class: "head" },
    h("div", { class: "row" }, h("h1", { tabindex: -1 }, `Run ${run.id}`), runBadge(run), h("span", { class: "lead" }, run.terms.name)),
    session.isOperator && h("div", { class: "row" }, h("a", { class: "button", href: `#/new-run?like=${run.id}` }, "New run like this"),
      actions(run, path, refresh)));
}

function actions(run, path, refresh) {
  const ask = (label, kind, dialog) => h("button", { type: "button", class: kind, onclick: async () => {
    if (await confirm({ label, ...dialog })) await refresh();
  } }, label);
  if (hasEnded(run)) return [];
  const isDraft = run.state === "draft";
  const pausing = {
    title: `Pause run ${run.id}?`,
    text: "It hands out no work and no rounds until it is resumed. Updates are still taken.",
    action: () => change("POST", `${path}/pause`),
  };
  const starting = {
    title: `${isDraft ? "Start" : "Resume"} run ${run.id}?`,
    text: isDraft ? "A worker prepares it. Its first round opens once you have signed what came of it."
      : "It goes on where it was; an open round has its whole time again.",
    action: () => change("POST", `${path}/start`),
  };
  return [
    run.state === "running" ? ask("Pause", null, pausing) : ask(isDraft ? "Start" : "Resume", "primary", starting),
    ask("Cancel", "danger", {
      title: `End run ${run.id} for good?`,
      danger: true,
      label: "End it for good",
      reason: "Why? Everybody who looks at the run reads this.",
      text: "The round that is under way is aborted. What was published stays.",
      action: (reason) => change("POST", `${path}/cancel`, { reason }),
    }),
  ];
}

function glance({ run, rounds, artefacts }) {
  const published = rounds.filter((round) => round.state === "published");
  const last = published.at(-1)?.scores;
  const spent = rounds.filter((round) => round.ended_at !== null).map(secondsOf);
  const size = artefacts.find((each) => each.name === "slm-adapter")?.bytes;
  const right = run.terms.task.kind === "completion" ? "right tokens" : "right answers";
  return h("section", { class: "card", "aria-label": "At a glance" }, figures(
    ["Rounds published", count(published.length), `of ${count(run.terms.rounds)}`],
    scoreFigure(`SLM, ${right}`, last?.slm ?? run.base_scores?.slm, last && run.base_scores?.slm),
    scoreFigure(`LLM, ${right}`, last?.llm ?? run.base_scores?.llm, last && run.base_scores?.llm),
    ["A round takes", spent.length ? duration(spent.reduce((sum, each) => sum + each, 0) / spent.length) : "–", null,
      spent.length ? "on average" : "none has ended yet"],
    ["SLM’s adapter", size ? bytes(size) : "–", null,
      size ? "to each agent, and an update of that size back, each round" : "none yet"],
  ));
}

/** Say to who does not see the page what has changed. */
function tellNews(news, { run: before, rounds }, run, round) {
  if (before === null) return;
  const last = rounds.at(-1);
  const told = [
    before.state !== run.state && `The run is ${run.state}.`,
    round && (last?.number !== round.number || phaseName(last) !== phaseName(round)) && `Round ${round.number}: ${phaseName(round)}.`,
  ].filter(Boolean);
  if (told.length) news.textContent = told.join(" ");
}
