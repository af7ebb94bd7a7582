"""Several runs on one coordinator, and agents that are in more than one: none holds up, reads or ends another."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bench.federation import FEDERATION, ManualClock
from services.coordinator.aggregating import PlaintextAggregation
from services.coordinator.context import Context
from services.coordinator.reconciling import reconciling
from services.coordinator.records import Blob
from services.coordinator.rounds import RoundEngine
from shared.errors import MessageInvalid, NotFound, ValuesNotFinite
from shared.protocol.attempts import AttemptPlace
from shared.protocol.rounds import RoundState, RunState
from shared.protocol.tensors import Layout
from shared.protocol.terms import CohortTerms
from tests.support.federations import RUN, begin, client, play_round, run_of, submit, terms_of
from tests.support.players import SECURE, Player, Players

OTHER = "other"
THREE = ("ada", "bob", "cleo")


def assigned(context: Context, agent: str, *, declined: dict[str, str] | None = None) -> tuple[str, int] | None:
    """Return the run and round that an agent is told to train for."""
    assignment = context.rounds.wanted(agent, declined or {}).assignment
    return None if assignment is None else (assignment.run_id, assignment.round)


def state_of(context: Context, run_id: str, number: int = 1) -> RoundState:
    """Return where a round is."""
    with context.store.read() as tx:
        return tx.round(run_id, number).state


def test_an_agent_trains_for_the_round_that_has_waited_longest(context: Context, clock: ManualClock) -> None:
    """A run whose rounds are short does not keep its agents from another, however much older it is."""
    begin(context, terms_of(rounds=9))
    clock.advance(1)
    begin(context, terms_of(rounds=9), run_id=OTHER)
    assert assigned(context, "ada") == (RUN, 1)
    clock.advance(1)
    play_round(context, 1)

    assert assigned(context, "ada") == (OTHER, 1)
    submit(context, "ada", run_id=OTHER)
    assert assigned(context, "ada") == (RUN, 2)


def test_a_stage_comes_before_training_for_an_older_round(context: Context, clock: ManualClock) -> None:
    """The others wait for a stage with the masks at hand; a training of hours in between would lose the agent."""
    begin(context, terms_of(), run_id=OTHER)
    clock.advance(1)
    players = Players(context, clock, *map(Player, THREE))
    begin(context, terms_of(**SECURE | {"cohort": CohortTerms(min_count=3, max_count=3, min_seconds=1, max_seconds=9)}))
    for name in THREE:
        context.attempts.ready(name, RUN, 1)
    context.rounds.reconcile()

    assert [context.rounds.wanted(name).summons.stage for name in THREE] == ["keys"] * 3  # type: ignore[union-attr]
    assert players.act("ada")
    assert context.rounds.wanted("ada").assignment is None  # the next stage may begin at any moment
    context.lifecycle.pause(RUN, actor="operator")
    assert assigned(context, "ada") == (OTHER, 1)  # and not while the run is paused


@pytest.mark.parametrize("how", ["cancelled", "paused", "refused"])
def test_a_run_that_ends_or_stops_leaves_the_other_as_it_was(context: Context, how: str) -> None:
    """Its work is taken back and its round aborted; the other publishes its round all the same."""
    begin(context, terms_of())
    begin(context, terms_of(), run_id=OTHER)
    match how:
        case "cancelled":
            context.lifecycle.cancel(RUN, "wrong data", actor="operator")
        case "paused":
            context.lifecycle.pause(RUN, actor="operator")
        case _:
            for number in (1, 2, 3):
                play_round(context, number, loss=9.0)
            assert run_of(context).state is RunState.FAILED
    play_round(context, 1, run_id=OTHER)

    assert run_of(context, OTHER).state is RunState.FINISHED
    assert run_of(context).state is (RunState.PAUSED if how == "paused" else RunState.FAILED)


def test_an_agent_that_floods_one_run_counts_in_the_other(context: Context) -> None:
    """What it sends in vain is counted where it was sent, and its update of the other run is taken as anybody's."""
    begin(context, terms_of())
    begin(context, terms_of(), run_id=OTHER)
    for _ in range(30):
        with pytest.raises(ValuesNotFinite):
            submit(context, "ada", float("nan"))
    play_round(context, 1, run_id=OTHER)

    refused = {run_id: context.lifecycle.rounds(run_id).rounds[0].refused for run_id in (RUN, OTHER)}
    assert refused == {RUN: 30, OTHER: 0}
    assert run_of(context, OTHER).state is RunState.FINISHED


class Held:
    """Adds up once it is let go."""

    def __init__(self, context: Context) -> None:
        self._real = PlaintextAggregation(context.blobs)
        self.began, self.go_on = threading.Event(), threading.Event()

    def aggregate(self, updates: Sequence[tuple[Blob, int]], layout: Layout) -> Blob:
        """Wait, and add up."""
        self.began.set()
        assert self.go_on.wait(30)
        return self._real.aggregate(updates, layout)


@pytest.mark.anyio
async def test_a_long_sum_holds_nobody_up(context: Context, clock: ManualClock) -> None:
    """While one run's updates are added up, another's round ends by its clock, and requests are answered."""
    begin(context, terms_of())
    begin(context, terms_of(), run_id=OTHER)
    held = Held(context)
    engine = RoundEngine(context.store, context.blobs, held, context.rounds._sums, clock, federation=FEDERATION)
    async with asyncio.timeout(20), reconciling(replace(context, rounds=engine)), client(context, "cleo") as http:
        try:
            for agent in ("ada", "bob"):
                await asyncio.to_thread(submit, context, agent)
            await asyncio.to_thread(held.began.wait)
            clock.advance(61)
            context.changes.ring()
            while state_of(context, OTHER) is not RoundState.ABORTED:
                await asyncio.sleep(0.01)
            assert (await http.get("/v1/wanted")).json()["assignment"]["run_id"] == OTHER
            assert state_of(context, RUN) is RoundState.OPEN
        finally:
            held.go_on.set()
        while state_of(context, RUN) is not RoundState.AGGREGATED:
            await asyncio.sleep(0.01)


def test_what_is_of_one_run_is_not_found_by_the_path_of_another(context: Context) -> None:
    """Aggregates, artefacts and attempts go by the run that the path names, whoever is in both."""
    begin(context, terms_of(share_aggregate=True))
    play_round(context, 1)
    begin(context, terms_of(), run_id=OTHER)
    assert context.rounds.aggregate_path("ada", RUN, 1)
    with pytest.raises(NotFound):
        context.rounds.aggregate_path("ada", OTHER, 1)
    assert context.lifecycle.artefact_path(RUN, "slm-adapter")
    with pytest.raises(NotFound):
        context.lifecycle.artefact_path(OTHER, "slm-adapter")
    with pytest.raises(MessageInvalid):
        context.attempts.ready("ada", OTHER, 1)


def test_a_message_of_one_runs_attempt_is_taken_by_no_other(context: Context, clock: ManualClock) -> None:
    """Keys are signed for one attempt of one run: under another run's path they are refused, and counted there."""
    players = Players(context, clock, *map(Player, THREE))
    secure = SECURE | {"cohort": CohortTerms(min_count=3, max_count=3, min_seconds=1, max_seconds=9)}
    for run_id in (RUN, OTHER):
        begin(context, terms_of(**secure), run_id=run_id)
        for name in THREE:
            context.attempts.ready(name, run_id, 1)
    context.rounds.reconcile()
    summons = context.rounds.wanted("ada").summons
    assert summons is not None
    (other,) = {RUN, OTHER} - {summons.place.run_id}
    message = players.all["ada"].answer(summons)

    elsewhere = AttemptPlace(run_id=other, round=1, attempt=1)
    assert not players.send("ada", elsewhere, "keys", message)
    assert players.send("ada", summons.place, "keys", message)
    assert context.lifecycle.rounds(other).rounds[0].refused == 1
    assert state_of(context, other) is RoundState.KEYS


def test_a_sample_of_one_run_is_not_that_of_another(context: Context) -> None:
    """Each run draws its own, so that nobody is passed over in all of them."""
    cohort = CohortTerms(min_count=1, max_count=1, min_seconds=1, max_seconds=9, sample_count=1)
    runs = [f"run-{place}" for place in range(6)]
    for run_id in runs:
        begin(context, terms_of(cohort=cohort), run_id=run_id)
    with context.store.read() as tx:
        samples = {tuple(tx.round(run_id, 1).sample or ()) for run_id in runs}
    assert len(samples) > 1
