"""Every byte that agents send over sockets in a whole run is found in their ledgers."""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bench.round import SETTINGS, Setting
from bench.round_processes import SLM_LAYOUT
from examples.demo.processes import Address, LocalFederation, local_federation
from services.client_agent.egress_ledger import Entry, ledger_folder, months, read
from services.client_agent.holdout_report import RoundReport, reports
from services.coordinator.certificates import serving_tls
from services.coordinator.cli.tls import CERTIFICATE, KEY
from shared.egress import NO_BODY
from shared.protocol.messages import EventList, RunView
from shared.protocol.rounds import ENDED_RUNS, RunState
from shared.protocol.tensors import parameter_count
from shared.protocol.terms import RunTerms
from shared.transport import Transport
from shared.trust import trusting
from tests.support.tapped import Seen, Tap, tapped

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(100)]

COMMAND = [sys.executable, "-m", "bench.round_processes"]
RUN = "/v1/runs/bench"
ROUNDS = 2

# Every kind of request that an agent makes in a run, by how updates are added up.
KINDS = {
    "PlaintextAggregation": {"leave", "question", "manifest", "adapter", "card", "aggregate", "update"},
    "SecureAggregation": {
        *("leave", "question", "manifest", "adapter", "card", "aggregate", "ready"),
        *("keys", "shares", "masked", "consistency", "unmasking"),
    },
}


@pytest.fixture(autouse=True)
def _no_waiting_between_retries() -> None:
    """Wait between retries here: the processes take real time to come."""


async def published(federation: LocalFederation, operator: Transport, terms: RunTerms) -> str:
    """Play the run, and return the digest of the adapter that it has published last."""
    await operator.call("PUT", RUN, RunView, body=terms)
    await operator.call("POST", f"{RUN}/start", RunView)
    await federation.sign(operator, "bench", terms)
    after = 0
    while (run := await operator.call("GET", RUN, RunView)).state not in ENDED_RUNS:
        page = await operator.call("GET", f"{RUN}/events", EventList, params={"after": after, "wait_seconds": 10})
        after = page.last
    assert run.state is RunState.FINISHED, run.reason
    assert run.published is not None
    return run.published.digest.removeprefix("sha256:")


async def until_it_waits(tap: Tap, folder: Path, holding: str) -> None:
    """Wait until an agent holds the adapter, has asked what is wanted next, and has measured all that there is."""
    while not any(holding in request.target and "/wanted?" in request.target for request in tap.requests()):
        await asyncio.sleep(0.1)
    while not (shown := [run.shown for run in reports(folder).runs]) or shown[0] is None or not _is_whole(shown[0]):
        await asyncio.sleep(0.1)


def _is_whole(one: RoundReport) -> bool:
    return one.round == ROUNDS and one.aggregate is not None and one.gain is not None


def written(folder: Path) -> list[Entry]:
    """Return an agent's ledger, which must be as it was written."""
    entries = list(read(months(ledger_folder(folder))))
    assert all(isinstance(entry, Entry) for entry in entries)
    return entries


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.aggregation)
async def test_the_ledgers_have_every_byte_of_a_run(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As many requests, each with the same request line, sizes and digest, and together as many bytes.

    Each agent has a hold-out, of whose report nothing leaves, and no more than the question for the aggregate.
    """
    monkeypatch.setenv("FEDCOLLM_AGENT_HOLDOUT__PATH", os.devnull)
    monkeypatch.setenv("FEDCOLLM_AGENT_POLICY__ALLOW_SHARED_AGGREGATE", "true")
    terms = setting.terms(ROUNDS).model_copy(update={"share_aggregate": True})
    async with local_federation(tmp_path, setting.agents) as federation:
        with ExitStack() as stack:
            # What the coordinator shows, an organisation's proxy would show that opens TLS.
            shows = serving_tls(federation.ca_file.with_name(CERTIFICATE), federation.ca_file.with_name(KEY))
            opening = {"shows": shows, "trusts": trusting(federation.ca_file)}
            taps = {name: stack.enter_context(tapped(federation.public.port, **opening)) for name in setting.agents}
            await federation.start_coordinator()
            async with federation.operator() as operator:
                nothing = Path(os.devnull)
                await federation.start_worker([*COMMAND, "worker"], auxiliary=nothing, validation=nothing)
                for name, tap in taps.items():
                    behind = replace(federation, public=Address(tap.port, tap.scheme))
                    await behind.start_agent(name, [*COMMAND, "agent"], slm="none", data=nothing, allow_plaintext=True)
                digest = await published(federation, operator, terms)
                for name, tap in taps.items():
                    await until_it_waits(tap, tmp_path / name, digest)
                    agent = federation.processes.running.pop(name)
                    agent.send_signal(signal.SIGTERM)
                    await agent.wait()

    for name, tap in taps.items():
        entries = written(tmp_path / name)
        told = [
            Seen(entry.method, entry.target, entry.head_bytes, entry.body_bytes, entry.digest or NO_BODY)
            for entry in entries
        ]
        assert Counter(told) == Counter(tap.requests())
        assert sum(entry.head_bytes + entry.body_bytes for entry in entries) == tap.bytes
        assert {entry.to for entry in entries} == {tap.url}
        assert {entry.kind for entry in entries} == KINDS[setting.aggregation]
        # What left in bodies is the updates, or the masked vectors, once each, and little more.
        sent = [entry.body_bytes for entry in entries if entry.body_bytes >= 4 * parameter_count(SLM_LAYOUT)]
        assert len(sent) == ROUNDS
        assert tap.bytes < 1.01 * sum(sent)
