"""What ``make bench-load`` measures is real: who is lost, whose clock it is, and a run that ends by itself."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.load.agents import Seen
from bench.load.losses import MESSAGES, READY, losses, never_ready
from bench.load.measuring import Measured, Sample
from bench.load.report import told_after, within
from bench.load.stopwatch import Lost, Noted, Stopwatch, Told
from shared.egress import NO_BODY, Egress
from shared.errors import Unreachable
from shared.protocol.messages import Event

NAMES = [f"agent-{place:04}" for place in range(1000)]


def test_as_many_are_lost_as_was_said_at_every_stage_and_others_in_each_round() -> None:
    """Before they are ready it is the same number in all rounds, so that a cohort that leaves them out is full."""
    rounds = [losses(NAMES, 0.2, round_number=number, seed=1) for number in (1, 2, 3)]
    counts = [Counter(lost.values()) for lost in rounds]
    assert [len(lost) for lost in rounds] == [200] * 3
    assert {count[READY] for count in counts} == {never_ready(1000, 0.2)} == {33}
    assert all(count.keys() == set(MESSAGES) for count in counts)
    assert rounds[0] != rounds[1]
    assert rounds[0] == losses(NAMES, 0.2, round_number=1, seed=1)


class Nobody:
    """Signs nothing."""

    def fields(self, _: Egress) -> dict[str, str]:
        """Return nothing."""
        return {}


def ask(watch: Stopwatch, method: str, target: str) -> None:
    """Send a request that is answered at once."""
    watch.fields(Egress(method, target, 0, NO_BODY))
    watch.answered(None)


def test_a_long_poll_is_no_request_whose_time_counts_but_when_it_was_answered_does() -> None:
    """What an agent does next says what it was told; what it fetches in between does not change that."""
    noted = Noted()
    watch = Stopwatch(Nobody(), lambda _number, _name: False, noted)
    ask(watch, "GET", "/v1/wanted?wait_seconds=25")
    ask(watch, "GET", "/v1/runs/load/manifest")
    ask(watch, "PUT", "/v1/runs/load/rounds/2/ready")
    ask(watch, "GET", "/v1/wanted?wait_seconds=25")
    ask(watch, "PUT", "/v1/runs/load/rounds/2/attempts/1/keys")
    assert [(told.round, told.attempt, told.message) for told in noted.told] == [(2, 0, "ready"), (2, 1, "keys")]
    assert {kind: len(seconds) for kind, seconds in noted.requests.items()} == {
        "GET /v1/runs/…/manifest": 1,
        "PUT /v1/runs/…/rounds/…/ready": 1,
        "PUT /v1/runs/…/rounds/…/attempts/…/keys": 1,
    }


def test_whoever_is_lost_sends_nothing_and_whoever_is_not_answered_is_counted() -> None:
    """The message of that stage alone does not leave; a request that is sent again is timed from then on."""
    noted = Noted()
    watch = Stopwatch(Nobody(), lambda number, name: (number, name) == (3, "masked"), noted)
    with pytest.raises(Lost):
        ask(watch, "PUT", "/v1/runs/load/rounds/3/attempts/1/masked")
    ask(watch, "PUT", "/v1/runs/load/rounds/4/attempts/1/masked")
    watch.fields(Egress("GET", "/v1/runs/load/manifest", 0, NO_BODY))
    watch.answered(Unreachable("gone"))
    assert noted.retries == {"unreachable": 1}
    assert list(noted.requests) == ["PUT /v1/runs/…/rounds/…/attempts/…/masked"]


def test_an_agent_is_told_late_from_when_a_stage_began_or_it_asked() -> None:
    """Whoever asks a second after a stage began has not been told a second late."""
    moments = [("round.open", 10.0, {}), ("round.keys", 20.0, {"attempt": 1}), ("round.shares", 30.0, {"attempt": 1})]
    events = [
        Event(seq=place, at=at, kind=kind, round=1, detail=detail) for place, (kind, at, detail) in enumerate(moments)
    ]
    told = (
        Told(1, 0, READY, asked_at=5.0, told_at=10.25),
        Told(1, 1, "keys", asked_at=21.0, told_at=21.5),
        Told(1, 1, "shares", asked_at=22.0, told_at=33.0),
        Told(1, 2, "keys", asked_at=22.0, told_at=33.0),
    )
    measured = Measured(
        agents=1,
        asked_rounds=1,
        ended="finished",
        rounds=(),
        events=tuple(events),
        first=Sample(at=0.0, cpu_seconds=0.0, resident=1),
        samples=(),
        seen=(Seen(requests={}, told=told, retries={}, failures={}, lost=0, sent=0),),
        answered={},
        received=0,
        sent=0,
    )
    assert told_after(measured) == {(1, 0, READY): [0.25], (1, 1, "keys"): [0.5], (1, 1, "shares"): [3.0]}


def test_a_histogram_says_within_what_a_share_was_served() -> None:
    """It is the first bound that holds for that many."""
    assert within({0.1: 90.0, 0.25: 99.0, 0.5: 100.0}, 0.99) == 0.25


@pytest.mark.slow
def test_a_run_of_five_of_which_one_is_lost_is_measured_to_its_end(tmp_path: Path) -> None:
    """Processes as they are, two rounds: both are published, and table, page and figures are written."""
    command = [sys.executable, "-m", "bench.load", "--agents", "5", "--rounds", "2", "--stage-seconds", "3"]
    done = subprocess.run(  # noqa: S603
        [*command, "--minutes", "3", "--out", str(tmp_path)], check=True, capture_output=True, text=True, timeout=280
    )
    (found,) = json.loads((tmp_path / "load.json").read_text())
    assert (found["ended"], found["rounds"], found["lost"] >= 2) == ("finished", 2, True)
    assert found["cpu_milliseconds"] > 0
    assert not found["failures"]
    assert (tmp_path / "load.txt").read_text().strip() in done.stdout
    assert re.search(r"plotly", (tmp_path / "load.html").read_text())
