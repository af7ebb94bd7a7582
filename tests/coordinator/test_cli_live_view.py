"""What `fedcollm runs watch` shows on a terminal, whatever the terminal's size."""

from io import StringIO

import pytest
from rich.console import Console

from services.coordinator.cli.following import Followed
from services.coordinator.cli.live_view import LiveView
from services.coordinator.context import Context
from shared.errors import Unreachable
from shared.protocol.messages import Event
from tests.support.federations import RUN, begin, events_of, play_round, run_of, terms_of

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
    return Followed(run=run_of(context), rounds=tuple(context.lifecycle.rounds(RUN).rounds), events=events_of(context))


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
    assert "round 31: 0 of 2 updates; " in text
    assert "did not answer" in text
    assert "zero-shot" in text
    assert any(row.split()[:2] == ["31", "open"] for row in rows)
    assert any(row.split()[:6] == ["30", "refused", "2", "50.0", "%", "50.0"] for row in rows)
    assert "round.open round 31" in rows[-1]


def test_a_line_that_is_long_goes_on_in_the_next_row(long_run: Followed):
    """A refused round's reason, and what the coordinator's absence is told by, are read to their ends."""
    text = " ".join(" ".join(shown(long_run, 80, 40)).split())
    assert "…" not in text
    assert "more than the gate's tolerance of 0 below it" in text
    assert text.count("is it there?") == 9


def test_an_event_that_alone_is_too_long_is_shown_as_far_as_there_is_room(context: Context):
    """A worker's whole story does not push the rounds off the screen."""
    begin(context)
    known = followed(context)
    known.events.append(Event(seq=99, at=0.0, kind="work.returned", round=1, detail={"reason": "word " * 900}))
    rows = shown(known, 80, 24)
    assert len(rows) < 24
    assert any("work.returned round 1" in row for row in rows)
    assert any(row.split()[:2] == ["1", "open"] for row in rows)
