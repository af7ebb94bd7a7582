"""What makes a worker of its settings."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from bench.federation import token_of
from services.coordinator.app import create_work_app
from services.coordinator.context import Context
from services.coordinator.worker.service import serve
from services.coordinator.worker.settings import Settings
from tests.support.cotuners import AddingCoTuner
from tests.support.federations import LLM_LAYOUT, RUN, SLM_LAYOUT, kinds, terms_of
from tests.support.served import served

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", [None, "gpu-1"])
async def test_a_worker_has_a_name_of_its_own(name: str | None, context: Context, tmp_path: Path) -> None:
    """Two that share a token and a name would be given the same work: unless it is set, no other process has it."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    (tmp_path / "token").write_text(token_of("worker"))
    with served(create_work_app(context)) as port:
        settings = Settings(
            coordinator_url=f"http://127.0.0.1:{port}",
            token_file=tmp_path / "token",
            cache_dir=tmp_path / "cache",
            auxiliary={"path": os.devnull},
            validation={"path": os.devnull},
            name=name,
        )
        working = asyncio.create_task(serve(settings, AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT)))
        while "work.leased" not in kinds(context):
            await asyncio.sleep(0)
        working.cancel()
        await working
    (leased,) = (event for event in context.lifecycle.events(RUN, after=0) if event.kind == "work.leased")
    assert leased.detail["worker"] == (name or f"{socket.gethostname()}-{os.getpid()}")
