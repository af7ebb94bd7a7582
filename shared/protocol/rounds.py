"""Runs and rounds as two tables, and the rule by which a round closes.

Everything that decides a state lives in this file; nothing here reads a clock, a disk or a socket, and nothing
here knows whether it runs in the coordinator or in a test. An event that the table does not have raises and
changes nothing (docs/protocol.md, "States").
"""

import hashlib
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import TypeVar

from shared.errors import IllegalTransition

FAILED_ROUNDS_THAT_FAIL_A_RUN = 3

# How the reason of a run begins that its operator has ended: it is failed as any other, and yet no failure.
STOPPED = "stopped: "


class RunState(StrEnum):
    """Where a run is."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"


class RunEvent(StrEnum):
    """What can happen to a run."""

    START = "start"
    PAUSE = "pause"
    FINISH = "finish"
    FAIL = "fail"


class RoundState(StrEnum):
    """Where a round is."""

    OPEN = "open"
    KEYS = "keys"
    SHARES = "shares"
    MASKED = "masked"
    CONSISTENCY = "consistency"
    UNMASKING = "unmasking"
    AGGREGATED = "aggregated"
    COTUNING = "cotuning"
    EVALUATING = "evaluating"
    PUBLISHED = "published"
    REFUSED = "refused"
    ABORTED = "aborted"


class RoundEvent(StrEnum):
    """What can happen to a round."""

    GATHER = "gather"
    DEAL = "deal"
    MASK = "mask"
    CONFIRM = "confirm"
    UNMASK = "unmask"
    RETRY = "retry"
    WEIGH = "weigh"
    AGGREGATE = "aggregate"
    COTUNE = "cotune"
    EVALUATE = "evaluate"
    PUBLISH = "publish"
    REFUSE = "refuse"
    ABORT = "abort"


RUN_TRANSITIONS: Mapping[tuple[RunState, RunEvent], RunState] = {
    (RunState.DRAFT, RunEvent.START): RunState.RUNNING,
    (RunState.DRAFT, RunEvent.FAIL): RunState.FAILED,
    (RunState.RUNNING, RunEvent.PAUSE): RunState.PAUSED,
    (RunState.RUNNING, RunEvent.FINISH): RunState.FINISHED,
    (RunState.RUNNING, RunEvent.FAIL): RunState.FAILED,
    (RunState.PAUSED, RunEvent.START): RunState.RUNNING,
    (RunState.PAUSED, RunEvent.FAIL): RunState.FAILED,
}

# The stages of an attempt, each named for the messages that it takes; the plaintext mode has none of them.
STAGES = (RoundState.KEYS, RoundState.SHARES, RoundState.MASKED, RoundState.CONSISTENCY, RoundState.UNMASKING)

ROUND_TRANSITIONS: Mapping[tuple[RoundState, RoundEvent], RoundState] = {
    (RoundState.OPEN, RoundEvent.GATHER): RoundState.KEYS,
    (RoundState.KEYS, RoundEvent.DEAL): RoundState.SHARES,
    (RoundState.SHARES, RoundEvent.MASK): RoundState.MASKED,
    (RoundState.MASKED, RoundEvent.CONFIRM): RoundState.CONSISTENCY,
    (RoundState.CONSISTENCY, RoundEvent.UNMASK): RoundState.UNMASKING,
    # Before anything is unmasked an attempt may fail and be made again with fresh keys; afterwards never.
    **{(stage, RoundEvent.RETRY): RoundState.OPEN for stage in STAGES[:-1]},
    # The sum of the counts is known: now the updates, weighted by it.
    (RoundState.UNMASKING, RoundEvent.WEIGH): RoundState.KEYS,
    (RoundState.UNMASKING, RoundEvent.AGGREGATE): RoundState.AGGREGATED,
    (RoundState.OPEN, RoundEvent.AGGREGATE): RoundState.AGGREGATED,
    (RoundState.AGGREGATED, RoundEvent.COTUNE): RoundState.COTUNING,
    (RoundState.COTUNING, RoundEvent.EVALUATE): RoundState.EVALUATING,
    (RoundState.EVALUATING, RoundEvent.PUBLISH): RoundState.PUBLISHED,
    **{
        (state, event): ended
        for state in RoundState
        if state not in {RoundState.PUBLISHED, RoundState.REFUSED, RoundState.ABORTED}
        for event, ended in ((RoundEvent.REFUSE, RoundState.REFUSED), (RoundEvent.ABORT, RoundState.ABORTED))
    },
}

ENDED_ROUNDS = frozenset({RoundState.PUBLISHED, RoundState.REFUSED, RoundState.ABORTED})
ENDED_RUNS = frozenset({RunState.FINISHED, RunState.FAILED})

State = TypeVar("State", RunState, RoundState)
Event = TypeVar("Event", RunEvent, RoundEvent)


def advance(table: Mapping[tuple[State, Event], State], state: State, event: Event, what: str) -> State:
    """Return the state after ``event``; ``what`` names the run or round in the message.

    Raises:
        IllegalTransition: the table has no such event in this state.
    """
    if (state, event) not in table:
        possible = sorted(known.value for at, known in table if at == state)
        raise IllegalTransition(
            f"{what} is {state.value} and cannot {event.value}; "
            + (f"from here it can {', '.join(possible)}" if possible else "it has ended")
        )
    return table[state, event]


class Verdict(StrEnum):
    """What the closing rule says of a phase."""

    WAIT = "wait"
    CLOSE = "close"
    GIVE_UP = "give_up"


def verdict(
    count: int, elapsed_seconds: float, *, min_count: int, max_count: int, min_seconds: float, max_seconds: float
) -> Verdict:
    """Return whether a phase with ``count`` accepted messages closes (docs/protocol.md step 5).

    It closes at once when ``max_count`` have come; it waits ``min_seconds`` for stragglers, and from then on closes
    with ``min_count``; after ``max_seconds`` with fewer it gives up.
    """
    if count >= max_count:
        return Verdict.CLOSE
    if elapsed_seconds >= min_seconds and count >= min_count:
        return Verdict.CLOSE
    if elapsed_seconds >= max_seconds:
        return Verdict.GIVE_UP
    return Verdict.WAIT


def sample_of(members: Collection[str], count: int, *, run_id: str, run_seed: int, round_number: int) -> list[str]:
    """Return the ``count`` members that a round asks, by name: those with the smallest hashes of run, round and name.

    Nobody draws them: whoever knows the members and the run's terms finds the same ones (docs/adr/0024).
    """

    def place(name: str) -> tuple[bytes, str]:
        return hashlib.sha256(f"sample/{run_id}/{run_seed}/{round_number}/{name}".encode()).digest(), name

    return sorted(sorted(members, key=place)[:count])


def data_seed(run_id: str, run_seed: int, round_number: int, party: str) -> int:
    """Return the seed of a party's data order, dropout and rounding in a round: no two rounds of any runs share one.

    It hashes the run's id too: the same terms signed again under another id do not have the same updates summed again.
    """
    digest = hashlib.sha256(f"{run_id}/{run_seed}/{round_number}/{party}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
