"""docs/monitoring.md is what the processes really tell Prometheus: every metric, and no other."""

import re
from collections import Counter
from pathlib import Path

import pytest

from bench.federation import ManualClock
from services.client_agent.metrics import agent_registry
from services.client_agent.status import Status
from services.coordinator.worker.metrics import worker_registry
from services.coordinator.worker.tally import Tally
from shared.metrics import exposition, process_registry
from tests.support.federations import begin, client, coordinator, play_round, terms_of
from tests.support.metrics import Described, described

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[1] / "docs" / "monitoring.md").read_text()
HEADINGS = ("Every process", "Coordinator", "Worker", "Agent")
UNITS = {"bytes": "bytes", "seconds": "seconds", "nats": "nats", "ratio": "0 to 1"}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table of metrics under a heading."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    table = section.split("| metric | type | unit | labels | meaning |\n| --- | --- | --- | --- | --- |\n")[1]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.split("\n\n")[0].splitlines()]


def documented(heading: str) -> set[Described]:
    """Return the metrics of a table."""
    return {
        Described(name.strip("`"), kind, frozenset(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, _, labels, meaning in rows(heading)
    }


def names() -> set[str]:
    """Return the names of all metrics that the page has."""
    return {metric.name for heading in HEADINGS for metric in documented(heading)}


def told(text: str | bytes) -> set[Described]:
    """Return the metrics of an exposition, but for those that every process has."""
    text = text if isinstance(text, str) else text.decode()
    return set(described(text)) - set(described(exposition(process_registry()).decode()))


def test_what_every_process_tells_is_in_its_table() -> None:
    """Memory, processor time, open files, and Python's release."""
    assert documented("Every process") == set(described(exposition(process_registry()).decode()))


async def test_what_a_coordinator_tells_is_in_its_table(tmp_path: Path, clock: ManualClock) -> None:
    """With a run that goes on, and each kind of thing counted once."""
    with coordinator(tmp_path, clock) as context:
        begin(context, terms_of(rounds=2))
        play_round(context, 1)
        async with client(context, "viewer") as http:
            await http.get("/v1/runs/none")
            text = (await http.get("/metrics")).text
    assert documented("Coordinator") == told(text)


def test_what_a_worker_tells_is_in_its_table() -> None:
    """With work that was done, and some that could not be."""
    tally = Tally(steps=3, losses={"slm_loss": 1.0})
    tally.finish("cotune", 9.5)
    tally.fail("prepare", "model_unreadable")
    assert documented("Worker") == told(exposition(worker_registry(tally)))


def test_what_an_agent_tells_is_in_its_table() -> None:
    """And no loss is, nor anything that names data."""
    status = Status(answered_at=9.0, mean_loss=0.123, failures=Counter(policy_refused=1))
    text = exposition(agent_registry(status)).decode()
    assert documented("Agent") == told(text)
    assert "0.123" not in text


@pytest.mark.parametrize("heading", HEADINGS)
def test_units_are_the_names_last_words(heading: str) -> None:
    """A unit that has a name is in the metric's own, as Prometheus wants it; the rest are counts."""
    for name, kind, unit, *_ in rows(heading):
        word = name.strip("`").removesuffix("_total").rpartition("_")[2]
        assert unit == ("seconds since 1970" if "timestamp" in name or "start_time" in name else UNITS.get(word, "")), (
            name
        )
        assert (kind == "counter") == name.strip("`").endswith("_total"), name
