import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import IllegalTransition
from shared.protocol.rounds import (
    ENDED_ROUNDS,
    ENDED_RUNS,
    ROUND_TRANSITIONS,
    RUN_TRANSITIONS,
    RoundEvent,
    RoundState,
    RunEvent,
    RunState,
    Verdict,
    advance,
    data_seed,
    verdict,
)

TABLES: dict[str, tuple[Mapping[Any, Any], Any, Any, frozenset[Any], Any]] = {
    "run": (RUN_TRANSITIONS, RunState, RunEvent, ENDED_RUNS, RunState.DRAFT),
    "round": (ROUND_TRANSITIONS, RoundState, RoundEvent, ENDED_ROUNDS, RoundState.OPEN),
}
whats = pytest.mark.parametrize("what", TABLES)


@whats
def test_only_the_tables_transitions_happen(what: str) -> None:
    """Each pair of state and event either leads where the table says or raises; there is no third way."""
    table, states, events, _, _ = TABLES[what]
    for state, event in itertools.product(states, events):
        if (state, event) in table:
            assert advance(table, state, event, what) is table[state, event]
        else:
            with pytest.raises(IllegalTransition, match=f"{what} is {state.value} and cannot {event.value}"):
                advance(table, state, event, what)


@whats
def test_what_has_ended_never_moves_again(what: str) -> None:
    """An ended state is one that no event leaves."""
    table, states, _, ended, _ = TABLES[what]
    assert ended == {state for state in states if not any(at == state for at, _ in table)}


@whats
def test_every_state_can_be_reached_and_can_reach_an_end(what: str) -> None:
    """No state is a trap, and none is dead."""
    table, states, _, ended, first = TABLES[what]

    def reachable(start: Any) -> set[Any]:  # noqa: ANN401 - runs and rounds
        seen, todo = {start}, [start]
        while todo:
            at = todo.pop()
            following = {after for (state, _), after in table.items() if state == at} - seen
            seen |= following
            todo += following
        return seen

    assert reachable(first) == set(states)
    for state in states:
        assert reachable(state) & ended


@given(st.lists(st.sampled_from(list(RoundEvent)), max_size=8))
def test_whatever_happens_to_a_round_it_is_published_after_evaluation_only(events: list[RoundEvent]) -> None:
    """No order of events, legal or not, publishes a round that was not evaluated."""
    state, path = RoundState.OPEN, [RoundState.OPEN]
    for event in events:
        before = state
        try:
            state = advance(ROUND_TRANSITIONS, state, event, "round")
        except IllegalTransition:
            assert state is before
        else:
            path.append(state)
    if RoundState.PUBLISHED in path:
        assert path == [
            RoundState.OPEN,
            RoundState.AGGREGATED,
            RoundState.COTUNING,
            RoundState.EVALUATING,
            RoundState.PUBLISHED,
        ]


def test_every_round_can_be_aborted_until_it_has_ended() -> None:
    """Whatever goes wrong, wherever, there is a way out with a reason."""
    for state in set(RoundState) - ENDED_ROUNDS:
        assert ROUND_TRANSITIONS[state, RoundEvent.ABORT] is RoundState.ABORTED
        assert ROUND_TRANSITIONS[state, RoundEvent.REFUSE] is RoundState.REFUSED


def test_a_message_about_an_illegal_event_says_what_is_possible() -> None:
    """An operator reads what can be done instead."""
    with pytest.raises(IllegalTransition, match="from here it can fail, start"):
        advance(RUN_TRANSITIONS, RunState.DRAFT, RunEvent.PAUSE, "run x")
    with pytest.raises(IllegalTransition, match="it has ended"):
        advance(RUN_TRANSITIONS, RunState.FINISHED, RunEvent.START, "run x")


@pytest.mark.parametrize(
    ("count", "seconds", "expected"),
    [
        (0, 0, Verdict.WAIT),
        (1, 29.9, Verdict.WAIT),
        (2, 9.9, Verdict.WAIT),  # enough, but stragglers have ten seconds
        (2, 10.0, Verdict.CLOSE),
        (1, 10.0, Verdict.WAIT),
        (3, 29.9, Verdict.CLOSE),
        (4, 0, Verdict.CLOSE),  # all are in: nobody to wait for
        (5, 0, Verdict.CLOSE),
        (1, 30.0, Verdict.GIVE_UP),
        (2, 30.0, Verdict.CLOSE),  # the last moment is still good enough
        (4, 99.0, Verdict.CLOSE),
        (0, 99.0, Verdict.GIVE_UP),
    ],
)
def test_a_phase_closes_by_count_and_time(count: int, seconds: float, expected: Verdict) -> None:
    """At once with the maximum, after the least time with the minimum, never with fewer."""
    assert verdict(count, seconds, min_count=2, max_count=4, min_seconds=10, max_seconds=30) is expected


@given(st.integers(0, 10), st.floats(0, 100), st.integers(1, 5), st.integers(0, 5), st.floats(0, 50), st.floats(0, 50))
def test_a_phase_never_closes_with_too_few_and_never_waits_for_ever(
    count: int, seconds: float, least: int, more: int, soonest: float, longer: float
) -> None:
    """Closing takes the minimum count, and after the longest time there is always a verdict."""
    said = verdict(
        count,
        seconds,
        min_count=least,
        max_count=least + more,
        min_seconds=soonest,
        max_seconds=soonest + longer,
    )
    assert said is not Verdict.CLOSE or count >= least
    assert said is not Verdict.GIVE_UP or count < least
    assert said is not Verdict.WAIT or seconds < soonest + longer


@given(st.integers(0, 2**63 - 1), st.integers(1, 10**6), st.text(max_size=20))
def test_seeds_differ_by_run_seed_round_and_party(given: int, number: int, party: str) -> None:
    """No two parties, rounds or runs share a data order, whatever seed the runs were given."""
    seed = data_seed("run", given, number, party)
    assert seed == data_seed("run", given, number, party)
    assert 0 <= seed < 2**63
    others = {
        data_seed("other", given, number, party),
        data_seed("run", given + 1, number, party),
        data_seed("run", given, number + 1, party),
        data_seed("run", given, number, f"{party}x"),
    }
    assert len(others - {seed}) == 4
