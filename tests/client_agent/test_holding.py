"""Which adapter an agent holds: one whose model card it can check, and none that keeps it from its rounds."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.federation import Federation, ManualClock, client_of, key_of, make_agent
from bench.no_op import InProcess, NoOpTrainer
from services.client_agent.agent import Agent
from services.client_agent.cli.app import app
from services.client_agent.declined import Declined
from services.client_agent.state import StateFolder
from services.client_agent.status import DeclinedRun, Status
from shared.adapter_folder import CARD, README, WEIGHTS, read_card
from shared.errors import (
    BaseModelMismatch,
    CardInvalid,
    FedCoLLMError,
    MemoryTooSmall,
    PolicyRefused,
    RemoteProblem,
    TooFewExamples,
)
from shared.protocol.audit import sign_head
from shared.protocol.card import SignedCard, sign_card
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import UNUSABLE, UNWILLING
from shared.protocol.messages import PublishedAdapter
from shared.transport import Transport
from tests.support.federations import RUN, federation, terms_of

pytestmark = pytest.mark.anyio

SLM = "slm"
MALLORY = IdentityKey(b"mallory's key, which is her own.")


class Cards:
    """A transport on which the model cards are another's."""

    def __init__(self, transport: Transport, card: Callable[[SignedCard], SignedCard]) -> None:
        self._transport = transport
        self.card = card

    def __getattr__(self, name: str) -> object:
        """Be the transport in everything else."""
        return getattr(self._transport, name)

    async def call(self, *request: object, **more: object) -> object:
        """Ask, and change the answer if it is a card."""
        answer = await self._transport.call(*request, **more)
        return self.card(answer) if isinstance(answer, SignedCard) else answer


@asynccontextmanager
async def played(folder: Path, clock: ManualClock, rounds: int = 2) -> AsyncIterator[Federation]:
    """Open a federation and play its first round; ada holds what that has published."""
    async with federation(folder, clock) as everybody:
        await everybody.start(RUN, terms_of(rounds=rounds))
        await everybody.step()
        await until(everybody, 1)
        yield everybody


async def until(everybody: Federation, number: int) -> None:
    """Step until a round was published, and every agent was told of it."""
    for _ in range(20):
        published = (await everybody.run(RUN)).published
        if published is not None and published.round >= number:
            break
        await everybody.step()
    await everybody.step()


def ada_with(everybody: Federation, folder: Path, card: Callable[[SignedCard], SignedCard]) -> tuple[Agent, Status]:
    """Return another agent of ada's on an empty folder, to whom cards are shown as ``card`` makes them."""
    status, state = Status(), StateFolder(folder)
    client = client_of(Cards(everybody.transports["ada"], card))
    return make_agent("ada", client, InProcess(NoOpTrainer()), state, status, slm=SLM), status


def changed(signed: SignedCard, key: IdentityKey, **changes: object) -> SignedCard:
    """Return a card that says something else, signed by whoever has this key."""
    told = signed.card.model_copy(update=changes)
    return sign_card(key, told.model_copy(update={"head": sign_head(key, told.head.head)}))


async def test_an_adapter_lies_beside_its_card(tmp_path: Path, clock: ManualClock) -> None:
    """For people and for whoever checks it; the command finds all of it right, and one changed byte wrong."""
    async with played(tmp_path, clock) as everybody:
        folder = tmp_path / "ada" / "slm-adapter"
        signed = read_card(folder)
        assert signed == everybody.context.cards.card(RUN, signed.card.round)
        assert f"round {signed.card.round}" in (folder / README).read_text()
    heads = [json.loads(line)["head"] for line in (tmp_path / "ada" / "audit-heads.jsonl").read_text().splitlines()]
    assert signed.card.head.head.model_dump() in heads
    settings = {
        "name": "ada",
        "federation": signed.card.federation,
        "operator_key": key_of("operator").public,
        "coordinator_url": "http://127.0.0.1:1",
        "state_dir": str(tmp_path / "ada"),
        "slm": "slm",
        "identity_key_file": "agent.key",
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (tmp_path / "agent.toml").write_text("\n".join([*lines, "[data]", 'path = "data.jsonl"', ""]))
    verify = ("adapters", "verify", "--config", str(tmp_path / "agent.toml"))
    checked = CliRunner().invoke(app, verify)
    assert checked.exit_code == 0, checked.output
    for name in (WEIGHTS, CARD, README, "adapter_config.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content.replace(b"1", b"2") if name != WEIGHTS else content[:-1] + b"x")
        assert CliRunner().invoke(app, verify).exit_code == 1, name
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    "card",
    [
        lambda signed: signed.model_copy(update={"signature": "A" * 86}),
        lambda signed: changed(signed, MALLORY, round=signed.card.round + 1),
        lambda signed: changed(signed, MALLORY, federation="elsewhere"),
    ],
)
async def test_an_adapter_is_not_held_whose_card_fails(
    card: Callable[[SignedCard], SignedCard], tmp_path: Path, clock: ManualClock
) -> None:
    """It says so, and takes part in the next round all the same."""
    async with played(tmp_path, clock) as everybody:
        ada, _ = ada_with(everybody, tmp_path / "again", card)
        with pytest.raises(FedCoLLMError):
            await ada.step(wait_seconds=0)
        state = StateFolder(tmp_path / "again")
        assert state.published is None
        assert ada._declined.told[RUN] in {"card_invalid", "signature_invalid", "federation_mismatch"}
        told = dict(ada._declined.told)
        await ada.step(wait_seconds=0)  # the adapter is not named again
        assert everybody.context.presence.agent("ada").declines == told


async def test_a_card_of_another_audit_log_is_said_aloud(tmp_path: Path, clock: ManualClock) -> None:
    """As a head of one is: whoever was set up anew has another key, and so has whoever pretends to be it."""
    async with played(tmp_path, clock) as everybody:
        ada, status = ada_with(everybody, tmp_path / "again", lambda signed: changed(signed, MALLORY))
        await ada.step(wait_seconds=0)
        assert "a model card shows another audit log" in str(status.audit_broken)
        assert StateFolder(tmp_path / "again").audit.contradiction is not None


async def test_a_card_of_another_round_is_refused(tmp_path: Path, clock: ManualClock) -> None:
    """Its coordinator could else show an old card with a new adapter that happens to be the same."""
    async with played(tmp_path, clock) as everybody:
        await everybody.finish(RUN)
        signed = everybody.context.cards.card(RUN, 1)
        client = client_of(Cards(everybody.transports["ada"], lambda _: signed))
        told = PublishedAdapter(run_id=RUN, round=2, digest=signed.card.rounds[0].slm_adapter)
        with pytest.raises(CardInvalid, match="for round 2 of run run came the model card of round 1"):
            await client.card(told)


async def test_an_adapter_that_cannot_be_held_keeps_nobody_from_rounds(tmp_path: Path, clock: ManualClock) -> None:
    """The coordinator answers with a problem where the card should be: ada is ready for the round, and then says so."""

    def missing(_: SignedCard) -> SignedCard:
        raise RemoteProblem("not_found", 404, "there is no such card")

    async with federation(tmp_path, clock) as everybody:
        everybody.agents.pop("ada")
        await everybody.start(RUN, terms_of(rounds=2))
        while (await everybody.run(RUN)).published is None:
            await everybody.step()
            clock.advance(11)
        ada, status = ada_with(everybody, tmp_path / "again", missing)
        with pytest.raises(RemoteProblem):
            await ada.step(wait_seconds=0)
        assert status.rounds_taken_part == 1


async def test_a_card_that_is_missing_is_fetched(tmp_path: Path, clock: ManualClock) -> None:
    """By an agent that holds the adapter already: from before there were cards, or because somebody deleted it."""
    async with played(tmp_path, clock) as everybody:
        card = tmp_path / "ada" / "slm-adapter" / CARD
        card.unlink()
        await everybody.step()
        assert card.exists()


async def test_the_folder_does_not_grow_while_an_adapter_is_pinned(tmp_path: Path, clock: ManualClock) -> None:
    """What rounds begin from is forgotten after them; what the agent holds stays."""
    async with played(tmp_path, clock, rounds=6) as everybody:
        everybody.context.promotion.pin(RUN, 1, actor="operator")
        await everybody.finish(RUN)
        held = StateFolder(tmp_path / "ada").published
        assert held is not None
        assert held.round == 1
        assert len(list((tmp_path / "ada" / "adapters").iterdir())) == 2


def test_weights_that_a_kill_left_of_another_adapter_are_not_held(tmp_path: Path) -> None:
    """The note names one and the folder has another: the agent fetches it again, whatever it is told to hold."""
    state = StateFolder(tmp_path)
    weights = b"weights of round 1"
    published = PublishedAdapter(run_id="run", round=1, digest=digest_of(weights))
    state.adapter(published.digest).write_bytes(weights)
    state.keep_published(published, {}, {})
    assert StateFolder(tmp_path).settled() == published
    (state.peft_folder / WEIGHTS).unlink()
    (state.peft_folder / WEIGHTS).write_bytes(b"weights of round 2")
    assert StateFolder(tmp_path).settled() is None
    assert StateFolder(tmp_path).published is None


@pytest.mark.parametrize(
    ("error", "doing", "word"),
    [
        (TooFewExamples("it has 7 of 8"), "taking part", UNWILLING),
        (PolicyRefused("smallest_cohort is 5"), "taking part", UNWILLING),
        (MemoryTooSmall("2 GB are missing"), "taking part", UNWILLING),
        (PolicyRefused("largest_adapter_bytes is 5"), "holding", UNUSABLE),
        (BaseModelMismatch("another"), "taking part", "base_model_mismatch"),
        (CardInvalid("of another adapter"), "holding", "card_invalid"),
    ],
)
def test_what_is_said_of_a_refusal_depends_on_no_data_and_no_policy(
    error: FedCoLLMError, doing: str, word: str, clock: ManualClock
) -> None:
    """Else an operator could find out how many examples there are, run by run; this organisation sees all of it."""
    runs: dict[str, DeclinedRun] = {}
    declined = Declined(runs, clock=clock)
    with pytest.raises(type(error)), declined.unless_done("run", holding=doing == "holding"):
        raise error
    assert declined.told == {"run": word}
    at = datetime.fromtimestamp(clock(), UTC)
    assert runs == {"run": DeclinedRun(run_id="run", code=error.code, reason=str(error), at=at, told=word)}
    with declined.unless_done("run"):
        pass
    assert declined.told == runs == {}
