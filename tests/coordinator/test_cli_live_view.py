"""What `fedcollm runs watch` shows on a terminal, whatever the terminal's size."""

from io import StringIO

import pytest
from rich.console import Console

from services.coordinator.cli.following import Followed
from services.coordinator.cli.live_view import LiveView, phase
from services.coordinator.context import Context
from shared.errors import Unreachable
from shared.protocol.messages import Event
from tests.support.federations import RUN, begin, play_round, run_of, submit, terms_of, work

SIZES = [(80, 24), (120, 40), (60, 14), (40, 8), (20, 5)]


def shown(followed: Followed, width: int, height: int) -> list[str]:
    """The rows on a terminal of this size."""
    screen = StringIO()
    console = Console(
        file=screen, force_terminal=True, color_system=None, width=width, height=height, legacy_windows=False
    )
    console.print(LiveView(followed), end="")
    return screen.getvalue().splitlines()


def followed(context: Context) -> Followed:
    """What is known of the run now."""
    events = [
        Event(seq=e.seq, at=e.at, kind=e.kind, round=e.round, detail=e.detail)
        for e in context.lifecycle.events(RUN, after=0)
    ]
    return Followed(run=run_of(context), rounds=tuple(context.lifecycle.rounds(RUN)), events=events)


@pytest.fixture
def long_run(context: Context) -> Followed:
    """A run with more rounds and events than fit on any screen, and a coordinator that has just gone."""
    begin(context, terms_of(rounds=60))
    for number in range(1, 31):
        play_round(context, number, loss=2.0 if number % 3 == 0 else 1.0)
    known = followed(context)
    known.trouble = Unreachable("http://127.0.0.1:1/v1/runs/run/events did not answer: " + "is it there? " * 9)
    return known


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_view_is_never_wider_or_taller_than_the_terminal(long_run: Followed, width: int, height: int):
    """And the cursor has a row of its own."""
    rows = shown(long_run, width, height)
    assert len(rows) < height
    assert max(len(row) for row in rows) <= width
    assert RUN in rows[0]


def test_the_view_shows_what_is_newest(long_run: Followed):
    """Progress, phase, trouble, the newest rounds with their scores, the newest events."""
    rows = shown(long_run, 80, 24)
    text = "\n".join(rows)
    assert "20 of 60 rounds published" in text
    assert "round 31: agents train and send, 0 of 2 updates (1 suffice)" in text
    assert "did not answer" in text
    assert "zero-shot" in text
    assert any(row.split()[:2] == ["31", "open"] for row in rows)
    assert any(row.split()[:6] == ["30", "refused", "2", "50.0", "%", "50.0"] for row in rows)
    assert "round.open round 31" in rows[-1]


def test_the_phase_says_what_is_waited_for(context: Context):
    """From draft to end, in words that an operator acts on."""

    def told(now: float = 0.0) -> str:
        return phase(run_of(context), context.lifecycle.rounds(RUN), now=now)

    context.lifecycle.create(RUN, terms_of(), actor="operator")
    assert told() == "a draft: `fedcollm runs start run` starts it"
    context.lifecycle.start(RUN, actor="operator")
    assert told() == "a worker loads and evaluates both models"
    work(context)
    [opened] = context.lifecycle.rounds(RUN)
    submit(context, "ada")
    assert told(opened.opened_at + 65) == "round 1: agents train and send, 1 of 2 updates (1 suffice)  1:05"
    submit(context, "bob")
    context.rounds.reconcile()
    assert told().startswith(("round 1: wait for the worker", "round 1: co-tuning"))
    context.lifecycle.pause(RUN, actor="operator")
    assert told() == "paused: `fedcollm runs start run` lets it go on"
    context.lifecycle.cancel(RUN, "enough", actor="operator")
    assert told() == "stopped: enough"
