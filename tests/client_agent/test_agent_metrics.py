"""What an agent tells its own organisation's Prometheus."""

from pathlib import Path

import httpx
import pytest

from bench.federation import ManualClock
from services.client_agent.status import MOST_CODES, Phase, Status
from services.client_agent.status_page import create_status_page
from shared.errors import Unreachable
from tests.support.agents import ADA
from tests.support.federations import RUN, adapter, federation, terms_of
from tests.support.metrics import value, values

pytestmark = pytest.mark.anyio


async def told(status: Status, host: str = "127.0.0.1:8450") -> httpx.Response:
    """Ask as Prometheus does."""
    page = httpx.ASGITransport(app=create_status_page(status, ADA))
    async with httpx.AsyncClient(transport=page, base_url=f"http://{host}") as http:
        return await http.get("/metrics")


async def test_a_round_is_seen_in_an_agents_metrics(tmp_path: Path, clock: ManualClock) -> None:
    """That it took part, what it sent and fetched, and how long it trained."""
    async with federation(tmp_path, clock) as everybody:
        await everybody.start(RUN, terms_of())
        await everybody.finish(RUN)
        status = everybody.statuses["ada"]
        text = (await told(status)).text
    assert value(text, "fedcollm_agent_rounds_total") == 1
    assert value(text, "fedcollm_agent_sent_bytes_total") == status.sent.bytes > len(adapter(0.0))
    assert value(text, "fedcollm_agent_sent_requests_total") == status.sent.requests
    assert value(text, "fedcollm_agent_received_bytes_total") == status.received_bytes
    assert value(text, "fedcollm_agent_training_steps") == status.trained_steps > 0
    assert values(text, "fedcollm_agent_failures_total") == {}
    assert sum(values(text, "fedcollm_agent_phase").values()) == 1


async def test_what_is_wrong_with_an_agent_is_seen() -> None:
    """A coordinator that does not answer, a step that failed, an audit log that is not to be trusted."""
    status = Status(answered_at=7.0)
    status.enter(Phase.TRAINING)
    status.retrying(Unreachable("nobody there"))
    status.fail("policy_refused", "the cohort is too small")
    status.fail("policy_refused", "the cohort is too small")
    status.audit_broken = "it was cut off"
    text = (await told(status)).text
    assert value(text, "fedcollm_agent_trouble") == 1
    assert value(text, "fedcollm_agent_failures_total", "policy_refused") == 2
    assert value(text, "fedcollm_agent_audit_broken") == 1
    assert value(text, "fedcollm_agent_answered_timestamp_seconds") == 7
    assert value(text, "fedcollm_agent_phase", "failed") == 1
    assert "too small" not in text


async def test_no_coordinator_fills_an_agents_metrics_with_codes() -> None:
    """It could make up a new one each time."""
    status = Status()
    for number in range(MOST_CODES + 10):
        status.fail(f"made-up-{number}", "no")
    failures = values((await told(status)).text, "fedcollm_agent_failures_total")
    assert len(failures) == MOST_CODES + 1
    assert failures["other",] == 10


async def test_no_page_of_the_web_reads_an_agents_metrics() -> None:
    """They are for its own machine, as the page is."""
    assert (await told(Status(), "agent.example")).status_code == 421
