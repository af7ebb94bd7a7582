// The model card of a published round: how good its adapters are, what they were trained by, and where they come from.

import { get } from "../api.js";
import { card, command, digest, facts, pageHead, table, time } from "../components.js";
import { h, save } from "../dom.js";
import { count, counted, interval, nats, percent } from "../format.js";
import { session } from "../session.js";

export async function show(view, { run, round }) {
  const signed = await get(`/v1/runs/${encodeURIComponent(run)}/rounds/${encodeURIComponent(round)}/card`, view);
  const told = signed.card;
  view.put(
    pageHead(`Card of ${told.run_id}, round ${count(told.round)}`,
      h("button", { type: "button", onclick: () => save("card.json", JSON.stringify(signed), "application/json") }, "Download card.json")),
    h("div", { class: "stack" },
      what(told), accuracies(told), h("div", { class: "columns" }, training(told), reading(told)), bases(told), lineage(told), checking(told)));
}

function what({ run_id, manifest: { manifest }, published_at, rounds }) {
  const { slm_adapter, llm_adapter } = rounds.at(-1);
  return card("What it is of", facts(
    ["Run", [h("a", { href: `#/runs/${run_id}` }, run_id), manifest.run_name && ` ${manifest.run_name}`]],
    ["Published", time(published_at)],
    ["SLM adapter", digest(slm_adapter, "SLM adapter’s digest")],
    ["LLM adapter", digest(llm_adapter, "LLM adapter’s digest")]));
}

function accuracies({ base_scores, scores, manifest: { manifest } }) {
  const ofExamples = manifest.task.kind === "multiple_choice";
  const rows = [["SLM before any tuning", base_scores.slm], ["SLM after aggregation", scores.slm_aggregated],
    ["SLM after co-tuning, published", scores.slm], ["LLM before any tuning", base_scores.llm], ["LLM after co-tuning", scores.llm]];
  return card("How good it is",
    h("p", {}, `On the coordinator’s ${count(scores.slm.examples)} validation examples. Accuracy is the share of the `,
      ofExamples ? "examples answered right" : "answers’ tokens predicted right",
      scores.slm.chance ? `; guessing would score ${percent(scores.slm.chance)}.` : "."),
    table("Accuracy and loss of the models", [{ name: "Model" }, { name: "Accuracy", number: true }, { name: "95 % interval", number: true },
      { name: "Loss a token", number: true }],
    rows.map(([name, score]) => [name, percent(score.accuracy), score.interval ? interval(score.interval) : "–", nats(score.loss)])));
}

function training({ manifest: { manifest }, cotuning, llm_lora, gate, rounds }) {
  const { training: local, slm_lora, cohort } = manifest;
  const updates = rounds.map((each) => each.updates);
  const [least, most] = [Math.min(...updates), Math.max(...updates)];
  return card("How it was trained", facts(
    ["Rounds", rounds.length === 1 ? "the first that published an adapter" : `this one and ${counted(rounds.length - 1, "round")} before it that published an adapter`],
    ["Updates in a mean", least === most ? count(least) : `${count(least)} to ${count(most)}`],
    ["Smallest cohort", count(cohort.min_count)],
    ["Each organisation", `${counted(local.epochs, "epoch")} a round, batches of ${count(local.batch_size)}, learning rate ${local.optimiser.learning_rate}`],
    ["LoRA", `rank ${slm_lora.rank} of the SLM, ${llm_lora.rank} of the LLM`],
    ["Co-tuning", `${counted(cotuning.passes, "pass", "passes")}, distillation weight ${cotuning.distillation_weight}, ${cotuning.direction} KL ${cotuning.distils.replaceAll("_", " ")}, ${cotuning.schedule}`],
    ["Gate", gate.enabled ? `on, tolerance ${gate.tolerance} nats` : "off"]));
}

function reading({ manifest: { manifest }, error_bound }) {
  const weighed = manifest.weighting === "unweighted" ? "unweighted" : "weighted by numbers of examples";
  const mean = manifest.share_aggregate ? `${weighed}, and read by the organisations in it (share_aggregate)` : weighed;
  if (manifest.aggregation === "PlaintextAggregation") {
    return card("What the coordinator could read", facts(["Updates", "each, alone (PlaintextAggregation)"], ["Mean", mean]));
  }
  return card("What the coordinator could read", facts(
    ["Updates", `sums of ${count(manifest.cohort.min_count)} or more, and none alone (SecureAggregation)`],
    ["Mean", mean],
    ["Largest change", `scaled down to a norm of ${manifest.masking.clip_norm} first`],
    ["Rounding", error_bound === null ? "not known" : `at most ${error_bound.toPrecision(2)} from the exact mean`]));
}

function bases({ slm, llm, manifest: { manifest } }) {
  const row = (what, { name, digest: whole, licence }) => [what, name, licence ?? "none was read", digest(whole, `digest of the base ${what}`)];
  return card("Base models", table("Base models and tokenizer", [{ name: "What" }, { name: "Name" }, { name: "Licence" }, { name: "Digest" }],
    [row("SLM", slm), row("LLM", llm), ["Tokenizer", "of both", "–", digest(manifest.tokenizer_digest, "tokenizer’s digest")]]));
}

function lineage({ run_id, rounds }) {
  const columns = [{ name: "Round" }, { name: "Updates", number: true }, { name: "Beginning" }, { name: "SLM adapter" }, { name: "LLM adapter" }];
  const part = (each, whole, what) => digest(whole, `${what} of round ${each.number}`);
  return card("Lineage",
    h("p", {}, "Each round began from what the one before has published. A round that was refused or aborted has changed nothing, and is not here."),
    table(`Rounds of ${run_id} that led here`, columns, rounds.toReversed().map((each) =>
      [count(each.number), count(each.updates), part(each, each.began_from, "beginning"),
        part(each, each.slm_adapter, "SLM adapter"), part(each, each.llm_adapter, "LLM adapter")])));
}

function checking({ audit, run_id }) {
  return card("How to check it",
    h("p", {}, "The operator has signed the manifest, and the coordinator the card and entry ",
      h("a", { href: `#/audit?last=${audit.seq}` }, count(audit.seq)),
      " of its audit log. ",
      session.isOperator ? "The first command writes the adapter with its card into a folder, and the second " : "In a folder that an operator has fetched, the command ",
      "compares weights, signatures and digests; it asks nobody."),
    session.isOperator && command(`fedcollm adapters pull ${run_id} slm-adapter --out DIR`), command("fedcollm adapters verify DIR"));
}
