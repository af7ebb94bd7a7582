"""A model card as people and model hubs read it: the README.md beside an adapter."""

from collections.abc import Iterator
from datetime import UTC, datetime

from shared.protocol.card import ModelCard
from shared.protocol.messages import ArtefactName, Score

_WHAT = {"slm-adapter": "the SLM", "llm-adapter": "the LLM"}

_CHECK = """## To check it

```console
fedcollm adapters verify FOLDER
```

compares the weights, the signatures and the digests in `card.json`, which has all of this and more; nobody has to be
asked for it.
"""


def card_text(card: ModelCard, name: ArtefactName) -> str:
    """Return the card of one of a round's two adapters as Markdown, with the metadata that hubs read above it."""
    base = card.slm if name == "slm-adapter" else card.llm
    run = card.manifest.manifest.run_name or card.run_id
    about = (
        f"A LoRA adapter for `{base.name}`, made by the federation **{card.federation}** in run `{card.run_id}` with "
        "FedCoLLM: organisations trained adapters of the SLM on text that stayed with them, the coordinator averaged "
        f"these and tuned LLM and SLM together on data of its own. Published {_moment(card.published_at)}."
    )
    parts = (
        _metadata(base.name),
        f"# {run}: LoRA adapter of {_WHAT[name]}, round {card.round}",
        about,
        *("\n".join(part(card)) for part in (_accuracies, _training, _aggregation, _origin)),
        _CHECK,
    )
    return "\n\n".join(parts)


def _metadata(base: str) -> str:
    hub = [f"base_model: {base}"] if base.count("/") == 1 else []
    tags = ["tags:", "- lora", "- federated-learning", "- fedcollm"]
    return "\n".join(["---", "library_name: peft", *hub, *tags, "---"])


def _accuracies(card: ModelCard) -> Iterator[str]:
    base, scores = card.base_scores, card.scores
    kind = card.manifest.manifest.task.kind
    what = "of the examples answered right" if kind == "multiple_choice" else "of the answers' tokens predicted right"
    yield "## How good it is\n"
    yield f"On the coordinator's {scores.slm.examples:,} validation examples; accuracy is the share {what}."
    if scores.slm.chance:
        yield f"Guessing would score {scores.slm.chance:.1%}. In brackets are 95 % intervals.\n"
    else:
        yield "In brackets are 95 % intervals.\n"
    yield "| model | accuracy | loss, nats a token |"
    yield "| --- | --- | --- |"
    for name, score in (
        ("SLM before any tuning", base.slm),
        ("SLM after aggregation", scores.slm_aggregated),
        ("SLM after co-tuning (published)", scores.slm),
        ("LLM before any tuning", base.llm),
        ("LLM after co-tuning", scores.llm),
    ):
        yield f"| {name} | {_accuracy(score)} | {score.loss:.4f} |"


def _training(card: ModelCard) -> Iterator[str]:
    manifest, cotuning = card.manifest.manifest, card.cotuning
    training = manifest.training
    yield "## How it was trained\n"
    before = len(card.rounds) - 1
    and_before = f" and {before} before it that published one" if before else ", the first that published one"
    yield f"- The adapter is of this round{and_before}, with {_updates(card)} updates in the mean."
    yield f"- In a round each organisation sends one update; {manifest.cohort.min_count} or more of them make the mean."
    yield (
        f"- Each organisation: {training.epochs} epochs a round, batches of {training.batch_size}, learning rate "
        f"{training.optimiser.learning_rate:g}, LoRA of rank {manifest.slm_lora.rank}."
    )
    where = cotuning.distils.replace("_", " ")
    yield (
        f"- Co-tuning: {cotuning.passes} passes, distillation weight {cotuning.distillation_weight:g}, "
        f"{cotuning.direction} KL {where}, {cotuning.schedule}; the LLM's LoRA of rank {card.llm_lora.rank}."
    )
    gate = f"on, tolerance {card.gate.tolerance:g} nats" if card.gate.enabled else "off"
    yield f"- Gate (an adapter that is worse than the published one is refused): {gate}."


def _updates(card: ModelCard) -> str:
    counts = [one.updates for one in card.rounds]
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _aggregation(card: ModelCard) -> Iterator[str]:
    manifest = card.manifest.manifest
    yield "## What the coordinator could read\n"
    mean = "unweighted" if manifest.weighting == "unweighted" else "weighted by numbers of examples"
    if manifest.aggregation == "PlaintextAggregation":
        yield f"Each organisation's update (`PlaintextAggregation`); the mean is {mean}.{_shared(card)}"
        return
    bound = "" if card.error_bound is None else f" It differs from the exact mean by at most {card.error_bound:.2g}."
    yield (
        f"Sums of {manifest.cohort.min_count} or more updates, and no update alone (`SecureAggregation`). The mean is "
        f"{mean}; each change was scaled down to a norm of at most {manifest.masking.clip_norm:g} first.{bound}"
        f"{_shared(card)}"
    )


def _shared(card: ModelCard) -> str:
    shared = card.manifest.manifest.share_aggregate
    return " The organisations in a mean could read that mean too (`share_aggregate`)." if shared else ""


def _origin(card: ModelCard) -> Iterator[str]:
    manifest, last = card.manifest.manifest, card.rounds[-1]
    yield "## Where it comes from\n"
    yield "| what | digest |"
    yield "| --- | --- |"
    for what, digest in (
        (f"base of the SLM, `{card.slm.name}`, {_licence(card.slm.licence)}", card.slm.digest),
        (f"base of the LLM, `{card.llm.name}`, {_licence(card.llm.licence)}", card.llm.digest),
        ("tokenizer of both", manifest.tokenizer_digest),
        ("SLM adapter before the round", last.began_from),
        ("SLM adapter, published", last.slm_adapter),
        ("LLM adapter, published", last.llm_adapter),
        (f"audit log, entry {card.audit.seq}", card.audit.hash),
    ):
        yield f"| {what} | `{digest}` |"


def _licence(stated: str | None) -> str:
    return f"licence {stated}" if stated else "of which no licence was read"


def _accuracy(score: Score) -> str:
    if score.interval is None:
        return f"{score.accuracy:.1%}"
    low, high = score.interval
    return f"{score.accuracy:.1%} ({low:.1%} to {high:.1%})"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
