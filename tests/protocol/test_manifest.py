"""What a run is, as the operator has signed it (docs/protocol.md, "Identity")."""

import pytest

from bench.no_op import lora_of
from shared.errors import FederationMismatch, LoraMismatch, ManifestMismatch, ManifestUnsigned, SignatureInvalid
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey, canonical_json
from shared.protocol.manifest import (
    MANIFEST,
    Manifest,
    SignedManifest,
    manifest_digest,
    require_manifest,
    require_terms,
)
from tests.support.federations import SLM_LAYOUT, terms_of

OPERATOR = IdentityKey.generate()
DIGEST = digest_of(b"model")
TERMS = terms_of()
RUN = Manifest(
    federation="clinics",
    run_id="run",
    run_name=TERMS.name,
    seed=TERMS.seed,
    llm_digest=DIGEST,
    slm_digest=DIGEST,
    tokenizer_digest=DIGEST,
    slm_lora=TERMS.slm_lora,
    layout=SLM_LAYOUT,
    adapter_config=lora_of(SLM_LAYOUT, TERMS.slm_lora),
    task=TERMS.task,
    training=TERMS.training,
    weighting=TERMS.weighting,
    aggregation=TERMS.aggregation,
    cohort=TERMS.cohort,
    masking=TERMS.masking,
    evaluation_examples=0,
)
CHANGES = {
    "slm_digest": digest_of(b"another model"),
    "tokenizer_digest": digest_of(b"another tokenizer"),
    "layout": {"slm.lora_A.weight": (2, 4)},
    "training": TERMS.training.model_copy(update={"epochs": 7}),
    "slm_lora": TERMS.slm_lora.model_copy(update={"rank": 1}),
    "weighting": "examples",
    "aggregation": "SecureAggregation",
    "cohort": TERMS.cohort.model_copy(update={"min_count": 2}),
    "masking": TERMS.masking.model_copy(update={"clip_norm": 1e5}),
    "run_name": "another run",
    "seed": TERMS.seed + 1,
    "share_aggregate": True,
}
changed = pytest.mark.parametrize("name", CHANGES)


def believed(signed: SignedManifest, *, federation: str = "clinics", run_id: str = "run") -> Manifest:
    """Return what an agent of ``federation`` believes of a run."""
    return require_manifest(signed, operator_key=OPERATOR.public, federation=federation, run_id=run_id)


def signed(manifest: Manifest = RUN, *, by: IdentityKey = OPERATOR, kind: str = MANIFEST) -> SignedManifest:
    """Return a manifest with a signature of this key's."""
    return SignedManifest(manifest=manifest, signature=by.sign(kind, manifest))


def test_what_the_operator_signed_is_believed() -> None:
    """As it was, after the wire too."""
    assert believed(SignedManifest.model_validate_json(signed().model_dump_json())) == RUN


def test_a_term_that_nobody_uses_is_not_in_what_is_signed() -> None:
    """What was signed before there was the term is believed as it was signed."""
    assert b"share_aggregate" not in canonical_json(RUN)
    sharing = RUN.model_copy(update={"share_aggregate": True})
    assert b'"share_aggregate":true' in canonical_json(sharing)
    assert believed(SignedManifest.model_validate_json(signed(sharing).model_dump_json())) == sharing


def test_what_nobody_signed_is_not_believed() -> None:
    """An agent waits for the operator."""
    with pytest.raises(ManifestUnsigned, match="nothing is trained by it"):
        believed(SignedManifest(manifest=RUN, signature=None))


@changed
def test_what_was_altered_after_it_was_signed_is_not_believed(name: str) -> None:
    """Whichever field a coordinator changes."""
    altered = RUN.model_copy(update={name: CHANGES[name]})
    assert manifest_digest(altered) != manifest_digest(RUN)
    with pytest.raises(SignatureInvalid, match="the manifest of run run"):
        believed(signed().model_copy(update={"manifest": altered}))


def test_nobody_elses_signature_is_believed() -> None:
    """The coordinator's own, or the operator's over something else."""
    for other in (signed(by=IdentityKey.generate()), signed(kind="membership")):
        with pytest.raises(SignatureInvalid):
            believed(other)


def test_a_manifest_is_of_one_federation_and_one_run() -> None:
    """The operator's own signature over another one does not count here."""
    with pytest.raises(FederationMismatch, match="is of clinics, and this is banks"):
        believed(signed(), federation="banks")
    with pytest.raises(ManifestMismatch, match="for run another the manifest of run run has come"):
        believed(signed(), run_id="another")


def test_an_operator_signs_what_their_terms_say() -> None:
    """Which models a worker found is not in the terms."""
    require_terms(RUN, TERMS)
    for name in ("slm_digest", "tokenizer_digest"):
        require_terms(RUN.model_copy(update={name: CHANGES[name]}), TERMS)


NO_PLAIN_LORA = (
    {"adapter_config": {**RUN.adapter_config, "auto_mapping": {"parent_library": "antigravity"}}},
    {"layout": {"slm.lora_A.weight": (3, 3), "slm.lora_B.weight": (4, 3)}},
)


@pytest.mark.parametrize("change", NO_PLAIN_LORA)
def test_an_adapter_is_plain_lora_to_operators_and_agents(change: dict[str, object]) -> None:
    """Neither is a manifest signed that says more of it, or other tensors, nor is one believed that was."""
    manifest = RUN.model_copy(update=change)
    with pytest.raises(LoraMismatch):
        require_terms(manifest, TERMS)
    with pytest.raises(LoraMismatch):
        believed(signed(manifest))


@pytest.mark.parametrize("name", ["training", "slm_lora", "weighting", "aggregation", "cohort", "masking", "run_name"])
def test_an_operator_signs_nothing_else(name: str) -> None:
    """What differs is named."""
    with pytest.raises(ManifestMismatch, match=f"the terms say of {name.removeprefix('run_')}: "):
        require_terms(RUN.model_copy(update={name: CHANGES[name]}), TERMS)
