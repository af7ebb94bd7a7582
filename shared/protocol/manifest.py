"""What a run expects of agents: made by the coordinator, signed by the operator, and checked by each agent.

The operator's signature is what an agent goes by (docs/protocol.md, "Identity"): a coordinator that names another
model, other training or another aggregation than the operator has seen finds no agent that trains for it.
"""

from operator import not_
from typing import Annotated, Literal

from pydantic import BaseModel, Field, JsonValue

from shared.errors import FederationMismatch, ManifestMismatch, ManifestUnsigned
from shared.protocol.digests import Digest, digest_of
from shared.protocol.identity import Signature, canonical_json, require_signature
from shared.protocol.lora import require_lora
from shared.protocol.names import PrincipalName, RunId
from shared.protocol.tensors import LayoutSent
from shared.protocol.terms import (
    FROZEN,
    AggregationName,
    CohortTerms,
    EvaluationCount,
    LoraTerms,
    MaskingTerms,
    RunTerms,
    Seed,
    TaskTerms,
    TrainingTerms,
)

MANIFEST = "manifest"


class Manifest(BaseModel):
    """What an agent must know of a run, and compares with its own machine before it trains.

    Fields that are called as in ``RunTerms`` are the operator's terms; the rest is what a worker found.
    """

    federation: PrincipalName
    run_id: RunId
    run_name: str
    seed: Seed
    llm_digest: Digest
    slm_digest: Digest
    tokenizer_digest: Digest
    slm_lora: LoraTerms
    layout: LayoutSent
    adapter_config: dict[str, JsonValue]
    task: TaskTerms
    training: TrainingTerms
    weighting: Literal["unweighted", "examples"]
    aggregation: AggregationName
    cohort: CohortTerms
    masking: MaskingTerms
    evaluation_examples: EvaluationCount
    # Left out where it is false, so that what was signed before there was this term is still what was signed.
    share_aggregate: Annotated[bool, Field(exclude_if=not_)] = False
    model_config = FROZEN


class ManifestSignature(BaseModel):
    """The operator's signature over a run's manifest."""

    signature: Signature
    model_config = FROZEN


class SignedManifest(BaseModel):
    """A run's manifest, and the operator's signature over it once there is one."""

    manifest: Manifest
    signature: Signature | None
    model_config = FROZEN


def manifest_digest(manifest: Manifest) -> str:
    """Return the digest of a manifest's canonical JSON: keys in order, no spaces."""
    return digest_of(canonical_json(manifest))


def require_manifest(signed: SignedManifest, *, operator_key: str, federation: str, run_id: str) -> Manifest:
    """Return the manifest of a run, as the operator has signed it.

    Raises:
        ManifestUnsigned: nobody has signed it yet.
        SignatureInvalid: it is not what the holder of ``operator_key`` has signed.
        FederationMismatch, ManifestMismatch: it is of another federation or run.
        LoraMismatch: what it says of the adapter is not the LoRA that it names.
    """
    manifest, what = signed.manifest, f"the manifest of run {run_id}"
    if signed.signature is None:
        raise ManifestUnsigned(f"{what} has no signature of the operator's: nothing is trained by it")
    require_signature(operator_key, MANIFEST, manifest, signed.signature, what=what)
    require_run(manifest, federation=federation, run_id=run_id)
    require_lora(manifest.adapter_config, manifest.layout, manifest.slm_lora)
    return manifest


def require_run(manifest: Manifest, *, federation: str, run_id: str) -> None:
    """Raise unless a manifest is of this federation and run.

    Raises:
        FederationMismatch: it is of another federation.
        ManifestMismatch: it is of another run.
    """
    if manifest.federation != federation:
        raise FederationMismatch(
            f"the manifest of run {run_id} is of {manifest.federation}, and this is {federation}: it is not used"
        )
    if manifest.run_id != run_id:
        raise ManifestMismatch(f"for run {run_id} the manifest of run {manifest.run_id} has come: it is not used")


def require_terms(manifest: Manifest, terms: RunTerms) -> None:
    """Raise unless a manifest says what an operator's terms say, and of the adapter what follows from them.

    Which models the digests are of is not in the terms: the operator is shown them.

    Raises:
        ManifestMismatch: it says something else.
        LoraMismatch: the adapter's configuration or layout is not the LoRA of the terms.
    """
    named = Manifest.model_fields.keys() & RunTerms.model_fields.keys()
    other = [name for name in sorted(named) if getattr(manifest, name) != getattr(terms, name)]
    if manifest.run_name != terms.name:
        other.append("name")
    if other:
        raise ManifestMismatch(
            f"the manifest of run {manifest.run_id} does not say what the terms say of {', '.join(other)}: "
            "unless these are the terms of another run, do not sign it, and find out what the coordinator does"
        )
    require_lora(manifest.adapter_config, manifest.layout, terms.slm_lora)
