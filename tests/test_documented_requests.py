"""The table of requests in docs/protocol.md is what the coordinator answers."""

import re
from pathlib import Path

from bench.federation import ManualClock
from services.coordinator.app import create_app
from tests.support.federations import coordinator

SECTION = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text().split("\n## Requests\n")[1].split("\n## ")[0]
ROWS = [line.split("|")[1] for line in SECTION.splitlines() if line.startswith("| `")]


def requests_of(row: str) -> set[str]:
    """Return the requests that a row names; of `/start`, `/pause` the second is the first with another last part."""
    method, first = re.findall(r"`([A-Z]+) ([^`?]+)", row)[0]
    others = re.findall(r"`(/[^`?]+)", row)
    paths = [first, *(f"{first.rpartition('/')[0]}{each}" if each.count("/") == 1 else each for each in others)]
    return {f"{method} {nameless(path)}" for path in paths}


def nameless(path: str) -> str:
    """Return a path whose parameters have no names."""
    return re.sub(r"{\w+}", "{}", path)


def test_the_table_of_requests_is_the_coordinators(tmp_path: Path, clock: ManualClock) -> None:
    """Each request of the public port is in it, and no other."""
    with coordinator(tmp_path, clock) as context:
        described = create_app(context).openapi()["paths"]
    answered = {
        f"{method.upper()} {nameless(path).removeprefix('/v1')}"
        for path, methods in described.items()
        for method in methods
        if path.startswith("/v1/")
    }
    assert set().union(*map(requests_of, ROWS)) == answered
