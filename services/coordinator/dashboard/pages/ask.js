// One prompt for four models: the LLM and the SLM of a run, as they were and as they are co-tuned.

import { change, get, Superseded, withQuery } from "../api.js";
import { card, empty, notice, pageHead } from "../components.js";
import { h, put } from "../dom.js";
import { count, counted } from "../format.js";
import { session } from "../session.js";

const WAIT_SECONDS = 20;
const MOST_CHARACTERS = 4000;
const MOST_TOKENS = 256;
const MODELS = [["llm_base", "LLM, as it was"], ["llm", "LLM, co-tuned"], ["slm_base", "SLM, as it was"], ["slm", "SLM, co-tuned"]];

export async function show(view) {
  const head = pageHead("Ask the models");
  if (!session.isOperator) {
    return view.put(head, notice("", "This is for operators",
      h("p", {}, "What the co-tuned LLM says is as much its operator’s as its adapter is.")));
  }
  const runs = (await get("/v1/runs?limit=100", view)).runs.filter(({ published }) => published);
  if (!runs.length) {
    return view.put(head, empty("No run has published an adapter yet: once one has, its models can be asked here."));
  }
  const run = h("select", { id: "run" }, runs.map(({ id, published }) =>
    h("option", { value: id, selected: id === view.query.get("run") }, `${id}, with the adapters of round ${count(published.round)}`)));
  const prompt = h("textarea", { id: "prompt", rows: 5, maxlength: MOST_CHARACTERS, required: true, "aria-describedby": "prompt-help" });
  const tokens = h("input", { id: "tokens", type: "number", min: 1, max: MOST_TOKENS, value: 64, required: true, "aria-describedby": "tokens-help" });
  const button = h("button", { class: "primary", type: "submit" }, "Ask");
  const said = h("p", { role: "status", class: "quiet" });
  const answers = h("div", {}, unasked());

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    put(said, "Asked.");
    put(answers, waiting());
    document.documentElement.dataset.ready = "asking";
    try {
      const asked = { run_id: run.value, prompt: prompt.value, max_new_tokens: Number(tokens.value) };
      let view_ = await change("POST", "/v1/questions", asked);
      while (view_.state === "waiting" || view_.state === "asked") {
        put(said, progress(view_));
        view_ = await get(withQuery(`/v1/questions/${view_.id}`, { wait_seconds: WAIT_SECONDS }), { ...view, patience: 1000 * (WAIT_SECONDS + 10) });
      }
      put(said, view_.state === "failed" ? "The models could not be asked." : `Answered, with the adapters of round ${view_.round}.`);
      put(answers, view_.state === "failed" ? notice("bad", "No answers", h("p", {}, view_.reason)) : four(view_.answers));
      document.documentElement.dataset.ready = "answered";
    } catch (error) {
      if (view.signal.aborted || error instanceof Superseded) return;
      put(said);
      put(answers, notice("bad", "This did not work", h("p", {}, error.detail ?? error.message)));
    } finally {
      button.disabled = false;
    }
  }

  view.put(head, h("div", { class: "stack" },
    h("form", { class: "card stack", onsubmit: submit },
      h("div", { class: "field" }, h("label", { for: "run" }, "Run"), run),
      h("div", { class: "field" }, h("label", { for: "prompt" }, "Prompt"), prompt,
        h("p", { class: "small quiet", id: "prompt-help" },
          "It is put to the models as it stands, without the run’s template. It goes to a worker, stays in memory for ten minutes, and is stored nowhere: neither it nor the answers are in a log.")),
      h("div", { class: "field short" }, h("label", { for: "tokens" }, "Tokens"), tokens,
        h("p", { class: "small quiet", id: "tokens-help" }, `How many each answer may have: 1 to ${MOST_TOKENS}.`)),
      h("div", { class: "row" }, button, said)),
    answers));
}

function progress({ state, before }) {
  if (state === "asked") return "A worker puts it to the models.";
  return before ? `Waits; ${counted(before, "question")} before it.` : "Waits for a worker that has nothing else to do.";
}

function four(texts) {
  return h("div", { class: "columns" }, MODELS.map(([name, title]) =>
    card(title, texts[name] === undefined ? empty("No answer.") : h("p", { class: "answer" }, texts[name] || "It said nothing."))));
}

function waiting() {
  return h("div", { class: "columns", "aria-busy": "true" }, MODELS.map(([, title]) => card(title, h("p", { class: "quiet" }, "…"))));
}

function unasked() {
  return empty("Four answers will be here, side by side: of both models, before and after co-tuning.");
}
