"""The audit log's chain and head (docs/protocol.md, "Audit")."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from shared.errors import AuditBroken, SignatureInvalid
from shared.protocol.audit import (
    NOTHING,
    AuditEntry,
    AuditHead,
    Chain,
    SignedHead,
    entry_hash,
    require_head,
    sealed,
    sign_head,
)
from shared.protocol.digests import digest_of
from shared.protocol.identity import IdentityKey

KEY = IdentityKey(bytes(32))

words = st.text(max_size=20)
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
lines = st.fixed_dictionaries(
    {
        "at": st.floats(0, 1e10),
        "actor": words,
        "action": words,
        "subject": words,
        "detail": st.dictionaries(words, json_values, max_size=3),
    }
)


def chain_of(contents: list[dict[str, Any]]) -> list[AuditEntry]:
    """Return the chain that says all this, in order."""
    entries: list[AuditEntry] = []
    for seq, content in enumerate(contents, 1):
        previous = entries[-1].hash if entries else NOTHING
        entries.append(sealed(AuditEntry(seq=seq, previous=previous, **content)))
    return entries


logs = st.lists(lines, min_size=1, max_size=8).map(chain_of)


def head_of(entries: list[AuditEntry]) -> AuditHead:
    """Return the head of a log."""
    if not entries:
        return AuditHead(federation="clinics", seq=0, hash=NOTHING, at=0.0)
    return AuditHead(federation="clinics", seq=entries[-1].seq, hash=entries[-1].hash, at=entries[-1].at)


def check(entries: list[AuditEntry], *heads: AuditHead) -> None:
    """Check a log from its first entry to its heads."""
    chain = Chain(*heads)
    for entry in entries:
        chain.append(entry)
    chain.require_whole()


def named(entries: list[AuditEntry], head: AuditHead) -> int:
    """Return the number of the entry that is named as the first wrong one."""
    with pytest.raises(AuditBroken) as found:
        check(entries, head)
    return int(next(word for word in str(found.value).split() if word.isdigit()))


@given(logs)
def test_a_log_that_nobody_touched_is_right(entries: list[AuditEntry]) -> None:
    """Also after a trip over the wire, and against each head that it has had."""
    travelled = [AuditEntry.model_validate_json(entry.model_dump_json()) for entry in entries]
    assert travelled == entries
    check(travelled, *(head_of(entries[:count]) for count in range(len(entries) + 1)))
    assert [entry.previous for entry in entries] == [NOTHING, *(before.hash for before, _ in pairwise(entries))]


@given(logs, lines, st.data())
def test_an_edit_is_found(entries: list[AuditEntry], other: dict[str, Any], data: st.DataObject) -> None:
    """Any field of any entry; where its hash was left as it was, the entry itself is named."""
    index = data.draw(st.integers(0, len(entries) - 1))
    field = data.draw(st.sampled_from([*other, "previous", "hash"]))
    value = other.get(field, digest_of(b"other"))
    if repr(getattr(entries[index], field)) == repr(value):  # repr: 1, 1.0 and True are equal
        return
    edited = [*entries]
    edited[index] = entries[index].model_copy(update={field: value})
    assert named(edited, head_of(entries)) == index + 1


@given(logs, lines, st.data())
def test_an_edit_is_found_though_its_hash_was_made_anew(
    entries: list[AuditEntry], other: dict[str, Any], data: st.DataObject
) -> None:
    """The entry after it does not follow on it any more; after the last one the head does not."""
    index = data.draw(st.integers(0, len(entries) - 1))
    edited = [*entries]
    edited[index] = sealed(entries[index].model_copy(update=other))
    if edited[index].hash == entries[index].hash:
        return
    assert named(edited, head_of(entries)) == min(index + 2, len(entries))


@given(logs, lines, st.data())
def test_a_log_that_was_rewritten_from_an_entry_on_is_found(
    entries: list[AuditEntry], other: dict[str, Any], data: st.DataObject
) -> None:
    """All hashes after the edit are made anew, so that the chain is right: the head that was known is not in it."""
    index = data.draw(st.integers(0, len(entries) - 1))
    contents = [entry.model_dump(include=set(other)) for entry in entries]
    contents[index] = other
    rewritten = chain_of(contents)
    if rewritten == entries:
        return
    check(rewritten)
    assert named(rewritten, head_of(entries)) == len(entries)


@given(logs, st.data())
def test_a_deletion_is_found(entries: list[AuditEntry], data: st.DataObject) -> None:
    """Of any entry, the last one too."""
    index = data.draw(st.integers(0, len(entries) - 1))
    assert named(entries[:index] + entries[index + 1 :], head_of(entries)) == index + 1


@given(logs, lines, st.data())
def test_an_insertion_is_found(entries: list[AuditEntry], other: dict[str, Any], data: st.DataObject) -> None:
    """Of an entry with the right number and hash, at any place that the head covers."""
    index = data.draw(st.integers(0, len(entries) - 1))
    previous = entries[index - 1].hash if index else NOTHING
    inserted = sealed(AuditEntry(seq=index + 1, previous=previous, **other))
    if inserted == entries[index]:
        inserted = sealed(inserted.model_copy(update={"actor": f"{inserted.actor}!"}))
    assert named([*entries[:index], inserted, *entries[index:]], head_of(entries)) in {index + 1, index + 2}


@given(logs, st.data())
def test_a_swap_is_found(entries: list[AuditEntry], data: st.DataObject) -> None:
    """Of any two entries; the first place of the two is named."""
    one, other = sorted(data.draw(st.tuples(*[st.integers(0, len(entries) - 1)] * 2)))
    if one == other:
        return
    swapped = [*entries]
    swapped[one], swapped[other] = entries[other], entries[one]
    assert named(swapped, head_of(entries)) == one + 1


@given(logs, st.data())
def test_a_truncation_is_found(entries: list[AuditEntry], data: st.DataObject) -> None:
    """By whoever knows a head that is beyond it."""
    kept = data.draw(st.integers(0, len(entries) - 1))
    check(entries[:kept])
    assert named(entries[:kept], head_of(entries)) == kept + 1


def test_every_field_is_in_the_hash() -> None:
    """Two entries that differ in anything but the hash itself have different hashes."""
    entry = AuditEntry(seq=1, at=1.0, actor="a", action="b", subject="c", detail={"d": 1}, previous=NOTHING)
    changes: list[dict[str, Any]] = [
        {"seq": 2},
        {"at": 2.0},
        {"actor": "x"},
        {"action": "x"},
        {"subject": "x"},
        {"detail": {"d": 1.0}},
        {"previous": digest_of(b"x")},
    ]
    assert {name for change in changes for name in change} == set(AuditEntry.model_fields) - {"hash"}
    hashes = {entry_hash(entry), *(entry_hash(entry.model_copy(update=change)) for change in changes)}
    assert len(hashes) == len(changes) + 1
    assert entry_hash(sealed(entry)) == entry_hash(entry)


def signed(seq: int, content: bytes = b"log", *, federation: str = "clinics", key: IdentityKey = KEY) -> SignedHead:
    """Return a head that this key has signed."""
    return sign_head(key, AuditHead(federation=federation, seq=seq, hash=digest_of(content), at=1.0))


def test_a_head_may_stay_as_it_was_or_go_on() -> None:
    """The first one that is told is taken as it is, if it is signed."""
    require_head(signed(3), known=None)
    require_head(signed(3), known=signed(3))
    require_head(signed(4, b"longer log"), known=signed(3))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (signed(2), "ends at entry 2, and before it had 3"),
        (signed(3, b"other log"), "entry 3 of the audit log is another one"),
        (signed(4, key=IdentityKey(bytes([1]) * 32)), "ask the operator"),
        (signed(4, federation="banks"), "the audit log of banks"),
    ],
)
def test_a_head_that_contradicts_a_known_one_is_found(told: SignedHead, why: str) -> None:
    """Shorter, other at the same place, by another key or of another federation."""
    with pytest.raises(AuditBroken, match=why):
        require_head(told, known=signed(3))


def test_a_head_without_its_signature_is_none() -> None:
    """Whoever could change a head on its way could hide what is missing."""
    other = signed(3).head.model_copy(update={"seq": 4})
    with pytest.raises(SignatureInvalid, match="the audit log's head at entry 4"):
        require_head(signed(3).model_copy(update={"head": other}), known=None)
