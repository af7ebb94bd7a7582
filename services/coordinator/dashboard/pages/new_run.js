// A run is made: a form by the API's own schema, and what to do with the draft that comes of it.

import { ApiError, change, get, Superseded } from "../api.js";
import { command, notice, pageHead } from "../components.js";
import { h, put, save } from "../dom.js";
import { inWords } from "../faults.js";
import { sentence } from "../format.js";
import { SchemaForm } from "../schema_form.js";
import { session } from "../session.js";
import { toml } from "../toml.js";

const RUN_ID = /^[a-z0-9][a-z0-9-]{0,63}$/;
const NO_RUN_ID = "-"; // of which the coordinator refuses every run, and says what else it would refuse
const PATTERNS = { name: "Letters, digits, spaces, dots, dashes and underscores, and a letter or a digit first." };
const TITLES = {
  "": "The run",
  task: "Task",
  llm_lora: "LoRA of the LLM",
  slm_lora: "LoRA of the SLM",
  training: "Training, at the agents",
  cotuning: "Co-tuning, at the worker",
  cohort: "Cohort",
  gate: "Gate",
  masking: "Secure aggregation",
  "training.optimiser": "Optimiser",
  "cotuning.llm_optimiser": "Optimiser of the LLM",
  "cotuning.slm_optimiser": "Optimiser of the SLM",
};

export async function show(view) {
  if (!session.isOperator) return view.put(pageHead("New run"), notice("", null, h("p", {}, "Operators make runs.")));
  const [{ components }, { presets }] = await Promise.all([get("/v1/openapi.json", view), get("/v1/presets", view)]);
  const like = view.query.get("like");
  const model = like && (await get(`/v1/runs/${encodeURIComponent(like)}`, view)).terms;
  const form = new SchemaForm(components.schemas, "RunTerms", TITLES);
  const id = idField();
  const summary = h("div", { tabindex: -1 });
  const from = h("select", { id: "preset", onchange: () => form.fill(chosen()) },
    model && h("option", { value: "" }, `the run ${like}`),
    presets.map((preset) => h("option", { value: preset.name }, `${preset.name}: ${last(preset.llm)} with ${last(preset.slm)}`)));
  const button = h("button", { class: "primary", type: "submit" }, "Make the draft");
  const chosen = () => presets.find((preset) => preset.name === from.value) ?? model;
  form.fill(chosen());

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    const terms = form.read();
    try {
      const made = await change("PUT", `/v1/runs/${RUN_ID.test(id.value()) ? id.value() : NO_RUN_ID}`, terms);
      done(view, made.id, terms);
    } catch (error) {
      if (!(error instanceof Superseded)) tell(error);
    } finally {
      button.disabled = false;
    }
  }

  function tell(error) {
    const isTaken = error.code === "run_conflict";
    const faults = isTaken ? [{ where: "run_id", message: sentence(error.detail) }]
      : inWords(error.faults ?? [], { ...PATTERNS, run_id: id.rule });
    if (!faults.length) return say(notice("bad", error instanceof ApiError ? "This did not work" : "Nobody answers", h("p", {}, sentence(error.detail ?? error.message))));
    const ofId = faults.filter(({ where }) => where === "run_id");
    id.mark(ofId.map(({ message }) => message));
    const said = [...ofId.map(({ message }) => ({ title: "Run id", message, go: () => id.control.focus() })),
      ...form.mark(faults.filter(({ where }) => where !== "run_id"))];
    say(notice("bad", faults.length === 1 ? "One thing is to be put right" : `${faults.length} things are to be put right`,
      h("ul", {}, said.map((each) => h("li", {}, each.go ? jump(each) : inOne(each))))));
  }

  function say(what) {
    put(summary, what);
    summary.focus();
    summary.scrollIntoView({ block: "center" });
  }

  view.put(pageHead("New run"),
    h("form", { class: "stack", novalidate: true, onsubmit: submit },
      h("p", { class: "lead" }, "A draft of a run, under terms that never change afterwards. Nothing happens until it is started, ",
        "and no agent trains for it until it is signed with the operator’s key."),
      summary,
      h("section", { class: "card", "aria-label": "Id and preset" }, h("div", { class: "fields" }, id.node,
        h("div", { class: "field" }, h("label", { for: "preset" }, "Begin with"), from,
          h("p", { class: "small quiet" }, "Fills in all that is below; change what is to be otherwise. ",
            "Of “demo”, the name and the models are the demo’s own: the models lie in a clone of FedCoLLM.")))),
      form.node,
      h("div", { class: "row" }, button)));
}

function idField() {
  const rule = "Lower-case letters, digits and dashes; 64 at most, and no dash first.";
  const control = h("input", { id: "run-id", type: "text", autocomplete: "off", spellcheck: "false",
    "aria-required": "true", "aria-describedby": "run-id-help run-id-fault" });
  const said = h("p", { class: "fault", id: "run-id-fault" });
  return {
    rule,
    control,
    value: () => control.value.trim(),
    mark(messages) {
      put(said, messages.join(" "));
      if (messages.length) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    },
    node: h("div", { class: "field" }, h("label", { for: "run-id" }, "Run id"), control,
      h("p", { class: "small quiet", id: "run-id-help" }, `What the run is called in commands and addresses. ${rule}`), said),
  };
}

function jump(fault) {
  return h("a", { href: location.hash, onclick: (event) => { event.preventDefault(); fault.go(); } }, inOne(fault));
}

function inOne({ title, message }) {
  return `${title} – ${message}`;
}

function last(model) {
  return model.split("/").at(-1);
}

/** Say what is to be done with a draft; the terms are those that were entered here, not what the coordinator has. */
function done(view, id, terms) {
  const file = `${id}.toml`;
  const text = `# Terms of the run ${id}.\n${toml(terms)}`;
  view.put(pageHead(`Run ${id} is a draft`),
    h("div", { class: "stack" },
      h("section", { class: "card", "aria-label": "What is next" }, h("h2", {}, "What is next"),
        h("ol", { class: "steps" },
          h("li", {}, h("p", {}, "Keep the terms on the machine that has the operator’s key, and read them there."),
            h("button", { class: "primary", type: "button", onclick: () => save(file, text, "application/toml") }, `Download ${file}`)),
          h("li", {}, h("p", {}, "Start the run, here or there; a worker prepares its models."),
            h("div", { class: "row" }, h("a", { class: "button", href: `#/runs/${id}` }, "Open the run")),
            command(`fedcollm runs start ${id}`)),
          h("li", {}, h("p", {}, "Once it is prepared, sign it. Then its rounds open."),
            command(`fedcollm runs sign ${id} --terms ${file}`)))),
      notice("", "Why this page cannot sign",
        h("p", {}, "The coordinator has the public half of the operator’s key alone, and so has this page, which comes from it. ",
          "The command compares what the run is with the file on your machine, and signs it only if they say the same. ",
          "So a coordinator that was broken into cannot have agents train by other terms than yours.")),
      h("details", { class: "card" }, h("summary", {}, file), h("pre", { tabindex: 0 }, text))));
  const heading = document.querySelector("main h1");
  heading.tabIndex = -1;
  heading.focus();
  document.documentElement.dataset.ready = "draft";
}
