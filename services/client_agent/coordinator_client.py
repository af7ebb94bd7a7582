"""What an agent asks of its coordinator, call by call."""

from collections.abc import Mapping
from pathlib import Path

from services.client_agent.instance import Instance
from shared.errors import CardInvalid
from shared.protocol.attempts import AttemptPlace, DealtShares, ReleasedShares, SignedSurvivors
from shared.protocol.card import SignedCard, require_card
from shared.protocol.manifest import Manifest, SignedManifest, require_manifest
from shared.protocol.membership import RoundPlace
from shared.protocol.messages import Accepted, PublishedAdapter, UpdateReceipt, Wanted
from shared.protocol.secagg.attempt import Advert
from shared.transport import Params, Transport

NONE: Mapping[str, str] = {}


class CoordinatorClient:
    """The agent's side of ``/v1``; errors are those of the transport.

    ``operator_key`` is what manifests are believed by, and nothing else that comes from the coordinator. An agent that
    says which ``instance`` asks is told from another that has its key.
    """

    def __init__(
        self, transport: Transport, *, federation: str, operator_key: str, instance: Instance | None = None
    ) -> None:
        self._transport = transport
        self._instance = instance
        self._federation = federation
        self._operator_key = operator_key

    async def wanted(self, holding: str | None, declined: Mapping[str, str] = NONE, *, wait_seconds: float) -> Wanted:
        """Ask what is wanted, of runs that were declined last, and wait up to ``wait_seconds`` for something.

        ``declined`` has the code of the reason by run: the operator reads it, and nothing else of why.
        """
        reasons = sorted(f"{run_id}:{code}" for run_id, code in declined.items())
        params: Params = {"wait_seconds": wait_seconds, "declined": reasons}
        if holding is not None:
            params = {**params, "holding": holding}
        if self._instance is None:
            return await self._transport.call("GET", "/v1/wanted", Wanted, params=params)
        params = {**params, "instance": self._instance.id, "follows": self._instance.follows}
        wanted = await self._transport.call("GET", "/v1/wanted", Wanted, params=params)
        self._instance.let_in()
        return wanted

    async def leave(self) -> None:
        """Say that this process of the agent stops, so that no round waits for it."""
        if self._instance is not None:
            await self._transport.call("POST", "/v1/leave", Accepted, params={"instance": self._instance.id})

    async def manifest(self, run_id: str) -> Manifest:
        """Read what a run expects of agents.

        Raises:
            ManifestUnsigned, SignatureInvalid, FederationMismatch, ManifestMismatch: the operator has not signed it.
            LoraMismatch: what it says of the adapter is not the LoRA that it names.
        """
        signed = await self._transport.call("GET", f"/v1/runs/{run_id}/manifest", SignedManifest)
        return require_manifest(signed, operator_key=self._operator_key, federation=self._federation, run_id=run_id)

    async def card(self, published: PublishedAdapter) -> SignedCard:
        """Read the model card of a published adapter.

        Raises:
            CardInvalid, SignatureInvalid, ManifestMismatch, LoraMismatch: it does not hold together, or is another's.
        """
        path = f"/v1/runs/{published.run_id}/rounds/{published.round}/card"
        signed = await self._transport.call("GET", path, SignedCard)
        require_card(signed, operator_key=self._operator_key, digest=published.digest)
        card = signed.card
        if (card.federation, card.run_id, card.round) != (self._federation, published.run_id, published.round):
            raise CardInvalid(
                f"for round {published.round} of run {published.run_id} came the model card of round {card.round} of "
                f"run {card.run_id} in {card.federation}: the adapter is not used"
            )
        return signed

    async def fetch_adapter(self, digest: str, into: Path, *, size: int) -> int:
        """Fetch a published adapter of ``size`` bytes into a file, checked, and return its size."""
        return await self._transport.download(f"/v1/adapters/{digest}", into, digest=digest, size=size)

    async def fetch_aggregate(self, place: RoundPlace, into: Path, *, digest: str, size: int) -> int:
        """Fetch the aggregate of a published round that shares it with this agent, like an adapter."""
        path = f"/v1/runs/{place.run_id}/rounds/{place.round}/aggregate"
        return await self._transport.download(path, into, digest=digest, size=size)

    async def send_update(
        self, run_id: str, number: int, update: Path, *, digest: str, examples: int | None
    ) -> UpdateReceipt:
        """Send the update of a round."""
        path = f"/v1/runs/{run_id}/rounds/{number}/update"
        params = {} if examples is None else {"examples": examples}
        return await self._transport.upload(path, update, UpdateReceipt, digest=digest, params=params)

    async def say_ready(self, run_id: str, number: int) -> None:
        """Say that the update of a round is trained and stored."""
        await self._transport.call("PUT", f"/v1/runs/{run_id}/rounds/{number}/ready", Accepted)

    async def announce(self, place: AttemptPlace, advert: Advert) -> None:
        """Announce keys for an attempt."""
        await self._transport.call("PUT", _path(place, "keys"), Accepted, body=advert)

    async def deal(self, place: AttemptPlace, dealt: DealtShares) -> None:
        """Deal sealed shares."""
        await self._transport.call("PUT", _path(place, "shares"), Accepted, body=dealt)

    async def send_masked(self, place: AttemptPlace, vector: Path, *, digest: str) -> None:
        """Send the masked vector."""
        kind = "application/octet-stream"
        await self._transport.upload(_path(place, "masked"), vector, Accepted, digest=digest, kind=kind)

    async def confirm(self, place: AttemptPlace, signed: SignedSurvivors) -> None:
        """Sign the survivors."""
        await self._transport.call("PUT", _path(place, "consistency"), Accepted, body=signed)

    async def release(self, place: AttemptPlace, released: ReleasedShares) -> None:
        """Release shares."""
        await self._transport.call("PUT", _path(place, "unmasking"), Accepted, body=released)


def _path(place: AttemptPlace, stage: str) -> str:
    return f"/v1/runs/{place.run_id}/rounds/{place.round}/attempts/{place.attempt}/{stage}"
