"""The model card of a published round: what was trained how, how good it is, and where it comes from, signed.

It carries what of it can be checked without the coordinator (docs/protocol.md, "Model cards"): the manifest with the
operator's signature, the digests of base models, tokenizer and adapters, the rounds that led here, and the line of the
audit log that says so, with the head that the log had then.
"""

from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from shared.errors import CardInvalid
from shared.protocol.audit import AuditEntry, SignedHead, entry_hash, require_head
from shared.protocol.digests import Digest
from shared.protocol.identity import IdentityKey, PublicKey, Signature, require_signature
from shared.protocol.manifest import SignedManifest, require_manifest
from shared.protocol.messages import ArtefactName, BaseScores, Finite, RoundScores
from shared.protocol.names import Licence, PrincipalName, RunId
from shared.protocol.terms import FROZEN, CotuningTerms, GateTerms, LoraTerms

PUBLISHED = "round.published"

# So that a card stays some kilobytes: how a run of a thousand rounds began is in its audit log.
MOST_ROUNDS = 50
# The last second of the year 9999, after which there are no dates.
LAST_MOMENT = 253_402_300_799

_KIND = "model-card"


class BaseModelOfCard(BaseModel):
    """A base model, as the worker knows it; ``licence`` is what was read from its own card, if anything was."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/-]{0,255}$")]
    digest: Digest
    licence: Licence | None
    model_config = FROZEN


class RoundOfCard(BaseModel):
    """A published round: how many updates are in the mean, and the adapters from which and to which it led."""

    number: Annotated[int, Field(ge=1)]
    updates: Annotated[int, Field(ge=0)]
    began_from: Digest
    slm_adapter: Digest
    llm_adapter: Digest
    model_config = FROZEN


class ModelCard(BaseModel):
    """The card of the adapters that one round has published; ``rounds`` are that round and the newest before it.

    A round that was refused or aborted has changed no adapter, and is not among them. ``error_bound`` is how far the
    mean may be from that of the clipped updates, where these were masked. Of the agents' own evaluations nothing is in
    it, for all agents read it, and of a sum of three two know the third's part.
    """

    federation: PrincipalName
    run_id: RunId
    round: Annotated[int, Field(ge=1)]
    manifest: SignedManifest
    llm: BaseModelOfCard
    slm: BaseModelOfCard
    llm_lora: LoraTerms
    cotuning: CotuningTerms
    gate: GateTerms
    rounds: Annotated[tuple[RoundOfCard, ...], Field(min_length=1, max_length=MOST_ROUNDS)]
    base_scores: BaseScores
    scores: RoundScores
    error_bound: Finite | None
    published_at: Annotated[float, Field(ge=0, le=LAST_MOMENT)]
    audit: AuditEntry
    head: SignedHead
    model_config = FROZEN


class SignedCard(BaseModel):
    """A model card, and the signature of the coordinator whose key is that of the log's head in it."""

    card: ModelCard
    signature: Signature
    model_config = FROZEN

    @property
    def key(self) -> PublicKey:
        """The key that has signed it: the coordinator's own."""
        return self.card.head.key


def sign_card(key: IdentityKey, card: ModelCard) -> SignedCard:
    """Sign a card, as the coordinator."""
    return SignedCard(card=card, signature=key.sign(_KIND, card))


def require_card(signed: SignedCard, *, operator_key: str, digest: str) -> ArtefactName:
    """Return which of a card's adapters ``digest`` is, if all that the card says of itself holds together.

    Raises:
        CardInvalid: it is of another adapter, or something in it does not follow from the rest.
        SignatureInvalid: the coordinator whose key is in it, or the operator, has not signed what they should have.
        FederationMismatch, ManifestMismatch, LoraMismatch, ManifestUnsigned: its manifest is not of its run.
    """
    card = signed.card
    what = f"the model card of round {card.round} of run {card.run_id}"
    require_signature(signed.key, _KIND, card, signed.signature, what=what)
    manifest = require_manifest(
        card.manifest, operator_key=operator_key, federation=card.federation, run_id=card.run_id
    )
    if (card.llm.digest, card.slm.digest) != (manifest.llm_digest, manifest.slm_digest):
        raise CardInvalid(
            f"{what} names other base models than the manifest that the operator has signed: do not use it"
        )
    _require_rounds(card, what)
    _require_audit(card, what)
    last = card.rounds[-1]
    if digest == last.slm_adapter:
        return "slm-adapter"
    if digest == last.llm_adapter:
        return "llm-adapter"
    raise CardInvalid(f"{what} is of the adapters {last.slm_adapter} and {last.llm_adapter}, and this is {digest}")


def _require_rounds(card: ModelCard, what: str) -> None:
    """Raise CardInvalid unless each round began from what the one before has published, up to the card's own."""
    numbers = [one.number for one in card.rounds]
    if numbers != sorted(set(numbers)) or numbers[-1] != card.round:
        raise CardInvalid(f"{what} does not end with that round, or has rounds out of order: do not use it")
    for before, after in pairwise(card.rounds):
        if after.began_from != before.slm_adapter:
            raise CardInvalid(
                f"{what} says that round {after.number} began from another adapter than round {before.number} had "
                "published: do not use it"
            )


def _require_audit(card: ModelCard, what: str) -> None:
    """Raise CardInvalid unless the audit log said that this was published, and the coordinator has signed that."""
    entry, head = card.audit, card.head.head
    require_head(card.head, known=None)
    last = card.rounds[-1]
    llm_adapter = entry.detail.get("llm_adapter", last.llm_adapter)  # rounds of older releases did not say it
    said = (entry.action, entry.subject, entry.detail.get("slm_adapter"), llm_adapter)
    if said != (PUBLISHED, f"run/{card.run_id}/round/{card.round}", last.slm_adapter, last.llm_adapter):
        raise CardInvalid(f"{what} shows a line of the audit log that does not say that these adapters were published")
    if (entry_hash(entry), entry.seq, card.federation) != (head.hash, head.seq, head.federation):
        raise CardInvalid(f"{what} shows a line of the audit log that is not the one that its head was signed for")
