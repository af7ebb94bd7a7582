"""An agent that sends what it must not, in the middle of an attempt: told why, named, and no loss to the others."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from bench.federation import Federation, ManualClock
from bench.no_op import shift_of
from services.coordinator.app import create_app
from shared.egress import Egress
from shared.errors import RemoteProblem
from shared.protocol.digests import DIGEST_FIELD, digest_of, to_field
from shared.protocol.messages import PROTOCOL_FIELD, Accepted
from shared.protocol.rounds import RoundState, RunState, data_seed
from shared.protocol.secagg.coding import SLOTS
from shared.protocol.tensors import parameter_count
from tests.federation.test_secure_aggregation import aggregate_of, round_of, round_of_or_none
from tests.support.federations import RUN, SLM_LAYOUT, federation, terms_of
from tests.support.players import FOUR, SECURE
from tests.support.requests import partial_files

pytestmark = pytest.mark.anyio

MASKED = f"/v1/runs/{RUN}/rounds/1/attempts/1/masked"
LENGTH = 4 * (parameter_count(SLM_LAYOUT) + SLOTS)


async def masking(opened: Federation) -> None:
    """Step until masked vectors are what is wanted."""
    await opened.start(RUN, terms_of(**SECURE))
    while round_of_or_none(opened) is not RoundState.MASKED:
        await opened.step()


def mean_of(*names: str) -> np.floating:
    """Return what the aggregate of these agents' updates is."""
    return np.mean([shift_of(data_seed(RUN, 1, 1, name)) for name in names])


async def sent(opened: Federation, folder: Path, content: bytes) -> str:
    """Send a masked vector as bob, and return the code of the answer, or nothing where it is taken."""
    file = folder / "vector"
    file.write_bytes(content)
    try:
        kind = "application/octet-stream"
        await opened.transports["bob"].upload(MASKED, file, Accepted, digest=digest_of(content), kind=kind)
    except RemoteProblem as problem:
        return problem.code
    return ""


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "blob_truncated"),
        (bytes(LENGTH - 4), "blob_truncated"),
        (bytes(LENGTH + 1), "blob_too_large"),
        (bytes(1 << 20), "blob_too_large"),
    ],
    ids=["nothing", "a number less", "a byte more", "a megabyte"],
)
async def test_a_vector_of_another_length_is_refused_and_its_sender_named(
    content: bytes, code: str, tmp_path: Path
) -> None:
    """It is not even read; the honest one is still taken, and the round goes on with everybody."""
    async with federation(tmp_path, ManualClock(), agents=FOUR) as opened:
        await masking(opened)
        with capture_logs() as lines:
            assert await sent(opened, tmp_path, content) == code
        assert [(line["who"], line["code"]) for line in lines if line["event"] == "request.refused"] == [("bob", code)]
        assert round_of(opened).refused == 1
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        assert np.allclose(aggregate_of(opened, 1), mean_of(*FOUR), atol=1e-6)


async def test_a_vector_of_noise_is_no_aggregate(tmp_path: Path) -> None:
    """Nobody can tell a masked vector from noise; the sum is implausible, and no adapter is made of it."""
    noise = np.random.default_rng(1).integers(0, 1 << 32, LENGTH // 4, dtype=np.uint32)
    async with federation(tmp_path, ManualClock(), agents=FOUR) as opened:
        await masking(opened)
        assert await sent(opened, tmp_path, noise.tobytes()) == ""
        assert await sent(opened, tmp_path, bytes(LENGTH)) == "update_conflict"
        del opened.agents["bob"]
        for _ in range(8):
            await opened.step()
            opened.clock.advance(3)
        ended = round_of(opened)
        assert ended.state in {RoundState.ABORTED, RoundState.REFUSED}
        assert ended.aggregate is None


async def test_a_vector_that_does_not_come_is_broken_off_and_its_sender_named(tmp_path: Path) -> None:
    """The stage goes on without who sends too slowly, and the aggregate is that of the others."""
    async with federation(tmp_path, ManualClock(), agents=FOUR) as opened:
        await masking(opened)
        with capture_logs() as lines:
            assert await stalling(opened, bytes(LENGTH)) == (408, "body_too_slow")
        assert [(line["who"], line["code"]) for line in lines] == [("bob", "body_too_slow")]
        assert [file.name.split(".")[0] for file in partial_files(opened.context)] == ["bob"]
        del opened.agents["bob"]
        for _ in range(20):
            await opened.step()
            opened.clock.advance(3)
        assert (await opened.run(RUN)).state is RunState.FINISHED
        others = [name for name in FOUR if name != "bob"]
        assert np.allclose(aggregate_of(opened, 1), mean_of(*others), atol=1e-6)


async def stalling(opened: Federation, content: bytes) -> tuple[int, str]:
    """Send all of a masked vector as bob but its last byte, and return status and code of the answer."""
    impatient = opened.context.settings.model_copy(update={"body_silence_seconds": 0.05})
    request = Egress("PUT", MASKED, len(content), digest_of(content))
    fields = {
        DIGEST_FIELD: to_field(request.digest),
        "Content-Length": str(len(content)),
        PROTOCOL_FIELD: "1",
        **opened.transports["bob"]._authenticator.fields(request),
    }
    scope = {
        "type": "http",
        "method": request.method,
        "path": request.target,
        "raw_path": request.target.encode(),
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
        "client": ("192.0.2.7", 1),
    }
    coming, told = [{"type": "http.request", "body": content[:-1], "more_body": True}], []

    async def receive() -> dict[str, object]:
        return coming.pop() if coming else await asyncio.Event().wait()

    async def send(message: dict[str, object]) -> None:
        told.append(message)

    await create_app(replace(opened.context, settings=impatient))(scope, receive, send)
    return told[0]["status"], json.loads(told[1]["body"])["code"]
