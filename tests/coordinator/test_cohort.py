"""What a round takes, whoever sends it and however often."""

import pytest
from pydantic import ValidationError

from services.coordinator.context import Context
from services.coordinator.records import Round
from shared.errors import RoundClosed, UpdateConflict, ValuesNotFinite
from shared.protocol.digests import digest_of
from shared.protocol.messages import Assignment, PublishedAdapter
from tests.support.federations import RUN, adapter, begin, submit


def newest_round(context: Context) -> Round:
    with context.store.read() as tx:
        return tx.round(RUN, 1)


def test_a_full_cohort_takes_no_more(context: Context) -> None:
    """The third of two updates is late, though the round is not aggregated yet, and its agent is not asked for one."""
    begin(context)
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)

    assert context.rounds.wanted("cleo").assignment is None
    with pytest.raises(RoundClosed, match="takes no more"):
        submit(context, "cleo", 3.0)
    view = context.lifecycle.rounds(RUN).rounds[0]
    assert (view.accepted, view.late) == (2, 1)


def test_a_refused_update_does_not_disturb_the_round(context: Context) -> None:
    """Counting what was refused leaves the version alone, so that no agent can make aggregation start over."""
    begin(context)
    before = newest_round(context).version
    with pytest.raises(ValuesNotFinite):
        submit(context, "ada", float("nan"))

    assert newest_round(context).version == before
    assert context.lifecycle.rounds(RUN).rounds[0].refused == 1


def test_a_count_is_not_lost_when_the_round_goes_on(context: Context) -> None:
    """A change that was decided before the count was raised does not put the old count back."""
    begin(context)
    read_before = newest_round(context)
    with pytest.raises(ValuesNotFinite):
        submit(context, "ada", float("nan"))
    with context.store.write() as tx:
        tx.change_round(read_before, actor="test", accepted=0)

    assert context.lifecycle.rounds(RUN).rounds[0].refused == 1


def test_of_two_racing_updates_of_one_agent_the_first_counts(context: Context) -> None:
    """Both were admitted before either was in: the second is told that it conflicts, and nothing is counted twice."""
    begin(context)
    blobs = [adapter(1.0), adapter(2.0)]
    slots = [
        context.updates.receipt("ada", RUN, 1, digest=digest_of(blob), size=len(blob), examples=None)[1]
        for blob in blobs
    ]
    outcomes = []
    for blob, slot in zip(blobs, slots, strict=True):
        with context.blobs.receive(size=len(blob)) as incoming:
            incoming.write(blob)
            try:
                outcomes.append(context.updates.accept(slot, incoming, digest=digest_of(blob)).digest)
            except UpdateConflict as error:
                outcomes.append(error.code)

    assert outcomes == [digest_of(blobs[0]), "update_conflict"]
    assert context.lifecycle.rounds(RUN).rounds[0].accepted == 1


@pytest.mark.parametrize("run_id", ["../evil", "a/b", "/etc", "a..b/..", "", "A", "x" * 65])
def test_no_run_id_leaves_an_agents_folder(run_id: str) -> None:
    """Run ids become file names on agents: what a coordinator sends is held to the protocol's form."""
    digest = digest_of(b"")
    with pytest.raises(ValidationError):
        Assignment(run_id=run_id, round=1, manifest=digest, adapter=digest)
    with pytest.raises(ValidationError):
        PublishedAdapter(run_id=run_id, round=1, digest=digest)
