import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from shared.egress import Egress
from shared.errors import DigestMismatch, RemoteProblem
from shared.protocol.digests import to_field
from tests.support.scripted import BLOB, DIGEST, HELLO, Coordinator, Greeting, Journal, answer, blob_answer, talking_to

pytestmark = pytest.mark.anyio


async def test_an_upload_announces_its_length_and_digest(tmp_path: Path) -> None:
    """Both are known before the first byte, and the bytes are the file's."""
    (tmp_path / "blob").write_bytes(BLOB)
    other = Coordinator([HELLO])
    async with talking_to(other) as transport:
        await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=DIGEST, params={"examples": 7})
    (request,) = other.requests
    assert other.bodies == [BLOB]
    assert request.method == "PUT"
    assert request.headers["Content-Length"] == str(len(BLOB))
    assert "Transfer-Encoding" not in request.headers
    assert request.headers["Content-Digest"] == to_field(DIGEST)
    assert request.url.params["examples"] == "7"


async def test_an_upload_is_sent_whole_again(tmp_path: Path) -> None:
    """A retry begins at the first byte, and the ledger sees it as another departure."""
    (tmp_path / "blob").write_bytes(BLOB)
    other = Coordinator([httpx.WriteError("broken pipe"), answer(507, "storage_full"), HELLO])
    journal = Journal(other)
    async with talking_to(other, ledger=journal) as transport:
        await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=DIGEST)
    assert other.bodies == [BLOB] * 3
    assert [request for request, _ in journal.lines] == [Egress("PUT", "/v1/x", len(BLOB), DIGEST)] * 3


async def test_a_download_appears_whole(tmp_path: Path) -> None:
    """The file is there under its name when it is complete and checked; the size is returned."""
    async with talking_to(Coordinator([blob_answer(BLOB)])) as transport:
        assert await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST) == len(BLOB)
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


async def test_a_download_with_other_bytes_keeps_nothing(tmp_path: Path) -> None:
    """Whatever came is thrown away: a digest is never wrong by chance."""
    async with talking_to(Coordinator([blob_answer(BLOB[:-1] + b"!")])) as transport:
        with pytest.raises(DigestMismatch, match="nothing was kept"):
            await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    assert list(tmp_path.iterdir()) == []


async def test_a_download_does_not_touch_what_was_there(tmp_path: Path) -> None:
    """A good file stays until a better one is whole."""
    (tmp_path / "blob").write_bytes(b"good")
    async with talking_to(Coordinator([blob_answer(b"bad"), answer(404, "not_found")])) as transport:
        with pytest.raises(DigestMismatch):
            await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
        with pytest.raises(RemoteProblem):
            await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    assert (tmp_path / "blob").read_bytes() == b"good"


@pytest.mark.parametrize(
    "fault",
    [
        lambda: blob_answer(BLOB[:1000], httpx.ReadError("reset")),
        lambda: answer(503, "version_conflict"),
        lambda: httpx.ConnectError("refused"),
    ],
)
async def test_a_download_that_breaks_off_begins_again(
    fault: Callable[[], httpx.Response | Exception], tmp_path: Path
) -> None:
    """A second attempt does not go on in the first one's bytes."""
    other = Coordinator([fault(), blob_answer(BLOB)])
    async with talking_to(other) as transport:
        await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    assert hashlib.sha256((tmp_path / "blob").read_bytes()).hexdigest() == DIGEST.removeprefix("sha256:")


async def test_a_download_that_is_refused_is_told_as_a_problem(tmp_path: Path) -> None:
    """The body of an error is read as an error, never as an adapter."""
    async with talking_to(Coordinator([answer(404, "not_found")])) as transport:
        with pytest.raises(RemoteProblem) as problem:
            await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    assert problem.value.code == "not_found"
    assert list(tmp_path.iterdir()) == []
