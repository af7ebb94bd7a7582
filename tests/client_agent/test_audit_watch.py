"""What an agent makes of the head of the coordinator's audit log."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bench.federation import ManualClock
from services.client_agent.audit_heads import MOST_HEADS_BYTES, AuditContradiction
from services.client_agent.audit_watch import AuditWatch
from services.client_agent.state import StateFolder
from services.client_agent.status import Status
from shared.protocol.audit import AuditHead, SignedHead, sign_head
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from tests.support.federations import RUN, federation, terms_of

pytestmark = pytest.mark.anyio

KEY = IdentityKey(bytes(32))


def head(seq: int, log: str = "log", key: IdentityKey = KEY) -> SignedHead:
    """Return the head of a log of this many entries."""
    content = f"{log} {seq}".encode()
    return sign_head(key, AuditHead(federation="clinics", seq=seq, hash=digest_of(content), at=1.0))


def see(folder: Path, *told: SignedHead | None) -> tuple[Status, list[dict[str, Any]]]:
    """Let an agent that starts on ``folder`` be told this, and return what it shows and logs."""
    status = Status()
    with capture_logs() as lines:
        watch = AuditWatch(StateFolder(folder).audit, status)
        for one in told:
            watch.see(one)
    return status, list(lines)


def test_the_newest_head_is_remembered(tmp_path: Path) -> None:
    """Over restarts, and in silence."""
    for told in ([None, None], [head(1), head(1), head(3)], [head(3), head(7)]):
        status, lines = see(tmp_path, *told)
        assert (status.audit_broken, lines) == (None, [])
    assert StateFolder(tmp_path).audit.newest == head(7)
    assert StateFolder(tmp_path).audit.contradiction is None


def test_every_head_is_kept_as_evidence(tmp_path: Path) -> None:
    """In the order in which they came, over restarts, whatever a power cut has left of the last; what is full stays."""
    file = tmp_path / "audit-heads.jsonl"
    see(tmp_path, head(1), head(1), head(3))
    file.write_bytes(file.read_bytes() + b'{"head": {"seq"')
    see(tmp_path, head(7, "rewritten, and longer"), head(2))
    kept = [SignedHead.model_validate_json(line) for line in file.read_text().splitlines()]
    assert kept == [head(1), head(3), head(7, "rewritten, and longer")]

    os.truncate(file, MOST_HEADS_BYTES)
    see(tmp_path, head(9))
    assert file.stat().st_size == MOST_HEADS_BYTES
    assert StateFolder(tmp_path).audit.newest == head(9)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (head(2), "ends at entry 2, and before it had 3"),
        (head(3, "another log"), "entry 3 of the audit log is another one"),
        (head(4, key=IdentityKey(bytes([1]) * 32)), "signed by"),
        (head(4).model_copy(update={"key": IdentityKey(bytes([1]) * 32).public}), "does not have the signature"),
        (None, "does not tell"),
    ],
)
def test_a_log_that_was_cut_or_rewritten_is_told_loudly(told: SignedHead | None, why: str, tmp_path: Path) -> None:
    """As an error in the log and on the status page, once; the head that was known stays known, with the evidence."""
    status, lines = see(tmp_path, head(3), told, told)
    assert why in str(status.audit_broken)
    assert [(line["event"], line["log_level"]) for line in lines] == [("agent.audit_broken", "error")]
    assert status.view().audit_broken == status.audit_broken
    assert StateFolder(tmp_path).audit.newest == head(3)
    kept = StateFolder(tmp_path).audit.contradiction
    assert kept == AuditContradiction(known=head(3), told=told, why=str(status.audit_broken))


def test_what_was_seen_once_stays_said(tmp_path: Path) -> None:
    """Though the log goes on as if nothing had happened, and the agent is started again; the first evidence is kept."""
    see(tmp_path, head(3), head(2), head(1))
    status, lines = see(tmp_path, head(8), head(9))
    assert lines == []
    assert "ends at entry 2" in str(status.audit_broken)
    assert StateFolder(tmp_path).audit.newest == head(9)


async def test_every_answer_tells_an_agent_the_head(tmp_path: Path, clock: ManualClock) -> None:
    """Of the coordinator that it asks, whose log it then remembers."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.finish(RUN)
        assert StateFolder(tmp_path / "ada").audit.newest == everybody.context.audit.head()
        assert {status.audit_broken for status in everybody.statuses.values()} == {None}


async def test_a_coordinator_that_goes_back_to_an_older_database_is_seen(tmp_path: Path, clock: ManualClock) -> None:
    """Restoring a backup is what it looks like to agents: what came after it has been cut off."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
    database = tmp_path / "coordinator" / "coordinator.db"
    backup = database.read_bytes()
    async with federation(tmp_path, clock) as everybody:
        await everybody.finish(RUN)
    database.write_bytes(backup)
    async with federation(tmp_path, clock) as everybody:
        await everybody.agents["ada"].step(wait_seconds=0)
        assert "was cut off, or an older copy" in str(everybody.statuses["ada"].audit_broken)
    written = json.loads((tmp_path / "ada" / "audit-broken.json").read_text())
    assert written["known"]["head"]["seq"] > written["told"]["head"]["seq"]
