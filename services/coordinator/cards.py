"""Model cards of published rounds (docs/protocol.md, "Model cards"): put together from the store, and signed."""

import re

from services.coordinator.manifest import manifest_of
from services.coordinator.ports import Store
from services.coordinator.records import Round, Run
from services.coordinator.transaction import Transaction
from shared.errors import NotFound
from shared.protocol.audit import AuditHead, sign_head
from shared.protocol.card import MOST_ROUNDS, PUBLISHED, BaseModelOfCard, ModelCard, RoundOfCard, SignedCard, sign_card
from shared.protocol.identity import IdentityKey
from shared.protocol.manifest import SignedManifest
from shared.protocol.rounds import RoundState
from shared.protocol.work import PreparedModel

KEPT = 8


class Cards:
    """The model cards of one coordinator."""

    def __init__(self, store: Store, key: IdentityKey, *, federation: str) -> None:
        """``key`` is the coordinator's own, by which the audit log's heads are signed too."""
        self._store = store
        self._key = key
        self._federation = federation
        self._made: dict[tuple[str, int], SignedCard] = {}  # every agent asks for the newest one, and none ever changes

    def card(self, run_id: str, number: int) -> SignedCard:
        """Return the card of a round that has been published.

        Raises:
            NotFound: there is no such round, or it has published nothing.
        """
        made = self._made.get((run_id, number))
        if made is None:
            with self._store.read() as tx:
                made = sign_card(self._key, self._of(tx, tx.run(run_id), tx.round(run_id, number)))
            if len(self._made) >= KEPT:
                self._made.clear()
            self._made[run_id, number] = made
        return made

    def _of(self, tx: Transaction, run: Run, published: Round) -> ModelCard:
        if published.state is not RoundState.PUBLISHED or published.scores is None or run.prepared is None:
            raise NotFound(f"round {published.number} of run {run.id!r} has published nothing, so that it has no card")
        rounds = [one for one in tx.rounds(run.id) if one.state is RoundState.PUBLISHED]
        line = tx.audit.entry(PUBLISHED, f"run/{run.id}/round/{published.number}")
        manifest = manifest_of(run, federation=self._federation)
        return ModelCard(
            federation=self._federation,
            run_id=run.id,
            round=published.number,
            manifest=SignedManifest(manifest=manifest, signature=run.signature),
            llm=_base(run.terms.llm, run.prepared.llm),
            slm=_base(run.terms.slm, run.prepared.slm),
            llm_lora=run.terms.llm_lora,
            cotuning=run.terms.cotuning,
            gate=run.terms.gate,
            rounds=tuple(_round(one) for one in rounds if one.number <= published.number)[-MOST_ROUNDS:],
            base_scores=run.prepared.scores,
            scores=published.scores,
            error_bound=published.error_bound,
            published_at=published.entered[RoundState.PUBLISHED],
            audit=line,
            head=sign_head(self._key, AuditHead(federation=self._federation, seq=line.seq, hash=line.hash, at=line.at)),
        )


def _base(name: str, model: PreparedModel) -> BaseModelOfCard:
    """Name a base model as a hub does, or by its folder alone: where that lies is the worker's own business."""
    owner, _, model_name = name.rstrip("/").rpartition("/")
    on_hub = owner and "/" not in owner and not owner.startswith(".")
    said = re.sub(r"[^A-Za-z0-9._+/-]", "-", name if on_hub else model_name).lstrip("._+/-")
    return BaseModelOfCard(name=said[:256] or "unnamed", digest=model.base_digest, licence=model.licence)


def _round(one: Round) -> RoundOfCard:
    assert one.slm_candidate is not None  # noqa: S101 - our own invariant: a published round has both
    assert one.llm_candidate is not None  # noqa: S101
    return RoundOfCard(
        number=one.number,
        updates=one.accepted,
        began_from=one.slm_adapter,
        slm_adapter=one.slm_candidate,
        llm_adapter=one.llm_candidate,
    )
