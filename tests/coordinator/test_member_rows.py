from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.federation import ManualClock
from services.coordinator.records import Member
from services.coordinator.store import SqlStore, open_store
from shared.errors import NotFound, VersionConflict
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey
from shared.protocol.membership import MemberState

KEY = IdentityKey.generate().public
TOKEN = digest_of(b"token")
ADA = Member("ada", created_at=1.0, changed_at=1.0, invitation=TOKEN, invitation_expires_at=90.0)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[SqlStore]:
    """A store with one member, who was invited."""
    opened = open_store(tmp_path / "coordinator.db", clock, lambda **_: None)
    with opened.write() as tx:
        tx.members.insert(ADA, actor="operator")
    yield opened
    opened.close()


def test_a_member_comes_back_as_it_went(store: SqlStore) -> None:
    """By its name, by its invitation, and in the list, field by field."""
    full = replace(
        ADA, name="bob", state=MemberState.APPROVED, key=KEY, invitation=None, not_after=2**40, signature="s"
    )
    with store.write() as tx:
        tx.members.insert(full, actor="operator")
    with store.read() as tx:
        assert tx.members.get("ada") == ADA
        assert tx.members.by_invitation(TOKEN) == ADA
        assert tx.members.all() == [ADA, full]


def test_nobody_is_found_by_a_name_or_invitation_that_nobody_has(store: SqlStore) -> None:
    """A name that was asked for is an error, and a token that nobody was given is a question."""
    with store.read() as tx:
        with pytest.raises(NotFound, match="eve"):
            tx.members.get("eve")
        assert tx.members.by_invitation(digest_of(b"guess")) is None


def test_a_change_is_swapped_and_logged(store: SqlStore, clock: ManualClock) -> None:
    """Who did what to whom, and with which key, stands in the audit log; what was read before is not written over."""
    clock.advance(5.0)
    with store.write() as tx:
        pending = tx.members.change(ADA, replace(ADA, state=MemberState.PENDING, key=KEY), actor="ada")
    with pytest.raises(VersionConflict), store.write() as tx:
        tx.members.change(ADA, replace(ADA, key="another"), actor="eve")
    with store.read() as tx:
        assert (
            tx.members.get("ada")
            == pending
            == replace(ADA, state=MemberState.PENDING, key=KEY, version=1, changed_at=clock())
        )
        entries = tx.audit.entries(after=0, limit=10)
    assert [(entry.actor, entry.action, entry.subject, entry.detail["key"]) for entry in entries] == [
        ("operator", "member.invited", "member/ada", None),
        ("ada", "member.pending", "member/ada", KEY),
    ]
