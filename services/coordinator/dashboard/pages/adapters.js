// The published adapters, newest first: what each scored, which one the agents hold, and how that is changed.

import { change, get, getFile, withQuery } from "../api.js";
import { badge, card, command, confirm, digest, empty, facts, pageHead, table, time } from "../components.js";
import { h, renew, save } from "../dom.js";
import { bytes, count, nats, percent } from "../format.js";
import { every } from "../poll.js";
import { session } from "../session.js";

const REFRESH_SECONDS = 15;
const A_PAGE = 50;

export async function show(view) {
  const asked = { run_id: view.query.get("run"), before: view.query.get("before") };
  const { runs } = await get("/v1/runs?limit=100", view);
  const body = h("div", { class: "stack" });
  let shown = await load(view, asked);
  const draw = () => renew(body, ...parts(shown, asked));
  const again = async () => { shown = await load(view, asked); draw(); };
  draw();
  view.put(pageHead("Adapters"), filter(runs, asked), body);
  body.addEventListener("click", async ({ target }) => {
    const { hold, save: saved, newest } = target.dataset ?? {};
    if (saved) await download(target, shown.adapters.find(({ slm_adapter }) => slm_adapter === saved), view);
    if (hold && (await letHold(...hold.split(":")))) await again();
    if (newest !== undefined && (await letFollow())) await again();
  });
  every(REFRESH_SECONDS, again, view.signal);
}

async function load(view, asked) {
  const path = withQuery("/v1/adapters", { ...asked, limit: A_PAGE });
  const [list, promotion] = await Promise.all([get(path, view), get("/v1/promotion", view)]);
  return { ...list, promotion };
}

function parts({ adapters, next, promotion }, asked) {
  return [held(promotion),
    h("section", { class: "card", "aria-label": "Published adapters" }, h("h2", {}, "Published"),
      adapters.length
        ? table("Published adapters, newest first", COLUMNS, adapters.map((each) => row(each, promotion)))
        : empty("Nothing was published yet: a round publishes an adapter once it was aggregated, co-tuned and evaluated."),
      pager(next, asked)),
    session.isOperator && card("As PEFT directories", h("p", {}, "A download is the weights alone. The command fetches a run’s newest adapter with its ",
      "adapter_config.json, or merges it into its base model."), command("fedcollm adapters pull RUN slm-adapter --out DIR"))];
}

function held({ held: adapter, pinned }) {
  if (!adapter) return card("What the agents hold", empty("Nothing yet: agents hold the newest published adapter."));
  return card("What the agents hold",
    facts(["Adapter", place(adapter)], ["Digest", digest(adapter.digest)],
      ["Because", pinned
        ? [badge("chosen", "warn"), " an operator has chosen it, also while there are newer ones"]
        : [badge("newest", "good"), " it is the newest, and the next one will take its place"]]),
    h("p", { class: "small quiet" }, "Agents take it when they ask the next time. Rounds begin from their own run’s newest all the same."),
    pinned && session.isOperator
      ? h("button", { type: "button", "data-newest": "" }, "Follow the newest again") : null);
}

function place({ run_id, round }) {
  return [h("a", { href: `#/runs/${run_id}` }, run_id), `, round ${count(round)}`];
}

const COLUMNS = [{ name: "Adapter" }, { name: "Published" }, { name: "SLM", number: true }, { name: "SLM’s loss", number: true },
  { name: "LLM", number: true }, { name: "Size", number: true }, { name: "Digest" }, { name: "What to do" }];

function row(adapter, { held: now, pinned }) {
  const { run_id, round, scores } = adapter;
  const isHeld = now?.run_id === run_id && now.round === round;
  const name = `${run_id}, round ${round}`;
  return [[place(adapter), isHeld ? [" ", badge(pinned ? "held, chosen" : "held", "good")] : ""], time(adapter.published_at),
    scores ? percent(scores.slm.accuracy) : "–", scores ? nats(scores.slm.loss) : "–", scores ? percent(scores.llm.accuracy) : "–",
    bytes(adapter.bytes), digest(adapter.slm_adapter, `digest of ${name}`),
    h("div", { class: "row" },
      h("a", { href: `#/adapters/${run_id}/${round}`, "aria-label": `Card of ${name}` }, "Card"),
      h("button", { type: "button", "data-save": adapter.slm_adapter, "aria-label": `Download ${name}` }, "Download"),
      session.isOperator && !(isHeld && pinned)
        ? h("button", { type: "button", "data-hold": `${run_id}:${round}`, "aria-label": `Let agents hold it: ${name}` }, "Let agents hold it") : null)];
}

function filter(runs, { run_id }) {
  const options = runs.filter(({ published }) => published);
  if (options.length < 2) return null;
  const chosen = ({ target }) => { location.hash = target.value ? `#/adapters?run=${target.value}` : "#/adapters"; };
  return h("div", { class: "row filter" }, h("label", { for: "run" }, "Run"),
    h("select", { id: "run", onchange: chosen }, h("option", { value: "" }, "all runs"),
      options.map(({ id }) => h("option", { value: id, selected: id === run_id }, id))));
}

function pager(next, { run_id, before }) {
  if (!next && !before) return null;
  return h("nav", { class: "row", "aria-label": "Pages of adapters" },
    before && h("a", { class: "button", href: withQuery("#/adapters", { run: run_id }) }, "Newest"),
    next && h("a", { class: "button", href: withQuery("#/adapters", { run: run_id, before: next }) }, "Older"));
}

async function download(button, adapter, view) {
  button.disabled = true;
  try {
    const file = await getFile(`/v1/adapters/${adapter.slm_adapter}`, view);
    save(`${adapter.run_id}-round-${adapter.round}.safetensors`, file);
  } finally {
    button.disabled = false;
  }
}

function letHold(run_id, round) {
  return confirm({
    title: `Let agents hold ${run_id}, round ${round}?`,
    text: "Agents take this adapter when they ask the next time, and keep it also when newer ones are published, until they are let follow the newest again.",
    label: "Let agents hold it",
    action: () => change("PUT", "/v1/promotion", { run_id, round: Number(round) }),
  });
}

function letFollow() {
  return confirm({
    title: "Follow the newest again?",
    text: "Agents take the newest published adapter when they ask the next time, and each newer one after it.",
    label: "Follow the newest",
    action: () => change("DELETE", "/v1/promotion"),
  });
}
