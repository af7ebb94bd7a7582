"""Every change that somebody decides leaves a line in the audit log, in its own transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bench.federation import ManualClock, key_of, known_tokens
from services.coordinator import schema
from services.coordinator.context import Context
from services.coordinator.principals import Role
from services.coordinator.store import SqlStore
from services.coordinator.token_log import TokenLog, told
from services.coordinator.tokens import TokenFile, TokensFile, issue, issue_all
from services.coordinator.transaction import Transaction
from shared.errors import LayoutMismatch, RoundClosed
from shared.protocol.audit import Chain
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.terms import CohortTerms, GateTerms
from tests.support.federations import (
    RUN,
    adapter,
    begin,
    cancelled,
    coordinator,
    federation,
    lease,
    play_round,
    submit,
    terms_of,
    work,
)
from tests.support.members import certificate, enrolment, invited

# The log itself; what has a line in it already; bytes under their digests, which mean nothing by themselves; and what
# members have sent at a stage, whose end has a line.
NOT_WATCHED = {"audit", "events", "blobs", "attempt_messages"}
# That a worker is alive is nobody's decision.
SIGNS_OF_LIFE = {"expires_at", "renewed_at"}


def snapshot(tx: Transaction) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything that somebody may have decided."""
    watched = [table for table in schema.metadata.sorted_tables if table.name not in NOT_WATCHED]
    columns = {table.name: [column for column in table.c if column.name not in SIGNS_OF_LIFE] for table in watched}
    return {name: [tuple(row.values()) for row in tx._rows.all(sa.select(*of))] for name, of in columns.items()}


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Compares the tables before and after each transaction, and remembers those that changed without a line."""
    unlogged: list[str] = []
    real = SqlStore.write

    @contextmanager
    def write(store: SqlStore) -> Iterator[Transaction]:
        with real(store) as tx:
            before, lines = snapshot(tx), tx.audit.head("clinics").seq
            yield tx
            after = snapshot(tx)
            if tx.audit.head("clinics").seq == lines:
                unlogged.extend(name for name, rows in after.items() if rows != before[name])

    monkeypatch.setattr(SqlStore, "write", write)
    yield unlogged
    assert unlogged == []


class Lines:
    """What was logged since it was asked last: who did what to what."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last = context.audit.head().head.seq

    def since(self) -> list[str]:
        """Return the new lines."""
        entries = self._context.audit.page(after=self._last, limit=100).entries
        self._last += len(entries)
        return [f"{entry.actor} {entry.action} {entry.subject}" for entry in entries]


def test_each_operation_leaves_its_line(context: Context, clock: ManualClock) -> None:
    """Runs, rounds, updates and work, from a draft to a run that was stopped."""
    lines = Lines(context)
    warned = f"operator run.warning run/{RUN}"
    terms = terms_of(
        rounds=9,
        gate=GateTerms(enabled=True),
        cohort=CohortTerms(min_count=1, max_count=2, min_seconds=10, max_seconds=60),
    )
    context.lifecycle.create(RUN, terms, actor="operator")
    assert lines.since() == [f"operator run.draft run/{RUN}", warned]
    context.lifecycle.start(RUN, actor="operator")
    assert lines.since() == [f"operator run.running run/{RUN}"]
    work(context)
    assert lines.since() == [
        f"worker work.leased run/{RUN}",
        f"worker work.done run/{RUN}",
        f"coordinator run.prepared run/{RUN}",
        f"operator run.signed run/{RUN}",
        f"coordinator round.open run/{RUN}/round/1",
    ]
    context.lifecycle.pause(RUN, actor="operator")
    clock.advance(5)
    context.lifecycle.start(RUN, actor="operator")
    assert lines.since() == [f"operator run.paused run/{RUN}", f"operator run.running run/{RUN}"]
    submit(context, "ada")
    with pytest.raises(LayoutMismatch):
        submit_nonsense(context, "bob")
    submit(context, "bob")
    with pytest.raises(RoundClosed):
        submit(context, "cleo")
    assert lines.since() == [
        f"ada update.accepted run/{RUN}/round/1",
        f"bob update.refused run/{RUN}/round/1",
        f"bob update.accepted run/{RUN}/round/1",
        f"cleo update.late run/{RUN}/round/1",
    ]
    context.rounds.reconcile()
    assert lines.since() == [f"coordinator round.aggregated run/{RUN}/round/1"]
    work(context)
    work(context)
    assert lines.since() == [
        f"worker work.leased run/{RUN}/round/1",
        f"worker round.cotuning run/{RUN}/round/1",
        f"worker work.done run/{RUN}/round/1",
        f"coordinator round.evaluating run/{RUN}/round/1",
        f"worker work.leased run/{RUN}/round/1",
        f"worker work.done run/{RUN}/round/1",
        f"coordinator round.published run/{RUN}/round/1",
        f"coordinator round.open run/{RUN}/round/2",
    ]
    play_round(context, 2, loss=9.0)
    assert f"coordinator round.refused run/{RUN}/round/2" in lines.since()
    clock.advance(61)
    context.rounds.reconcile()
    assert lines.since()[:2] == [
        f"coordinator round.aborted run/{RUN}/round/3",
        f"coordinator round.open run/{RUN}/round/4",
    ]
    cancelled(context)
    assert lines.since() == [f"operator round.aborted run/{RUN}/round/4", f"operator run.failed run/{RUN}"]


def submit_nonsense(context: Context, agent: str) -> None:
    """Send what has the right length and is no adapter."""
    blob = b"\x80" * len(adapter(1.0))
    digest = digest_of(blob)
    _, slot = context.updates.receipt(agent, RUN, 1, digest=digest, size=len(blob), examples=None)
    with context.blobs.receive(size=len(blob)) as incoming:
        context.updates.write(slot, incoming, blob)
        context.updates.accept(slot, incoming, digest=digest)


@pytest.mark.anyio
async def test_an_attempt_leaves_lines_that_say_who_is_in_it(tmp_path: Path, clock: ManualClock) -> None:
    """Who was ready, who was a member, and whose update is in the sum: so much an audit must know."""
    agents = ("ada", "bob", "cleo", "dan")
    cohort = CohortTerms(min_count=3, max_count=4, min_seconds=10, max_seconds=60)
    terms = terms_of(aggregation="SecureAggregation", cohort=cohort)
    async with federation(tmp_path, clock, agents=agents) as everybody:
        lines = Lines(everybody.context)
        await everybody.start(RUN, terms)
        said: list[str] = []
        while "coordinator round.masked run/run/round/1" not in said:
            await everybody.step()
            said += lines.since()
        del everybody.agents["bob"]
        await everybody.step()
        clock.advance(terms.masking.stage_seconds)
        await everybody.finish(RUN)
        page = everybody.context.audit.page(after=0, limit=500)
    assert f"coordinator attempt.opened run/{RUN}/round/1/attempt/1" in said
    told = {entry.action: entry.detail for entry in page.entries if entry.action.startswith("attempt.")}
    assert told["attempt.opened"] == {"group": 0, "members": [*agents], "threshold": 3}
    assert told["attempt.masked"] == {"group": 0, "survivors": ["ada", "cleo", "dan"]}
    assert {entry.actor for entry in page.entries if entry.action == "update.ready"} == {*agents}


def test_members_come_and_go_with_a_line_each(context: Context) -> None:
    """Invited, enrolled, approved, revoked: by whom, and with which key; never the token."""
    lines, key, began = Lines(context), IdentityKey.generate(), context.audit.head().head.seq
    token = invited(context, "dan")
    context.membership.enrol(enrolment(token, key, "dan"))
    context.membership.approve("dan", certificate("dan", key.public), actor="operator")
    context.membership.revoke("dan", "it left", actor="operator")
    assert lines.since() == [
        "operator member.invited member/dan",
        "dan member.pending member/dan",
        "operator member.approved member/dan",
        "operator member.revoked member/dan",
    ]
    page = context.audit.page(after=began, limit=10)
    assert [entry.detail["key"] for entry in page.entries] == [None, *[key.public] * 3]
    assert token not in page.model_dump_json()


def test_work_that_comes_to_nothing_leaves_its_lines(context: Context, clock: ManualClock) -> None:
    """Handed back, fallen silent, failed; a heartbeat is no decision and leaves none."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    lines = Lines(context)
    granted = lease(context)
    context.work.heartbeat(granted.job_id, granted.token)
    assert lines.since() == [f"worker work.leased run/{RUN}"]
    context.work.fail(granted.job_id, granted.token, "memory_too_small", "no room", actor="worker", elsewhere=True)
    assert lines.since() == [f"worker work.returned run/{RUN}"]
    lease(context)
    clock.advance(31)
    context.rounds.reconcile()
    assert lines.since() == [f"worker work.leased run/{RUN}", f"coordinator work.lease_expired run/{RUN}"]
    granted = lease(context)
    context.work.fail(granted.job_id, granted.token, "model_unreadable", "not there", actor="worker")
    assert lines.since() == [
        f"worker work.leased run/{RUN}",
        f"worker work.failed run/{RUN}",
        f"coordinator run.failed run/{RUN}",
    ]


def test_a_start_leaves_a_line(tmp_path: Path, clock: ManualClock) -> None:
    """It gives rounds and leases their time again; and whose word counts for members is a setting."""
    with coordinator(tmp_path, clock) as context:
        begin(context)
        before = context.audit.head().head.seq
    clock.advance(1000)
    with coordinator(tmp_path, clock) as context:
        (entry,) = context.audit.page(after=before, limit=10).entries
    assert (entry.actor, entry.action, entry.subject) == ("coordinator", "coordinator.started", "coordinator")
    assert entry.detail == {"operator_key": key_of("operator").public, "tokens": told(known_tokens().entries())}


def test_a_change_of_the_tokens_leaves_a_line(context: Context, tmp_path: Path) -> None:
    """Whose they are, as what, until when; of the token itself nothing that would find or check it."""
    file = tmp_path / "principals.json"
    _, first = issue_all({"gpu": Role.WORKER})
    file.write_text(first.model_dump_json())
    log = TokenLog(context.store, TokenFile(file))
    lines, before = Lines(context), context.audit.head().head.seq
    log.catch_up()
    assert lines.since() == []
    token, entry = issue(Role.VIEWER)
    (tmp_path / "new.json").write_text(TokensFile({**first.root, "screen": entry}).model_dump_json())
    (tmp_path / "new.json").replace(file)
    log.catch_up()
    log.catch_up()
    assert lines.since() == ["coordinator tokens.changed tokens"]
    page = context.audit.page(after=before, limit=10)
    assert page.entries[0].detail["screen"] == told({"screen": entry})["screen"]
    assert list(page.entries[0].detail) == ["gpu", "screen"]
    assert token not in page.model_dump_json()
    assert entry.token_sha256 not in page.model_dump_json()


def test_an_update_is_refused_for_a_reason(context: Context) -> None:
    """The code is in the log, and nothing of the update."""
    begin(context)
    with pytest.raises(LayoutMismatch):
        submit_nonsense(context, "ada")
    assert context.audit.page(after=0, limit=100).entries[-1].detail == {"code": "layout_mismatch"}


def test_the_head_is_signed_by_a_key_that_stays(tmp_path: Path, clock: ManualClock) -> None:
    """It lies in the data folder for the coordinator alone, and is the same after a restart."""
    with coordinator(tmp_path, clock) as context:
        begin(context)
        first = context.audit.head()
        assert context.audit.head() is first
    assert (tmp_path / "coordinator.key").stat().st_mode & 0o777 == 0o600
    with coordinator(tmp_path, clock) as context:
        again = context.audit.head()
        assert (again.key, again.head.seq) == (first.key, first.head.seq + 1)
        chain = Chain(first.head, again.head)
        for entry in context.audit.page(after=0, limit=100).entries:
            chain.append(entry)
        chain.require_whole()
