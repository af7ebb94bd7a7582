"""What the demo shows while it goes on."""

from io import StringIO
from pathlib import Path

from rich.console import Console

from bench.federation import ManualClock
from examples.demo.display import Agents
from examples.demo.watching import Watched
from services.client_agent.status import Phase, Status
from services.coordinator.cli.following import Followed
from services.coordinator.cli.live_view import LiveView
from tests.support.federations import RUN, begin, coordinator, events_of, run_of


def test_a_small_terminal_has_room_for_agents_rounds_and_events(tmp_path: Path, clock: ManualClock):
    """Nothing is cut at 80 columns, not even what an agent says of its trouble; the newest event is the last row."""
    with coordinator(tmp_path, clock) as context:
        begin(context)
        followed = Followed(
            run=run_of(context), rounds=tuple(context.lifecycle.rounds(RUN).rounds), events=events_of(context)
        )
    training, failed = Status(), Status()
    training.enter(Phase.TRAINING, run_id=RUN, round_number=1)
    training.advance(30, 60, 1.5)
    failed.fail("data_empty", "there is no example in the file that agent.toml names")
    watched = Watched(followed=followed, agents={"agent-1": training.view(), "agent-2": failed.view()})
    file = StringIO()
    screen = Console(file=file, force_terminal=True, color_system=None, width=80, height=30, legacy_windows=False)
    screen.print(LiveView(watched.followed, Agents(watched)), end="")
    rows = file.getvalue().splitlines()
    assert len(rows) < 30
    assert max(len(row) for row in rows) <= 80
    assert "…" not in file.getvalue()
    assert "0 of 2 updates" in rows[2]
    assert any(row.startswith("agent-1   training") for row in rows)
    assert "round.open round 1" in rows[-1]
