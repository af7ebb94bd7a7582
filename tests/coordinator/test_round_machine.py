"""A round whatever happens to it, in whatever order: a state machine that plays agents, a worker, time and crashes."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bench.federation import ManualClock
from services.coordinator.records import LoggedEvent, Round
from shared.errors import LeaseLost, ProtocolError, RoundClosed, UpdateConflict
from shared.protocol.attempts import AttemptPlace
from shared.protocol.audit import AuditEntry, Chain
from shared.protocol.messages import UpdateReceipt
from shared.protocol.rounds import ENDED_RUNS, ROUND_TRANSITIONS, RUN_TRANSITIONS, RoundState, RunState
from shared.protocol.terms import CohortTerms
from shared.protocol.work import Lease, Result
from tests.support.federations import RUN, begin, coordinator, result_of, run_of, submit, terms_of
from tests.support.players import FOUR, PARAMETERS, SECURE, Message, Player, Players

COHORT = CohortTerms(min_count=3, max_count=4, min_seconds=10, max_seconds=60)
STATES = {*(("round", state) for state in RoundState), *(("run", state) for state in RunState)}
NEXT = {
    "round": {(before, after) for (before, _), after in ROUND_TRANSITIONS.items()},
    "run": {(before, after) for (before, _), after in RUN_TRANSITIONS.items()},
}

names = st.sampled_from(FOUR)
someone_there = precondition(lambda machine: machine.is_running and machine.there)
while_it_runs = precondition(lambda machine: machine.is_running)


class Crash(BaseException):
    """The coordinator dies here, right before a commit."""


@dataclass
class Sent:
    """What agents and the worker have sent, and what came of it, by rounds."""

    receipts: defaultdict[int, dict[str, UpdateReceipt]] = field(default_factory=lambda: defaultdict(dict))
    masked: defaultdict[tuple[int, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: Counter[int] = field(default_factory=Counter)
    late: Counter[int] = field(default_factory=Counter)
    message: tuple[str, AttemptPlace, str, Message] | None = None
    result: tuple[Lease, Result] | None = None


class RoundMachine(RuleBasedStateMachine):
    """One run of four agents on one coordinator, and what has come of everything that they have sent."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")  # noqa: S108 - where nobody waits for a disk
        self._folder = TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self._clock = ManualClock()
        self._dies_in = 0
        self._open()
        self.there = set(FOUR)
        self._players = Players(self._context, self._clock, *map(Player, FOUR))
        self._sent = Sent()

    @initialize(secure=st.booleans())
    def begin(self, secure: bool) -> None:  # noqa: FBT001 - drawn
        """Open the first round, of masked or of readable updates."""
        self._secure = secure
        begin(self._context, terms_of(rounds=2, **(SECURE if secure else {"cohort": COHORT})))

    # --- what happens -------------------------------------------------------------------------------------------

    @someone_there
    @rule(data=st.data(), count=st.integers(1, 8))
    def agents_act(self, data: st.DataObject, count: int) -> None:
        """Some agents do what is wanted of them: join, send an update, answer a stage."""
        for _ in range(count):
            self._act(data.draw(st.sampled_from(sorted(self.there)), label="agent"))

    @while_it_runs
    @rule(name=names)
    def one_disappears_or_comes_back(self, name: str) -> None:
        """An agent is there no more, or again."""
        self.there ^= {name}

    @while_it_runs
    @rule(name=names)
    def one_says_it_again(self, name: str) -> None:
        """What was taken before is taken again, and changes nothing."""
        before = self._rounds
        with self._living():
            if self._secure:
                if self._sent.message is not None and self._stage == self._sent.message[2]:
                    assert self._players.send(*self._sent.message)
            elif receipt := self._sent.receipts[before[-1].number].get(name):
                assert submit(self._context, name, _value(name, receipt.round), number=receipt.round) == receipt
            assert [(one.number, one.accepted, one.late, one.refused) for one in self._rounds] == [
                (one.number, one.accepted, one.late, one.refused) for one in before
            ]

    @while_it_runs
    @rule(name=names)
    def one_says_something_else(self, name: str) -> None:
        """A second message for a place is a conflict, and the first one stays."""
        number = self._rounds[-1].number
        with self._living():
            if self._secure:
                if self._sent.message is not None and self._sent.message[2] == "masked" and self._stage == "masked":
                    sender, place, stage, _ = self._sent.message
                    assert not self._players.send(sender, place, stage, b"\0" * len(bytes(self._sent.message[3])))  # type: ignore[arg-type]
                    self._sent.refused[place.round] += 1
            elif self._sent.receipts[number].get(name):
                with pytest.raises(UpdateConflict):
                    submit(self._context, name, -1.0, number=number)

    @while_it_runs
    @rule(name=names)
    def one_sends_what_is_none(self, name: str) -> None:
        """What is no update is refused, and counted so; where one was taken before it is a conflict first."""
        number = self._rounds[-1].number
        if self._secure or self._rounds[-1].state is not RoundState.OPEN or self._sent.receipts[number].get(name):
            return
        with self._living(), suppress(RoundClosed):
            with pytest.raises(ProtocolError) as caught:
                submit(self._context, name, float("nan"), number=number)
            if isinstance(caught.value, RoundClosed):
                self._sent.late[number] += 1
            else:
                self._sent.refused[number] += 1

    @while_it_runs
    @rule(name=names)
    def one_is_late(self, name: str) -> None:
        """A round that has ended takes nothing, and counts who comes."""
        number = self._rounds[-1].number - 1
        if number < 1 or name in self._sent.receipts[number]:
            return
        with self._living(), pytest.raises(RoundClosed):
            try:
                if self._secure:
                    self._context.attempts.ready(name, RUN, number)
                else:
                    submit(self._context, name, _value(name, number), number=number)
            except RoundClosed:
                self._sent.late[number] += 1
                raise

    @while_it_runs
    @rule(seconds=st.sampled_from([1, 6, 11, 61]))
    def time_passes(self, seconds: int) -> None:
        """A deadline may be over."""
        self._clock.advance(seconds)
        self._reconcile()

    @while_it_runs
    @rule()
    def the_reconciler_passes(self) -> None:
        """It may come at any time."""
        self._reconcile()

    @while_it_runs
    @rule(loss=st.sampled_from([0.5, 1.0, 2.0]), outcome=st.sampled_from(["result", "failure", "silence"]))
    def a_worker_works(self, loss: float, outcome: str) -> None:
        """It hands in a good candidate or a bad one, gives its work back, or falls silent."""
        with self._living():
            granted = self._context.work.lease("worker", "worker")
            if granted is None or outcome == "silence":
                return
            if outcome == "failure":
                self._context.work.fail(
                    granted.job_id, granted.token, "machine", "its disk is full", actor="worker", elsewhere=True
                )
                return
            result = result_of(self._context, granted, loss=loss)
            self._sent.result = granted, result
            self._context.work.complete(granted.job_id, granted.token, result, actor="worker")

    @while_it_runs
    @rule()
    def a_worker_hands_in_again(self) -> None:
        """A result that was taken is taken again, and that of a lease that is over is not: neither changes anything."""
        if self._sent.result is None:
            return
        granted, result = self._sent.result
        with self._living(), suppress(LeaseLost):
            self._context.work.complete(granted.job_id, granted.token, result, actor="worker")

    @rule(pause=st.booleans())
    @precondition(lambda machine: machine.state in {RunState.RUNNING, RunState.PAUSED})
    def the_operator_pauses_or_goes_on(self, pause: bool) -> None:  # noqa: FBT001 - drawn
        """A run that is paused goes on sooner or later."""
        with self._living():
            if pause and self.state is RunState.RUNNING:
                self._context.lifecycle.pause(RUN, actor="operator")
            self._context.lifecycle.start(RUN, actor="operator")

    @rule(commits=st.integers(0, 5))
    def the_coordinator_dies(self, commits: int) -> None:
        """At once, or before one of its next commits; it is started again."""
        if commits:
            self._dies_in = commits
        else:
            self._restart()

    # --- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def it_holds(self) -> None:
        """Everything that must hold between any two things that happen."""
        rounds, events, audit = self._rounds, list(self._events), list(self._audited())
        self._require_legal(rounds, events)
        self._require_audited(events, audit)
        for one in rounds:
            # Round and run say why they came to nothing; what came in vain is counted once, refused apart from late.
            assert bool(one.reason) == (one.state in {RoundState.REFUSED, RoundState.ABORTED})
            assert (one.refused, one.late) == (self._sent.refused[one.number], self._sent.late[one.number])
            self._require_exact(one, audit)
        assert bool(run_of(self._context).reason) == (self.state is RunState.FAILED)

    def _require_legal(self, rounds: Sequence[Round], events: Sequence[LoggedEvent]) -> None:
        """Each round's events, and the run's, are a path through the tables and end where the row is."""
        paths: defaultdict[tuple[str, int | None], list[str]] = defaultdict(list)
        for event in events:
            kind, _, state = event.kind.partition(".")
            if (kind, state) in STATES:
                paths[kind, event.round].append(state)
        for (kind, _), path in paths.items():
            assert {*pairwise(path)} <= NEXT[kind], path
        assert [paths["round", one.number][-1] for one in rounds] == [one.state for one in rounds]
        assert [path[-1] for path in [paths["run", None]] if path] in ([], [self.state])

    @staticmethod
    def _require_audited(events: Sequence[LoggedEvent], audit: Sequence[AuditEntry]) -> None:
        """Each event has its audit line: of the same thing, as often."""
        done = Counter(
            (event.kind, f"run/{RUN}" + (f"/round/{event.round}" if event.round else "")) for event in events
        )
        assert not done - Counter((line.action, line.subject) for line in audit)

    def _require_exact(self, one: Round, audit: Sequence[AuditEntry]) -> None:
        """An aggregate is of each accepted update once, to the last bit; whoever got a receipt is in it."""
        place = f"run/{RUN}/round/{one.number}"
        if self._secure:
            place += f"/attempt/{one.attempt}"
            masked = [
                line.detail["survivors"] for line in audit if (line.action, line.subject) == ("attempt.masked", place)
            ]
            accepted = [name for survivors in masked for name in survivors]
        else:
            accepted = [line.actor for line in audit if (line.action, line.subject) == ("update.accepted", place)]
            assert self._sent.receipts[one.number].keys() <= set(accepted)
            assert one.accepted == len(accepted)
        assert len(accepted) == len(set(accepted))
        if one.aggregate is None:
            return
        assert one.accepted == len(accepted)
        if self._secure:
            assert self._sent.masked[one.number, one.attempt] <= set(accepted)
            expected = self._numbers(one.slm_adapter) + self._players.mean(sorted(accepted))
        else:
            total = sum(_value(name, one.number) for name in accepted)
            expected = np.full(PARAMETERS, total / len(accepted), np.float32)
        np.testing.assert_array_equal(self._numbers(one.aggregate), expected)

    def teardown(self) -> None:
        """Whatever has happened, the run ends once everybody is there again."""
        try:
            self.there = set(FOUR)
            for _ in range(60):
                if self.state in ENDED_RUNS:
                    break
                self.the_operator_pauses_or_goes_on(pause=False)
                self._reconcile()
                self.a_worker_works(loss=0.5, outcome="result")
                for name in FOUR:
                    self._act(name)
                self._clock.advance(6)
            else:
                pytest.fail(f"the run does not end: {self._rounds[-1]}")
            self.it_holds()
        finally:
            self._close()
            self._folder.cleanup()

    # --- the coordinator, from outside ----------------------------------------------------------------------------

    @property
    def state(self) -> RunState:
        """Where the run is."""
        return run_of(self._context).state

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self.state is RunState.RUNNING

    @property
    def _rounds(self) -> list[Round]:
        with self._context.store.read() as tx:
            return tx.rounds(RUN)

    @property
    def _stage(self) -> str:
        return self._rounds[-1].state

    @property
    def _events(self) -> Iterator[LoggedEvent]:
        after = 0
        while page := self._context.lifecycle.events(RUN, after=after):
            yield from page
            after = page[-1].seq

    def _audited(self) -> Iterator[AuditEntry]:
        """Yield the audit log, which must be a chain."""
        chain = Chain(self._context.audit.head().head)
        while page := self._context.audit.page(after=chain.seq, limit=500).entries:
            for entry in page:
                chain.append(entry)
                yield entry
        chain.require_whole()

    def _numbers(self, digest: str) -> np.ndarray:
        return np.frombuffer(self._context.blobs.path(digest).read_bytes()[-4 * PARAMETERS :], dtype="<f4")

    def _reconcile(self) -> None:
        with self._living():
            assert self._context.rounds.reconcile()

    def _act(self, name: str) -> None:
        """Let an agent do what is wanted of it, if anything is."""
        wanted = self._context.rounds.wanted(name)
        with self._living():
            if wanted.summons is not None:
                place, stage = wanted.summons.place, wanted.summons.stage
                message = self._players.all[name].answer(wanted.summons)
                assert self._players.send(name, place, stage, message), self._players.refused
                self._sent.message = name, place, stage, message
                if stage == "masked":
                    self._sent.masked[place.round, place.attempt].add(name)
            elif wanted.assignment is not None and self._secure:
                self._context.attempts.ready(name, RUN, wanted.assignment.round)
            elif wanted.assignment is not None:
                number = wanted.assignment.round
                receipt = submit(self._context, name, _value(name, number), number=number)
                self._sent.receipts[number][name] = receipt

    @contextmanager
    def _living(self) -> Iterator[None]:
        """Start the coordinator again if it dies in the block."""
        try:
            yield
        except Crash:
            self._restart()

    def _restart(self) -> None:
        self._dies_in = 0
        self._close()
        self._open()
        self._players.context = self._context

    def _open(self) -> None:
        self._coordinator = coordinator(Path(self._folder.name), self._clock, agents=FOUR)
        self._context = self._coordinator.__enter__()
        sa.event.listen(self._context.store._engine, "commit", self._before_commit)  # type: ignore[attr-defined]

    def _close(self) -> None:
        self._coordinator.__exit__(None, None, None)

    def _before_commit(self, connection: sa.Connection) -> None:
        """Die, if it is time, with the files of a change and without its rows."""
        if self._dies_in and connection.get_execution_options().get("write", False):
            self._dies_in -= 1
            if not self._dies_in:
                raise Crash


def _value(name: str, number: int) -> float:
    """Return what all numbers of an agent's update of a round are: whole, so that every sum of them is exact."""
    return float(4**number * (1 + FOUR.index(name)))


FEW = settings(max_examples=8, stateful_step_count=30, derandomize=True, deadline=None)
MANY = settings(max_examples=400, stateful_step_count=60, deadline=None)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)])
def test_no_order_of_events_breaks_a_round(how: settings) -> None:
    """Whoever comes, goes, repeats or dies: legal states alone, sums of each update once, or an end with its reason."""
    run_state_machine_as_test(RoundMachine, settings=how)
