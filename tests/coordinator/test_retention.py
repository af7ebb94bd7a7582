"""What the coordinator deletes by itself, and that nothing is lost to it, whatever else goes on."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.federation import ManualClock
from services.coordinator.blobs import FileBlobs
from services.coordinator.context import Context
from services.coordinator.reconciling import reconciling
from services.coordinator.retention import BEGINNINGS, SETTLED_SECONDS, Retention
from services.coordinator.store import SqlStore
from services.coordinator.transaction import Transaction
from shared.errors import NotFound
from shared.protocol.digests import digest_of
from shared.protocol.rounds import RoundState
from tests.support.federations import (
    AGENTS,
    LLM_LAYOUT,
    RUN,
    adapter,
    begin,
    lease,
    play_round,
    result_of,
    store,
    submit,
    terms_of,
    work,
)

pytestmark = pytest.mark.anyio


def files(context: Context) -> set[str]:
    """Return the digests of all blobs that lie in the folder."""
    root = context.settings.data_dir / "blobs" / "sha256"
    return {f"sha256:{path.parent.name}{path.name}" for path in root.rglob("*") if path.is_file()}


def rows(context: Context) -> set[str]:
    """Return the digests of all blobs that have a row."""
    with context.store.read() as tx:
        return tx.blobs.named()


def age(context: Context, seconds: float = SETTLED_SECONDS + 1) -> None:
    """Let everything in the folder have been written so long ago."""
    at = context.rounds._clock() - seconds
    for path in (context.settings.data_dir / "blobs" / "sha256").rglob("*"):
        os.utime(path, (at, at))


def collect(context: Context, retention: Retention | None = None) -> int:
    """Look at everything that there is."""
    beginnings = sorted({digest[: len(BEGINNINGS[0])] for digest in files(context) | rows(context)})
    return sum((retention or context.retention).collect(beginning) for beginning in beginnings)


def keeping(context: Context, rounds: int) -> Retention:
    """Return a retention that keeps the adapters of so many rounds of each run."""
    return Retention(context.store, context.blobs, context.rounds._clock, keep_rounds=rounds)


def names(context: Context, number: int) -> dict[str, str | None]:
    """Return the adapters of a round by what they are in it."""
    with context.store.read() as tx:
        of_round = tx.round(RUN, number)
        updates = {f"update of {update.agent}": update.digest for update in tx.updates(RUN, number)}
    return {
        "aggregate": of_round.aggregate,
        "slm": of_round.slm_candidate,
        "llm": of_round.llm_candidate,
        **updates,
    }


def refused_in_the_middle(context: Context, clock: ManualClock) -> None:
    """Publish round 1, refuse round 2, publish round 3, and open round 4 with ada's update."""
    begin(context, terms_of(rounds=4))
    for number, loss in ((1, 1.0), (2, 9.0), (3, 1.0)):
        play_round(context, number, loss=loss)
        clock.advance(1)
    submit(context, "ada", 40.0, number=4)


def test_what_nobody_needs_goes_and_what_is_published_stays(context: Context, clock: ManualClock) -> None:
    """Updates and aggregates of rounds that have ended go, refused candidates too; all else is as it was."""
    refused_in_the_middle(context, clock)
    first, second, third, fourth = (names(context, number) for number in (1, 2, 3, 4))
    with context.store.read() as tx:
        prepared = tx.run(RUN).prepared
    assert prepared is not None
    stay = {prepared.slm.adapter, prepared.llm.adapter, *fourth.values(), None}
    stay |= {first["slm"], first["llm"], third["slm"], third["llm"]}
    go = {*first.values(), *second.values(), *third.values()} - stay
    age(context)
    before = files(context)
    assert collect(context) == len(before) - len(before & stay)
    assert files(context) == rows(context) == before & stay
    assert not files(context) & go
    assert collect(context) == 0
    play_round_on(context)


def play_round_on(context: Context) -> None:
    """End round 4: whatever it needs must be there."""
    submit(context, "bob", 41.0, number=4)
    context.rounds.reconcile()
    work(context)
    work(context)
    assert context.lifecycle.rounds(RUN).rounds[3].state is RoundState.PUBLISHED


def test_views_of_rounds_need_none_of_what_went(context: Context, clock: ManualClock) -> None:
    """Reports, lists and cards are the same before and after."""
    refused_in_the_middle(context, clock)

    def seen() -> tuple[object, ...]:
        adapters = context.promotion.adapters(run_id=None, before=None, limit=9)
        return (
            context.lifecycle.rounds(RUN),
            adapters,
            context.cards.card(RUN, 1).card,
            context.lifecycle.artefacts(RUN),
        )

    before = seen()
    age(context)
    assert collect(context)
    context.cards._made.clear()
    assert seen() == before


def test_what_was_written_lately_stays_whatever_names_it(context: Context, clock: ManualClock) -> None:
    """So that an upload, or a worker, that has stored something and not yet said what it is, loses nothing."""
    refused_in_the_middle(context, clock)
    age(context, SETTLED_SECONDS - 1)
    assert collect(context) == 0


def test_what_a_worker_has_stored_for_its_work_stays_for_as_long_as_that_takes(
    context: Context, clock: ManualClock
) -> None:
    """A result may name on the evening what was stored in the morning; when its work is over, what is left goes."""
    begin(context)
    for agent in AGENTS:
        submit(context, agent)
    context.rounds.reconcile()
    granted = lease(context)
    stored = store(context, adapter(7.0)), store(context, adapter(7.0, LLM_LAYOUT))
    orphan = store(context, adapter(8.0))
    for _ in range(3):
        clock.advance(SETTLED_SECONDS)
        age(context, 2 * SETTLED_SECONDS)
        context.work.heartbeat(granted.job_id, granted.token)
    age(context, 3 * SETTLED_SECONDS)
    assert collect(context) == 0
    result = result_of(context, granted).model_copy(update={"slm_adapter": stored[0], "llm_adapter": stored[1]})
    context.work.complete(granted.job_id, granted.token, result, actor="worker")
    age(context)
    collect(context)
    assert orphan not in files(context) | rows(context)
    assert {*stored} <= files(context) & rows(context)


def test_a_file_that_no_row_names_goes(context: Context) -> None:
    """A crash between the deletion of a row and of its file, or between a file and its row, leaves nothing for ever."""
    content = b"renamed, and then the power went"
    context.blobs.put([content], size=len(content))
    assert collect(context) == 0
    age(context)
    assert collect(context) == 1
    assert not files(context)


def test_the_newest_rounds_are_kept_where_a_setting_says_how_many(context: Context, clock: ManualClock) -> None:
    """Older ones are no longer given out, nor chosen for the agents; one that the agents hold stays."""
    begin(context, terms_of(rounds=5))
    for number in (1, 2, 3, 4):
        play_round(context, number)
        clock.advance(1)
    context.promotion.pin(RUN, 1, actor="operator")
    age(context)
    collect(context, keeping(context, rounds=2))
    there = [
        number
        for number in (1, 2, 3, 4)
        if {names(context, number)["slm"], names(context, number)["llm"]} <= files(context)
    ]
    assert there == [1, 3, 4]
    gone = names(context, 2)["slm"]
    assert gone is not None
    for ask in (lambda: context.rounds.published_path(gone), lambda: context.promotion.pin(RUN, 2, actor="operator")):
        with pytest.raises(NotFound):
            ask()
    adapters = context.promotion.adapters(run_id=None, before=None, limit=9).adapters
    assert [view.round for view in adapters] == [4, 3, 1]


def test_a_shared_aggregate_stays_with_its_round(context: Context) -> None:
    """Agents may still fetch it."""
    begin(context, terms_of(share_aggregate=True))
    play_round(context, 1)
    age(context)
    collect(context)
    digest, path = context.rounds.aggregate_path("ada", RUN, 1)
    assert digest_of(path.read_bytes()) == digest


def test_masked_vectors_of_an_attempt_that_goes_on_stay(context: Context) -> None:
    """Their names are messages, and no rows of updates."""
    vector = store(context, adapter(3.0))
    begin(context)
    with context.store.write() as tx:
        tx.attempts.add_message(tx.round(RUN, 1), RoundState.MASKED, "ada", vector)
    age(context)
    collect(context)
    assert vector in files(context) & rows(context)


def test_each_deletion_is_in_the_audit_log(context: Context, clock: ManualClock) -> None:
    """How many, and how many bytes; never what was in them."""
    refused_in_the_middle(context, clock)
    age(context)
    before = sum(len(context.blobs.path(digest).read_bytes()) for digest in files(context))
    gone = collect(context)
    after = sum(len(context.blobs.path(digest).read_bytes()) for digest in files(context))
    lines = [line for line in context.audit.page(after=0, limit=1000).entries if line.action == "blobs.deleted"]
    assert sum(line.detail["blobs"] for line in lines) == gone
    assert sum(line.detail["bytes"] for line in lines) == before - after


class Interrupted(BaseException):
    """The coordinator dies here."""


def test_a_crash_between_rows_and_files_loses_nothing(context: Context, clock: ManualClock) -> None:
    """Rows are gone, files are not: the next pass removes what the one before has left, and nothing else."""
    refused_in_the_middle(context, clock)
    age(context)
    expected = kept_of(context)

    class Dying(FileBlobs):
        def remove(self, digest: str, *, written_before: float) -> None:  # noqa: ARG002
            raise Interrupted

    dying = Dying(context.settings.data_dir / "blobs")
    for _ in range(3):
        with pytest.raises(Interrupted):
            collect(context, Retention(context.store, dying, clock, keep_rounds=None))
    collect(context)
    assert files(context) == rows(context) == expected


async def test_the_reconciler_comes_to_all_parts(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, without anybody asking."""
    monkeypatch.setattr("services.coordinator.reconciling.FORGET_SECONDS", -1.0)
    content = b"renamed, and then the power went"
    context.blobs.put([content], size=len(content))
    age(context)
    async with reconciling(context):
        while files(context):
            context.changes.ring()
            await asyncio.sleep(0)


def kept_of(context: Context) -> set[str]:
    """Return what must stay."""
    with context.store.read() as tx:
        return tx.blobs.kept(newest=None)


class Meanwhile:
    """A store in which something happens right before a change, or right after it."""

    def __init__(self, inner: SqlStore, *, before: bool, happens: Callable[[], Any]) -> None:
        self.read = inner.read
        self._inner, self._before, self._happens = inner, before, happens

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Let it happen once."""
        happens, self._happens = self._happens, lambda: None
        if self._before:
            happens()
        with self._inner.write() as tx:
            yield tx
        if not self._before:
            happens()


@pytest.mark.parametrize("before", [True, False])
def test_a_blob_that_is_stored_again_while_it_is_deleted_is_not_lost(before: bool, context: Context) -> None:  # noqa: FBT001
    """Whoever stores the same bytes has them afterwards, row and file, whichever comes first."""
    blob = adapter(9.0)
    orphan = store(context, blob)
    age(context)
    meanwhile = Meanwhile(context.store, before=before, happens=lambda: store(context, blob))
    clock = context.rounds._clock
    collect(context, Retention(meanwhile, context.blobs, clock, keep_rounds=None))
    assert orphan in files(context) & rows(context)
