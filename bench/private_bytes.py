"""The bytes of all requests of an agent in a round, heads and signatures included, as its transport sends them."""

import tempfile
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.exchange import Member, agree, attempt_terms, deal_from
from bench.federation import client_of
from shared.credentials import SignedRequests
from shared.egress import TrafficCount
from shared.folders import write_whole
from shared.protocol.attempts import AttemptPlace, DealtShares, ReleasedShares, SignedSurvivors
from shared.protocol.digests import digest_of
from shared.protocol.messages import Accepted, Wanted
from shared.protocol.secagg.coding import SLOTS
from shared.protocol.secagg.masks import WORD_BYTES
from shared.protocol.secagg.member import announce, open_shares, shares_to_release, sign_survivors
from shared.transport import open_in_process

NOTHING_WANTED = Wanted(assignment=None, summons=None, published=None)


@dataclass(frozen=True)
class RoundBytes:
    """What one agent sends in a round of an attempt."""

    requests: int
    bytes: int
    masked: int


async def request_bytes(members: int, parameters: int, lost: int) -> RoundBytes:
    """Send one agent's requests of a round to a coordinator that says yes to everything, and count them.

    It asks what is wanted before each message and once more after the last, and its secrets and shares are real.
    """
    terms = attempt_terms(members, parameters)
    agents = [Member(f"agent-{place:04}") for place in range(members)]
    roster, me = agree(terms, agents, ()), agents[-1]
    dealt = {agent.name: deal_from(roster, agent) for agent in agents}
    sealed = {dealer: shares[me.name] for dealer, shares in dealt.items() if dealer != me.name}
    shares, _ = open_shares(roster, me.name, me.secrets, sealed)
    survivors = tuple(roster.holders)[lost:]
    own_masks, mask_secrets = shares_to_release({**shares, **me.shares}, survivors=survivors, dealers=roster.holders)
    vector = bytes(WORD_BYTES * (parameters + SLOTS))
    count, place = TrafficCount(), AttemptPlace(run_id=terms.run_id, round=terms.round, attempt=terms.attempt)
    signer = SignedRequests(me.name, me.identity, terms.federation)
    with tempfile.TemporaryDirectory() as folder:
        masked = Path(folder) / "masked"
        write_whole(masked, vector)
        async with open_in_process(_says_yes, signer, count) as transport:
            client = client_of(transport)
            for send in (
                client.say_ready(terms.run_id, terms.round),
                client.announce(place, announce(terms, me.name, me.identity, me.secrets)),
                client.deal(place, DealtShares(sealed=dealt[me.name])),
                client.send_masked(place, masked, digest=digest_of(vector)),
                client.confirm(place, SignedSurvivors(signature=sign_survivors(roster, me.identity, survivors))),
                client.release(place, ReleasedShares(own_masks=own_masks, mask_secrets=mask_secrets)),
            ):
                await client.wanted(terms.adapter, wait_seconds=20)
                await send
            await client.wanted(terms.adapter, wait_seconds=20)
    return RoundBytes(count.requests, count.bytes, len(vector))


async def _says_yes(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Be an ASGI app that reads a request's body and answers what an agent goes on from."""
    while (await receive()).get("more_body"):
        pass
    answer = NOTHING_WANTED if scope["path"] == "/v1/wanted" else Accepted()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": answer.model_dump_json().encode()})
