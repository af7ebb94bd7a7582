"""What an agent has said in an attempt outlives its process, is said once, and does not outlive the attempt."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench.federation import ManualClock
from services.client_agent.attempt_journal import AttemptRecord
from services.client_agent.state import DAY_SECONDS, StateFolder
from shared.errors import AttemptRefused, FedCoLLMError, Unreachable
from shared.protocol.attempts import (
    AttemptPlace,
    ConsistencyWanted,
    MaskedWanted,
    ReleasedShares,
    SharesWanted,
    Summons,
    UnmaskingWanted,
)
from shared.protocol.digests import digest_of
from shared.protocol.identity import to_text
from shared.protocol.messages import PublishedAdapter
from shared.protocol.secagg.attempt import AttemptTerms
from tests.client_agent.test_state_folder import CONFIG, Disk, PowerCut
from tests.support.attempts import STAGES, TERMS, Play
from tests.support.federations import federation, terms_of

pytestmark = pytest.mark.anyio

WEIGHTED = TERMS.model_copy(update={"weighted": True, "content": "counts", "parameters": 0})


def asked(play: Play, stage: str) -> Iterator[Summons]:
    """Yield what a coordinator may want at a stage: what it has wanted before, and something else."""
    yield play.wanted(stage)
    match stage:
        case "keys":
            yield play.keys().model_copy(update={"terms": play.terms.model_copy(update={"group": 1})})
        case "shares":
            yield SharesWanted(place=play.place, members=play.shares().members[:3])
        case "masked":
            yield MaskedWanted(place=play.place, sealed=dict(list(play.masked().sealed.items())[:2]))
        case "consistency":
            yield ConsistencyWanted(place=play.place, survivors=("ada", "bob", "cleo"))
        case _:
            yield play.unmasking(("ada", "bob", "cleo"))
            yield UnmaskingWanted(place=play.place, signatures={})


@pytest.mark.parametrize("terms", [TERMS, WEIGHTED], ids=["updates", "counts"])
@pytest.mark.parametrize("order", [list, lambda asked: [*asked][::-1]], ids=["the same first", "something else first"])
async def test_a_power_cut_makes_no_agent_say_two_things(
    terms: AttemptTerms, order: Callable[..., list[Summons]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call the machine stops at, each message of an attempt leaves in one form, or not at all.

    After it the coordinator asks for everything again, as before and otherwise, which may be answered as long as
    nothing has left. Of no member both shares leave, and no second vector.
    """
    for stop_at in range(60):
        play = Play(tmp_path / str(stop_at), terms=terms)
        with monkeypatch.context() as patch:
            disk = Disk(patch)
            disk.stop_at = stop_at
            with suppress(PowerCut):
                await play.to_the_end()
        play.restart()
        for stage in STAGES:
            for wanted in order(asked(play, stage)):
                with suppress(FedCoLLMError):
                    await play.member.answer(wanted)
        said = {stage: {repr(message) for at, message in play.sent if at == stage} for stage in STAGES}
        assert all(len(forms) <= 1 for forms in said.values()), f"stopped at call {stop_at}"
        for stage, released in play.sent:
            if stage == "unmasking":
                assert isinstance(released, ReleasedShares)
                assert not released.own_masks.keys() & released.mask_secrets.keys()
        if len(disk.calls) < stop_at:
            assert all(said.values())
            break
    else:
        pytest.fail("the power was always cut")


async def test_a_power_cut_lets_no_update_into_a_second_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call the machine stops at, this attempt has its shares when it asks again, and the next is refused."""
    for stop_at in range(20):
        play = Play(tmp_path / str(stop_at))
        wanted = await play.until("unmasking")
        with monkeypatch.context() as patch:
            disk = Disk(patch)
            disk.stop_at = stop_at
            with suppress(PowerCut):
                await play.member.answer(wanted)
        play.restart()
        await play.member.answer(wanted)
        assert play.sent[-1][0] == "unmasking"
        play.next_attempt()
        with pytest.raises(AttemptRefused, match="has been in a sum"):
            await play.member.answer(play.keys())
        if len(disk.calls) < stop_at:
            break
    else:
        pytest.fail("the power was always cut")


def found(folder: Path, secret: bytes) -> list[str]:
    """Return the names of the files that have a secret in them: as it is, as text, or in hex."""
    text = {secret, to_text(secret).encode(), secret.hex().encode()}
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if any(form in path.read_bytes() for form in text)]


def secrets_of(record: AttemptRecord) -> list[bytes]:
    """Return what must not outlive the release: the three secrets, and the share of its own that is not released."""
    assert record.secrets is not None
    assert record.shares is not None
    kept = record.secrets.secrets
    return [kept.encryption, kept.mask, kept.own_mask, record.shares[record.advert.keys.agent].shares.mask_secret]


async def test_secrets_are_gone_once_shares_are_released(tmp_path: Path) -> None:
    """A stolen disk opens no attempt of the past: what is left is what has left the machine anyway."""
    play = Play(tmp_path)
    await play.until("unmasking")
    known = secrets_of(play.state.journal.get(play.place))
    assert all(found(tmp_path, secret) for secret in known)
    released = await play.to_the_end()
    assert not any(found(tmp_path, secret) for secret in known)
    record = play.state.journal.get(play.place)
    assert record.released == released
    assert (record.secrets, record.shares, record.sealed, record.dealt) == (None, None, None, None)
    assert not play.state.journal.vector(play.place).exists()


async def test_secrets_are_gone_once_another_attempt_has_begun(tmp_path: Path) -> None:
    """One that failed leaves nothing behind, though nothing of it was released."""
    play = Play(tmp_path)
    await play.until("unmasking")
    known = secrets_of(play.state.journal.get(play.place))
    play.next_attempt()
    await play.member.answer(play.keys())
    assert not any(found(tmp_path, secret) for secret in known)


async def test_secrets_are_gone_once_another_round_is_trained_for(tmp_path: Path) -> None:
    """The last attempt of a round that came to nothing is followed by no other."""
    play = Play(tmp_path)
    await play.until("unmasking")
    known = secrets_of(play.state.journal.get(play.place))
    play.terms = TERMS.model_copy(update={"round": 2})
    play.train()
    assert not any(found(tmp_path, secret) for secret in known)
    assert not list((tmp_path / "attempts").iterdir())


async def test_secrets_are_gone_once_the_round_is_published(tmp_path: Path) -> None:
    """This agent was lost on the way: the round went on without it, and its adapter is here."""
    play = Play(tmp_path)
    await play.until("unmasking")
    blob = b"the adapter"
    published = PublishedAdapter(run_id="run", round=1, digest=digest_of(blob))
    play.state.adapter(published.digest).write_bytes(blob)
    play.state.keep_published(published, CONFIG, {})
    assert not list((tmp_path / "attempts").iterdir())


@pytest.mark.parametrize("asked", ["nothing", "an update", "no answer"])
async def test_secrets_are_gone_after_a_day(tmp_path: Path, clock: ManualClock, asked: str) -> None:
    """A run that was cancelled is followed by nothing; no coordinator keeps them there by what it wants or does not."""
    async with federation(tmp_path, clock) as everybody:
        if asked == "an update":
            await everybody.start("other", terms_of())
            await everybody.work()
        elif asked == "no answer":
            everybody.agents["ada"]._coordinator = Gone()
        old, new = (tmp_path / "ada" / "attempts" / name for name in ("run-1.json", "run-2.json"))
        for file, age in ((old, DAY_SECONDS + 1), (new, DAY_SECONDS - 1)):
            file.write_bytes(b"secrets")
            os.utime(file, (clock() - age,) * 2)
        with suppress(Unreachable):
            await everybody.agents["ada"].step(wait_seconds=0)
        assert (old.exists(), new.exists()) == (False, True)
        assert everybody.statuses["ada"].rounds_taken_part == (asked == "an update")


class Gone:
    """A coordinator that is not there."""

    async def wanted(self, *_: object, **__: object) -> None:
        """Say nothing."""
        raise Unreachable("http://away did not answer")


async def test_another_run_is_untouched(tmp_path: Path) -> None:
    """Two runs at once: what is said, trained, released and forgotten in one is nothing to the other."""
    one = Play(tmp_path)
    other = Play(tmp_path, terms=TERMS.model_copy(update={"run_id": "run-1"}))  # called as a file of the first might be
    await one.until("unmasking")
    await other.until("consistency")
    one.next_attempt()
    await one.to_the_end()
    one.terms = one.terms.model_copy(update={"round": 2})
    one.train()
    wanted = other.consistency()
    await other.member.answer(wanted)
    await other.member.answer(other.unmasking())
    assert [stage for stage, _ in other.sent] == [*STAGES]


@pytest.mark.parametrize("content", [b"", b"{", b'{"terms": {}}', b"\xff"])
async def test_a_damaged_record_is_not_made_anew(content: bytes, tmp_path: Path) -> None:
    """What was said by it is not known any more, so nothing is said in that round, and why; the next one is as ever."""
    play = Play(tmp_path)
    for stage in STAGES[1:]:
        await play.until(stage)
        (tmp_path / "attempts" / "run-1.json").write_bytes(content)
        before = list(play.sent)
        for at in STAGES:
            with pytest.raises(AttemptRefused, match=r"run-1\.json was damaged"):
                await play.member.answer(play.wanted(at))
        play.next_attempt()
        with pytest.raises(AttemptRefused, match=r"run-1\.json was damaged"):
            await play.member.answer(play.keys())
        assert play.sent == before
        (tmp_path / "attempts" / "run-1.json").unlink()
    (tmp_path / "attempts" / "run-1.json").write_bytes(content)
    play.terms = TERMS.model_copy(update={"round": 2})
    play.train()
    await play.to_the_end()


async def test_nobody_else_on_the_machine_reads_it(tmp_path: Path) -> None:
    """Whatever the process's umask: attempts and updates are their owner's alone."""
    before = os.umask(0)
    try:
        await Play(tmp_path).until("shares")
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert (modes["attempts"], modes["attempts/run-1.json"], modes["updates"]) == (0o700, 0o600, 0o700)


def test_what_was_never_said_is_not_known(tmp_path: Path) -> None:
    """A folder that is new has no record, and answers no stage but the first."""
    journal = StateFolder(tmp_path).journal
    assert journal.find("run", 1) is None
    with pytest.raises(AttemptRefused, match="no keys of attempt 1 of round 1 of run run"):
        journal.get(AttemptPlace(run_id="run", round=1, attempt=1))
