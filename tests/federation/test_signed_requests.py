"""Agents are known by the signatures that their own transport makes: what happens to one whose is not good."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.federation import Federation, ManualClock
from shared.credentials import SignedRequests
from shared.errors import RemoteProblem
from shared.protocol.rounds import RunState
from tests.support.federations import RUN, federation, terms_of

pytestmark = pytest.mark.anyio


def signing_otherwise(opened: Federation, agent: str, **changes: object) -> None:
    """Let an agent sign with another clock, nonce or name from now on."""
    transport = opened.transports[agent]
    assert isinstance(transport._authenticator, SignedRequests)
    transport._authenticator = replace(transport._authenticator, **changes)


async def test_an_agent_with_a_wrong_clock_reads_both_times_and_goes_on_when_it_is_right(tmp_path: Path) -> None:
    """It is not asked again and again on the way: its step ends, and the next one finds the clock set."""
    clock = ManualClock()
    async with federation(tmp_path, clock) as opened:
        await opened.start(RUN, terms_of())
        signing_otherwise(opened, "ada", clock=ManualClock(clock() - 600))
        with pytest.raises(RemoteProblem, match=r"22:03:20 UTC by the clock of ada.*22:13:20 UTC by the") as refusal:
            await opened.agents["ada"].step(wait_seconds=0)
        assert (refusal.value.code, refusal.value.status) == ("clock_skewed", 401)
        signing_otherwise(opened, "ada", clock=clock)
        assert (await opened.finish(RUN)).state is RunState.FINISHED


async def test_an_agent_that_signs_twice_alike_is_refused(tmp_path: Path) -> None:
    """Nonces that come again are a replay, whoever makes them."""
    async with federation(tmp_path, ManualClock()) as opened:
        signing_otherwise(opened, "ada", nonce=lambda: "0123456789abcdef")
        await opened.agents["ada"].step(wait_seconds=0)
        with pytest.raises(RemoteProblem) as refusal:
            await opened.agents["ada"].step(wait_seconds=0)
        assert refusal.value.code == "request_replayed"


async def test_an_agent_is_nobody_else(tmp_path: Path) -> None:
    """Another's name under its own key is refused, and the other goes on."""
    async with federation(tmp_path, ManualClock()) as opened:
        signing_otherwise(opened, "ada", name="bob")
        with pytest.raises(RemoteProblem) as refusal:
            await opened.agents["ada"].step(wait_seconds=0)
        assert refusal.value.code == "request_signature_invalid"
        await opened.agents["bob"].step(wait_seconds=0)


async def test_a_revoked_agent_is_refused_at_its_next_request(tmp_path: Path) -> None:
    """And reads that it was."""
    async with federation(tmp_path, ManualClock()) as opened:
        await opened.agents["ada"].step(wait_seconds=0)
        opened.context.membership.revoke("ada", "it left", actor="operator")
        with pytest.raises(RemoteProblem, match="ada was revoked") as refusal:
            await opened.agents["ada"].step(wait_seconds=0)
        assert (refusal.value.code, refusal.value.status) == ("not_a_member", 403)
