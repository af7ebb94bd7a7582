"""A coordinator with 200 rounds and 1,000 agents, as a process of its own: what it takes, and how long it lets wait."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest

from bench.federation import ManualClock, token_of
from services.coordinator.principals import Role
from services.coordinator.tokens import TokenEntry, TokensFile
from tests.support.seeded import FEDERATION, MORNING, large, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
MOST_BYTES = 150_000_000


@dataclass(frozen=True)
class Serving:
    """The coordinator's process, and a viewer's and an operator's way to it."""

    process: psutil.Process
    http: httpx.Client
    starting_seconds: float

    def all_of(self, path: str, cursor: str) -> int:
        """Read a list to its end, and return in how many pages it came."""
        params: dict[str, str | int] = {}
        for pages in range(1, 1000):
            page = self.http.get(path, params=params).raise_for_status().json()
            if page.get("next") is None:
                return pages
            params = {cursor: page["next"]}
        raise AssertionError(path)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Start it on a folder that was seeded."""
    folder, clock = tmp_path_factory.mktemp("large"), ManualClock(MORNING)
    with opened(folder / "data", clock) as context:
        large(context, clock)
        key = context.settings.operator_key
    entry = TokenEntry.of(token_of("operator"), Role.OPERATOR, not_after=datetime(9999, 1, 1, tzinfo=UTC))
    (folder / "principals.json").write_text(TokensFile({"operator": entry}).model_dump_json())
    settings = {
        "data_dir": str(folder / "data"),
        "principals_file": str(folder / "principals.json"),
        "federation": FEDERATION,
        "operator_key": key,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()] + [
        "port = 0",
        "work_port = 0",
        "requests_per_minute = 100000",
    ]
    (folder / "coordinator.toml").write_text("\n".join(lines))
    began = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "services.coordinator.cli", "coordinator", "--config", str(folder / "coordinator.toml")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None  # what it says fits into the pipe: refusals, of which there are none
        line = next(line for line in process.stderr if "coordinator.serving" in line)
        seconds = time.perf_counter() - began
        address = next(part.partition("=")[2] for part in line.split() if part.startswith("agents="))
        headers = {"FedCoLLM-Protocol": "1", "Authorization": f"Bearer {token_of('operator')}"}
        with httpx.Client(base_url=address, headers=headers) as http:
            yield Serving(psutil.Process(process.pid), http, seconds)
        process.terminate()
        process.stderr.read()


def test_it_starts_in_two_seconds_without_torch(serving: Serving) -> None:
    """However much there is in its store; a library that models need is not even mapped."""
    assert serving.starting_seconds < 2
    assert not [one.path for one in serving.process.memory_maps() if "torch" in one.path]


def test_everything_is_answered_in_pages_and_within_a_second(serving: Serving) -> None:
    """Whatever a page of the dashboard asks for; lists come a hundred items or less at a time."""
    asked = {
        "/v1/federation": None,
        "/v1/presets": None,
        "/v1/runs": "before",
        "/v1/runs/long": None,
        "/v1/runs/long/rounds": "after",
        "/v1/runs/long/rounds/199/card": None,
        "/v1/adapters": "before",
        "/v1/agents": "after",
        "/v1/audit": None,
        "/v1/openapi.json": None,
        "/metrics": None,
    }
    slow = {}
    for path in asked:
        began = time.perf_counter()
        serving.http.get(path).raise_for_status()
        if (seconds := time.perf_counter() - began) >= 1:
            slow[path] = seconds
    assert slow == {}
    pages = {path: serving.all_of(path, cursor) for path, cursor in asked.items() if cursor}
    assert pages == {"/v1/runs": 1, "/v1/runs/long/rounds": 2, "/v1/adapters": 4, "/v1/agents": 10}


def test_it_stays_below_150_megabytes(serving: Serving) -> None:
    """When twelve at once have read every list to its end, made cards and fetched the dashboard, several times."""
    paths = [f"/v1/runs/long/rounds/{number}/card" for number in range(191, 200)]
    paths += ["/v1/federation", "/metrics", "/v1/openapi.json", "/dashboard/plotly.js", "/dashboard/app.js"]
    lists = [("/v1/runs/long/rounds", "after"), ("/v1/adapters", "before"), ("/v1/agents", "after")]
    with ThreadPoolExecutor(12) as at_once:  # as many browsers
        for _ in range(5):
            readings = [at_once.submit(serving.all_of, *each) for each in lists * 4]
            readings += [
                at_once.submit(lambda path: serving.http.get(path).raise_for_status(), path) for path in paths * 4
            ]
            for reading in readings:
                reading.result()
    resident = serving.process.memory_info().rss
    assert resident < MOST_BYTES, f"{resident / 1e6:.0f} MB"
