"""What an operator does with the operator's key: invite agents, certify members, and sign what a run is."""

import secrets
from dataclasses import dataclass

from shared.protocol.identity import IdentityKey
from shared.protocol.lora import read_adapter_config
from shared.protocol.manifest import (
    MANIFEST,
    Manifest,
    ManifestSignature,
    SignedManifest,
    require_run,
    require_terms,
)
from shared.protocol.membership import (
    CERTIFICATE,
    TOKEN_BYTES,
    Invitation,
    MembershipCertificate,
    SignedCertificate,
    check_code,
)
from shared.protocol.messages import RunView
from shared.protocol.tensors import parameter_count
from shared.protocol.terms import RunTerms
from shared.transport import Transport


@dataclass(frozen=True)
class Signer:
    """Who says which agents are members of a federation, and what its runs are."""

    federation: str
    key: IdentityKey

    def invite(
        self, name: str, *, coordinator_url: str, expires_at: int, ca_certificate: str | None = None
    ) -> Invitation:
        """Return an invitation with a token that nobody has yet; the coordinator is to be told of it."""
        return Invitation(
            coordinator_url=coordinator_url,
            federation=self.federation,
            operator_key=self.key.public,
            name=name,
            token=secrets.token_urlsafe(TOKEN_BYTES),
            expires_at=expires_at,
            ca_certificate=ca_certificate,
        )

    def certify(self, name: str, key: str, *, not_after: int) -> SignedCertificate:
        """Return the certificate of a member, whose key the operator has compared."""
        certificate = MembershipCertificate(federation=self.federation, name=name, key=key, not_after=not_after)
        return SignedCertificate(certificate=certificate, signature=self.key.sign(CERTIFICATE, certificate))

    def check_code(self, name: str, key: str) -> str:
        """Return what the administrator of an agent with this key reads, if its invitation came as it was sent."""
        return check_code(federation=self.federation, operator_key=self.key.public, name=name, key=key)

    async def sign_run(self, transport: Transport, run_id: str, terms: RunTerms) -> Manifest:
        """Sign a run's manifest, if it says what the terms say, and return it; the same again changes nothing.

        Raises:
            FederationMismatch, ManifestMismatch, LoraMismatch: it does not, or is another's; nothing was signed.
            RemoteProblem: no worker has prepared the run yet, or the coordinator has another operator's key.
        """
        manifest = (await transport.call("GET", f"/v1/runs/{run_id}/manifest", SignedManifest)).manifest
        require_run(manifest, federation=self.federation, run_id=run_id)
        require_terms(manifest, terms)
        signed = ManifestSignature(signature=self.key.sign(MANIFEST, manifest))
        await transport.call("PUT", f"/v1/runs/{run_id}/manifest/signature", RunView, body=signed)
        return manifest


def signed_lines(manifest: Manifest) -> list[str]:
    """Say what was signed: all that agents train by, and hide among."""
    lora, training, cohort = manifest.slm_lora, manifest.training, manifest.cohort
    targets = ", ".join(read_adapter_config(manifest.adapter_config).target_modules)
    updates, clip = f"{parameter_count(manifest.layout):,} parameters", manifest.masking.clip_norm
    seconds = f"{cohort.min_seconds:g} to {cohort.max_seconds:g} s"
    epochs, rate = f"{training.epochs} epochs of {manifest.task.kind}", training.optimiser.learning_rate
    asked = f" of {cohort.sample_count} that are asked" if cohort.sample_count else ""
    shared = ", shared with its members" if manifest.share_aggregate else ""
    said = {
        "LLM": manifest.llm_digest,
        "SLM": manifest.slm_digest,
        "tokenizer": manifest.tokenizer_digest,
        "LoRA": f"rank {lora.rank}, alpha {lora.alpha}, dropout {lora.dropout:g}, on {targets}",
        "updates": f"{updates} in {len(manifest.layout)} tensors, clipped to norm {clip:g}",
        "training": f"{epochs}, {training.batch_size} a step, {training.max_tokens} tokens each, rate {rate:g}",
        "evaluation": f"{manifest.evaluation_examples} examples of each agent's own",
        "cohort": f"{cohort.min_count} to {cohort.max_count} agents{asked}, {seconds}",
        "sum": f"{manifest.aggregation}, {manifest.weighting}{shared}",
    }
    return [
        f"signed what run {manifest.run_id} of {manifest.federation} is:",
        *(f"  {name:<10} {what}" for name, what in said.items()),
    ]
