"""Debian's Prometheus with a federation of real processes: it fetches from all three, and knows the rules."""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.demo.processes import LocalFederation, free_ports, local_federation
from services.coordinator.principals import Role
from services.coordinator.tokens import TokensFile, issue, read_entries
from shared.cli.files_written import write_private
from tests.monitoring.test_alerts import RULES
from tests.support.prometheus import FOLDER, needs_prometheus, prometheus, queries
from tests.test_documented_metrics import PAGE, names

pytestmark = [pytest.mark.slow, needs_prometheus, pytest.mark.anyio]

AGENT = "clinic"


@pytest.fixture(autouse=True)
def _no_waiting_between_retries() -> None:
    """Wait between retries here: processes take real time to come."""


def viewer_of(federation: LocalFederation) -> Path:
    """Give Prometheus a token of its own, and return the file that has it."""
    token, entry = issue(Role.VIEWER)
    principals = federation.folder / "principals.json"
    write_private(principals, TokensFile({**read_entries(principals), "prometheus": entry}).model_dump_json())
    write_private(federation.folder / "tokens" / "prometheus", token)
    return federation.folder / "tokens" / "prometheus"


def configuration(federation: LocalFederation, *, token: Path, worker_port: int) -> Path:
    """Write what docker/monitoring and the page say, for the ports and files of this machine, and every second."""
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (agents,) = re.findall(r"```yaml\n# prometheus.yml of an organisation\n(.*?)```", PAGE, re.DOTALL)
    config["scrape_configs"] += yaml.safe_load(agents)["scrape_configs"]
    coordinator, worker, agent = config["scrape_configs"]
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    coordinator["tls_config"]["ca_file"] = str(federation.ca_file)
    coordinator["authorization"]["credentials_file"] = str(token)
    for job, port in (
        (coordinator, federation.public.port),
        (worker, worker_port),
        (agent, federation.agents[AGENT].port),
    ):
        job["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    file = federation.folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    return file


async def test_prometheus_fetches_from_every_process_and_has_the_rules(tmp_path: Path) -> None:
    """Over TLS and with a viewer's token from the coordinator; one that goes away is noticed."""
    (worker_port,) = free_ports(1)
    async with local_federation(tmp_path, [AGENT]) as federation:
        token = viewer_of(federation)
        await federation.start_coordinator()
        with_metrics = ["env", f"FEDCOLLM_WORKER_METRICS_PORT={worker_port}", sys.executable]
        worker = [*with_metrics, "-m", "services.coordinator.worker"]
        await federation.start_worker(worker, auxiliary=Path(os.devnull), validation=Path(os.devnull))
        agent = [sys.executable, "-m", "bench.round_processes", "agent"]
        await federation.start_agent(AGENT, agent, slm="none", data=Path(os.devnull))
        config = configuration(federation, token=token, worker_port=worker_port)
        with prometheus(config, tmp_path / "tsdb") as server:
            for job in ("coordinator", "worker", "agent"):
                server.until(f'up{{job="{job}"}} == 1')
            loaded = [rule["name"] for group in server.ask("rules")["groups"] for rule in group["rules"]]
            assert sorted(loaded) == sorted(rule["alert"] for rule in RULES)
            assert server.value('fedcollm_agents{state="approved"}') == 1
            server.until("fedcollm_agent_answered_timestamp_seconds > 0")
            server.until('fedcollm_http_requests_total{route="/metrics", status="2xx"} > 0')
            fetched = set(server.ask("label/__name__/values"))
            suffixes = r"_(bucket|count|sum)$"
            ours = {re.sub(suffixes, "", name) if name not in names() else name for name in fetched}
            assert {name for name in ours if name.startswith("fedcollm_")} <= names()

            for query in queries():
                server.ask("query", query=query)

            federation.processes.running["coordinator"].send_signal(signal.SIGTERM)
            await federation.processes.running["coordinator"].wait()
            server.until('up{job="coordinator"} == 0')
            server.until('ALERTS{alertname="CoordinatorDown", alertstate="pending"}')
