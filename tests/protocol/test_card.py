import hashlib
from typing import Any

import pytest
from pydantic import ValidationError

from bench.no_op import lora_of
from shared.errors import CardInvalid, FedCoLLMError, FederationMismatch, ManifestUnsigned, SignatureInvalid
from shared.protocol.audit import NOTHING, AuditEntry, AuditHead, sealed, sign_head
from shared.protocol.card import (
    MOST_ROUNDS,
    BaseModelOfCard,
    ModelCard,
    RoundOfCard,
    SignedCard,
    require_card,
    sign_card,
)
from shared.protocol.card_text import card_text
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.manifest import MANIFEST, Manifest, SignedManifest
from shared.protocol.messages import BaseScores, RoundScores, Score
from shared.protocol.terms import RunTerms, TaskTerms
from tests.support.federations import LORA, SLM_LAYOUT, terms_of

OPERATOR, COORDINATOR, MALLORY = (
    IdentityKey(hashlib.sha256(name.encode()).digest()) for name in ("operator", "coordinator", "mallory")
)
LLM, SLM = digest_of(b"llm"), digest_of(b"slm")
THETA = [digest_of(f"theta {index}".encode()) for index in range(4)]
OMEGA = [digest_of(f"omega {index}".encode()) for index in range(4)]
SCORE = Score(accuracy=0.75, loss=0.5, examples=1200, chance=0.25, interval=(0.7, 0.8))


def manifest(terms: RunTerms | None = None, **changes: Any) -> Manifest:  # noqa: ANN401 - fields differ in type
    """Return the manifest of the run of the cards here."""
    terms = terms or terms_of()
    fields: dict[str, Any] = {name: getattr(terms, name) for name in Manifest.model_fields if hasattr(terms, name)}
    own: dict[str, Any] = {
        "federation": "clinics",
        "run_id": "run",
        "run_name": "trial",
        "llm_digest": LLM,
        "slm_digest": SLM,
        "tokenizer_digest": digest_of(b"tokenizer"),
        "layout": SLM_LAYOUT,
        "adapter_config": lora_of(SLM_LAYOUT, LORA),
    }
    return Manifest(**{**fields, **own, **changes})


def of(number: int, **changes: Any) -> RoundOfCard:  # noqa: ANN401 - fields differ in type
    """Return a round that began where the one before had ended."""
    fields: dict[str, Any] = {
        "number": number,
        "updates": 4,
        "began_from": THETA[number - 1],
        "slm_adapter": THETA[number],
        "llm_adapter": OMEGA[number],
    }
    return RoundOfCard(**{**fields, **changes})


def line(**changes: Any) -> AuditEntry:  # noqa: ANN401 - fields differ in type
    """Return the line of the audit log that says that round 3 was published."""
    detail = {"slm_adapter": THETA[3], "llm_adapter": OMEGA[3]}
    fields: dict[str, Any] = {
        "seq": 40,
        "at": 1_800_000_000.0,
        "actor": "coordinator",
        "action": "round.published",
        "subject": "run/run/round/3",
        "detail": detail,
        "previous": NOTHING,
    }
    return sealed(AuditEntry(**{**fields, **changes}))


def card(*, entry: AuditEntry | None = None, head: dict[str, Any] | None = None, **changes: Any) -> ModelCard:  # noqa: ANN401
    """Return a card that holds together, but for what a test changes."""
    entry, document = entry or line(), changes.pop("document", manifest())
    told = AuditHead(**{"federation": "clinics", "seq": entry.seq, "hash": entry.hash, "at": entry.at, **(head or {})})
    terms = terms_of()
    fields: dict[str, Any] = {
        "federation": "clinics",
        "run_id": "run",
        "round": 3,
        "manifest": SignedManifest(manifest=document, signature=OPERATOR.sign(MANIFEST, document)),
        "llm": BaseModelOfCard(name="owner/large", digest=LLM, licence="apache-2.0"),
        "slm": BaseModelOfCard(name="small", digest=SLM, licence=None),
        "llm_lora": LORA,
        "cotuning": terms.cotuning,
        "gate": terms.gate,
        "rounds": (of(1), of(2), of(3)),
        "base_scores": BaseScores(slm=SCORE, llm=SCORE),
        "scores": RoundScores(slm_aggregated=SCORE, slm=SCORE, llm=SCORE),
        "error_bound": None,
        "published_at": 1_800_000_000.0,
        "audit": entry,
        "head": sign_head(COORDINATOR, told),
    }
    return ModelCard(**{**fields, **changes})


def check(signed: SignedCard, digest: str = THETA[3]) -> str:
    """Check a card as whoever knows the operator's key."""
    return require_card(signed, operator_key=OPERATOR.public, digest=digest)


def test_a_card_is_of_two_adapters() -> None:
    """The SLM's, which agents hold, and the LLM's, which is the operator's."""
    signed = sign_card(COORDINATOR, card())
    assert (check(signed), check(signed, OMEGA[3])) == ("slm-adapter", "llm-adapter")
    assert signed.key == COORDINATOR.public


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"rounds": (of(1), of(3, began_from=THETA[2]))}, CardInvalid),
        ({"rounds": (of(1), of(2))}, CardInvalid),
        ({"rounds": (of(2), of(1), of(3))}, CardInvalid),
        ({"rounds": (of(1), of(1), of(3))}, CardInvalid),
        ({"rounds": (of(1), of(2), of(3, slm_adapter=THETA[0]))}, CardInvalid),
        ({"llm": BaseModelOfCard(name="owner/large", digest=SLM, licence=None)}, CardInvalid),
        ({"slm": BaseModelOfCard(name="small", digest=LLM, licence=None)}, CardInvalid),
        ({"entry": line(subject="run/run/round/2")}, CardInvalid),
        ({"entry": line(action="round.refused")}, CardInvalid),
        ({"entry": line(detail={"slm_adapter": THETA[3], "llm_adapter": OMEGA[2]})}, CardInvalid),
        ({"entry": line(detail={})}, CardInvalid),
        ({"entry": line(detail={"llm_adapter": OMEGA[3]})}, CardInvalid),
        ({"entry": line().model_copy(update={"actor": "somebody"})}, CardInvalid),
        ({"head": {"seq": 41}}, CardInvalid),
        ({"head": {"hash": digest_of(b"another")}}, CardInvalid),
        ({"head": {"federation": "banks"}}, CardInvalid),
        ({"federation": "banks"}, FederationMismatch),
        ({"manifest": SignedManifest(manifest=manifest(), signature=None)}, ManifestUnsigned),
        (
            {"manifest": SignedManifest(manifest=manifest(), signature=MALLORY.sign(MANIFEST, manifest()))},
            SignatureInvalid,
        ),
    ],
)
def test_a_card_that_does_not_hold_together_is_refused(wrong: dict[str, Any], error: type[FedCoLLMError]) -> None:
    """Also if the coordinator itself has signed it."""
    with pytest.raises(error):
        check(sign_card(COORDINATOR, card(**wrong)))


def test_a_card_is_its_signers_as_it_was_signed() -> None:
    """Nobody else's signature counts, and no figure can be changed afterwards."""
    signed = sign_card(COORDINATOR, card())
    better = signed.card.model_copy(
        update={"base_scores": BaseScores(slm=SCORE.model_copy(update={"loss": 9.0}), llm=SCORE)}
    )
    for forged in (SignedCard(card=better, signature=signed.signature), sign_card(MALLORY, card())):
        with pytest.raises(SignatureInvalid):
            check(forged)
    mixed = card(head={"seq": 40}).model_copy(update={"head": sign_head(MALLORY, signed.card.head.head)})
    relabelled = mixed.head.model_copy(update={"key": COORDINATOR.public})
    with pytest.raises(SignatureInvalid):
        check(sign_card(COORDINATOR, mixed.model_copy(update={"head": relabelled})))


def test_a_card_reads_as_text() -> None:
    """What people ask of a model: how good, how made, from what, by whom, and how to check it."""
    text = card_text(card(), "slm-adapter")
    assert text.startswith("---\nlibrary_name: peft\ntags:\n")
    assert "# trial: LoRA adapter of the SLM, round 3" in text
    assert "| SLM after co-tuning (published) | 75.0% (70.0% to 80.0%) | 0.5000 |" in text
    assert "Guessing would score 25.0%" in text
    assert "Published 2027-01-15 08:00 UTC" in text
    assert "licence apache-2.0" in text
    assert "no licence was read" in text
    assert THETA[3] in text
    assert "with 4 updates in the mean" in text
    assert "Each organisation's update (`PlaintextAggregation`)" in text
    assert "base_model: owner/large" in card_text(card(), "llm-adapter")


def test_a_card_says_what_secure_aggregation_hid() -> None:
    """How many updates a sum had at least, and how exact the mean is; of completions the share is one of tokens."""
    terms = terms_of(
        aggregation="SecureAggregation",
        weighting="examples",
        task=TaskTerms(kind="completion"),
        cohort=terms_of().cohort.model_copy(update={"min_count": 3, "max_count": 4}),
    )
    score = SCORE.model_copy(update={"chance": 0.0, "interval": None})
    told = card(
        document=manifest(terms),
        rounds=(of(1, updates=3), of(2), of(3)),
        scores=RoundScores(slm_aggregated=score, slm=score, llm=score),
        error_bound=1.5e-7,
        gate=terms.gate.model_copy(update={"enabled": False}),
    )
    text = card_text(told, "slm-adapter")
    assert "Sums of 3 or more updates, and no update alone" in text
    assert "weighted by numbers of examples" in text
    assert "at most 1.5e-07" in text
    assert "with 3 to 4 updates in the mean" in text
    assert "answers' tokens predicted right" in text
    assert "| SLM after co-tuning (published) | 75.0% | 0.5000 |" in text
    assert "is refused): off." in text
    sharing = told.manifest.manifest.model_copy(update={"share_aggregate": True})
    told_shared = told.model_copy(update={"manifest": told.manifest.model_copy(update={"manifest": sharing})})
    assert "could read that mean" in card_text(told_shared, "slm-adapter")
    assert "could read that mean" not in text
    assert "exact mean" not in card_text(told.model_copy(update={"error_bound": None}), "slm-adapter")


@pytest.mark.parametrize(
    "wrong",
    [
        {"published_at": 1e12},
        {"published_at": -1.0},
        {"error_bound": float("nan")},
        {"rounds": tuple(of(1) for _ in range(MOST_ROUNDS + 1))},
        {"rounds": ()},
        {"slm": {"name": "small\n# A heading", "digest": SLM, "licence": None}},
        {"slm": {"name": "small](https://elsewhere.test)", "digest": SLM, "licence": None}},
        {"slm": {"name": "small", "digest": SLM, "licence": "mit\n<script>"}},
    ],
)
def test_a_card_that_cannot_be_written_down_is_none(wrong: dict[str, Any]) -> None:
    """A coordinator that answers so puts no text of its own beside an adapter, and ends no agent."""
    with pytest.raises(ValidationError):
        ModelCard.model_validate({**card().model_dump(), **wrong})


def test_a_card_of_a_round_of_an_older_release_is_one() -> None:
    """Its line of the audit log says the SLM's adapter alone."""
    assert check(sign_card(COORDINATOR, card(entry=line(detail={"slm_adapter": THETA[3]})))) == "slm-adapter"
