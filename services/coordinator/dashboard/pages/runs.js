// The list of runs, page by page.

import { get, withQuery } from "../api.js";
import { empty, pageHead, table, time } from "../components.js";
import { h } from "../dom.js";
import { session } from "../session.js";
import { modelName, runBadge, runLink, runProgress } from "./run_parts.js";

const A_PAGE = 20;
const COLUMNS = [{ name: "Run" }, { name: "State" }, { name: "Progress" }, { name: "LLM and SLM" }, { name: "Made" }];

export async function show(view) {
  const before = view.query.get("before");
  const list = await get(withQuery("/v1/runs", { limit: A_PAGE, before }), view);
  const older = list.next && h("a", { href: `#/runs?before=${encodeURIComponent(list.next)}` }, "Older runs");
  view.put(
    pageHead("Runs", session.isOperator && h("a", { class: "button primary", href: "#/new-run" }, "New run")),
    h("section", { class: "card", "aria-label": "Runs, newest first" },
      list.runs.length ? table("Runs, newest first", COLUMNS, list.runs.map(row)) : nothing(before),
      (older || before) && h("nav", { class: "row", "aria-label": "Pages of runs" },
        before && h("a", { href: "#/runs" }, "Newest runs"), older)));
}

function nothing(before) {
  if (before) return empty("There are no older runs.");
  return empty("There is no run yet. ", session.isOperator ? "“New run” makes one." : "An operator makes one.");
}

function row(run) {
  return [
    [runLink(run.id), run.terms.name && h("span", { class: "quiet" }, ` ${run.terms.name}`)],
    runBadge(run),
    runProgress(run),
    `${modelName(run.terms.llm)}, ${modelName(run.terms.slm)}`,
    time(run.created_at),
  ];
}
