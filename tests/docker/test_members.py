"""What lets the demo's agents in, once the coordinator of its containers serves."""

import shutil
import time
from pathlib import Path

import pytest

from examples.demo import bootstrap
from examples.demo.members import admit_all
from examples.demo.preset import AGENTS
from services.coordinator.app import create_app
from services.coordinator.context import open_context
from services.coordinator.settings import Settings
from services.coordinator.tokens import TokenFile
from shared.configuration import read_settings
from shared.key_file import read_key
from shared.protocol.membership import MemberState
from tests.support.members import member
from tests.support.served import served

pytestmark = pytest.mark.anyio


async def test_every_agent_is_let_in_with_the_key_that_it_has(tmp_path: Path):
    """Once; after its volume was lost, with its new key; and all of them by a coordinator that has lost everything."""
    bootstrap.bootstrap(tmp_path)
    assert await admitted(tmp_path) == list(AGENTS)
    assert await admitted(tmp_path) == []
    shutil.rmtree(tmp_path / AGENTS[1])
    bootstrap.bootstrap(tmp_path)
    assert await admitted(tmp_path) == [AGENTS[1]]
    shutil.rmtree(tmp_path / "coordinator")
    bootstrap.bootstrap(tmp_path)
    assert await admitted(tmp_path) == list(AGENTS)


async def admitted(folder: Path) -> list[str]:
    """Serve the coordinator as its container does, let the agents in, and return who was not."""
    settings = read_settings(Settings, folder / "coordinator" / "coordinator.toml")
    tokens = TokenFile(settings.principals_file)
    with open_context(settings, tokens, time.time) as context, served(create_app(context)) as port:
        let_in = await admit_all(folder, f"http://127.0.0.1:{port}")
        for name in AGENTS:
            known = member(context, name)
            assert (known.state, known.key) == (MemberState.APPROVED, read_key(folder / name / "agent.key").public)
    return let_in
