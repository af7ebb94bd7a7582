"""Debian's Prometheus: its checks, and a server of it on this machine."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.demo.processes import free_ports

FOLDER = Path(__file__).parents[2] / "docker" / "monitoring"
DASHBOARD = FOLDER / "grafana.json"

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="Debian's package `prometheus`, which has promtool, is not installed"
)


def queries() -> list[str]:
    """Return the dashboard's queries; what Grafana puts into them is five minutes here."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "5m") for query in asked]


def promtool(*arguments: str | Path) -> str:
    """Call promtool, which must be content, and return what it says."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Server:
    """A Prometheus that runs."""

    http: httpx.Client

    def ask(self, path: str, **params: str) -> Any:  # noqa: ANN401 - JSON
        """Return what its API answers."""
        answer = self.http.get(f"/api/v1/{path}", params=params)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def value(self, query: str) -> float | None:
        """Return the one value of a query's, if there is one."""
        result = self.ask("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None

    def until(self, query: str, *, seconds: float = 30) -> None:
        """Wait until a query has a value."""
        ends = time.monotonic() + seconds
        while self.value(query) is None:
            assert time.monotonic() < ends, f"{query}: {self.ask('targets')['activeTargets']}"
            time.sleep(0.1)


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[Server]:
    """Run a Prometheus by this configuration while the block runs; its data goes into ``folder``."""
    (port,) = free_ports(1)
    options = {"config.file": config, "storage.tsdb.path": folder, "web.listen-address": f"127.0.0.1:{port}"}
    with (config.parent / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            ["prometheus", *(f"--{name}={value}" for name, value in options.items())],  # noqa: S607
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(retries=5)) as http:
            while not _is_ready(http):
                assert process.poll() is None, (config.parent / "prometheus.log").read_text()
                time.sleep(0.1)
            yield Server(http)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").is_success
    except httpx.TransportError:
        return False
