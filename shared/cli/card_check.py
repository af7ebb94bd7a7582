"""Whether an adapter in a folder is what its model card says: checked from the files alone, by both command lines."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from shared.adapter_folder import CARD, README, WEIGHTS, adapter_config_in, read_card, readme_in, require_adapter
from shared.errors import CardInvalid
from shared.folders import file_digest
from shared.protocol.card import SignedCard, require_card
from shared.protocol.card_text import card_text
from shared.protocol.identity import PublicKey, fingerprint
from shared.protocol.lora import require_lora
from shared.protocol.messages import ArtefactName
from shared.protocol.names import PrincipalName, RoundNumber, RunId
from shared.protocol.terms import FROZEN


class CheckedCard(BaseModel):
    """What a folder holds, by whom it was signed, and which entry of the audit log says so."""

    adapter: ArtefactName
    federation: PrincipalName
    run_id: RunId
    round: RoundNumber
    operator_key: PublicKey
    coordinator_key: PublicKey
    audit_entry: int
    model_config = FROZEN


def checked_card(folder: Path, *, operator_key: str) -> tuple[SignedCard, CheckedCard]:
    """Return the card of the adapter in a folder, once everything in it holds together.

    Raises:
        ModelUnreadable: it is no adapter's folder.
        CardInvalid, SignatureInvalid, ManifestMismatch, ManifestUnsigned, LoraMismatch: it does not.
    """
    signed = read_card(require_adapter(folder))
    card = signed.card
    adapter = require_card(signed, operator_key=operator_key, digest=file_digest(folder / WEIGHTS))
    manifest = card.manifest.manifest
    config = adapter_config_in(folder)
    if adapter == "slm-adapter":
        require_lora(config, manifest.layout, manifest.slm_lora)
    else:  # whose layout no manifest has
        require_lora(config, {}, card.llm_lora)
    if readme_in(folder) != card_text(card, adapter):
        raise CardInvalid(f"{folder / README} does not say what {CARD} says: fetch the adapter again")
    return signed, CheckedCard(
        adapter=adapter,
        federation=card.federation,
        run_id=card.run_id,
        round=card.round,
        operator_key=operator_key,
        coordinator_key=signed.key,
        audit_entry=card.audit.seq,
    )


def told(checked: CheckedCard, folder: Path) -> Iterator[str]:
    """Yield what was found, for people."""
    yield (
        f"{folder} is the {checked.adapter.replace('-', ' ')} that round {checked.round} of run {checked.run_id} has "
        f"published in federation {checked.federation}"
    )
    yield f"the operator with the key {fingerprint(checked.operator_key)} has signed what the run is"
    yield (
        f"entry {checked.audit_entry} of the audit log says so, signed by the coordinator with the key "
        f"{fingerprint(checked.coordinator_key)}: compare it with what `fedcollm audit verify` shows"
    )
