from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from shared.egress import Egress
from shared.errors import DigestMismatch, MessageInvalid, RemoteProblem
from shared.protocol.digests import digest_of, to_field
from shared.protocol.resumption import PARTIAL_TYPE
from shared.transport.client import PIECE_BYTES
from shared.transport.part_files import PartFile
from tests.support.scripted import (
    BLOB,
    DIGEST,
    HELLO,
    Body,
    Coordinator,
    Greeting,
    Journal,
    answer,
    blob_answer,
    talking_to,
)

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


def offset(durable: object) -> httpx.Response:
    """Return the answer that says how much of an upload is durable."""
    return httpx.Response(204, headers={"Upload-Offset": str(durable), "Upload-Complete": "?0"})


async def test_a_small_upload_is_sent_whole_again(tmp_path: Path) -> None:
    """A retry begins at the first byte, and the ledger sees it as another departure."""
    small, digest = BLOB[:PIECE_BYTES], digest_of(BLOB[:PIECE_BYTES])
    (tmp_path / "blob").write_bytes(small)
    other = Coordinator([httpx.WriteError("broken pipe"), answer(507, "storage_full"), HELLO])
    journal = Journal(other)
    async with talking_to(other, ledger=journal) as transport:
        await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=digest)
    assert other.bodies == [small] * 3
    assert [request for request, _ in journal.lines] == [Egress("PUT", "/v1/x", len(small), digest)] * 3


async def test_an_upload_that_breaks_off_goes_on_where_its_durable_bytes_end(tmp_path: Path) -> None:
    """It asks for the offset, naming the whole, and sends the rest, under the digests of the rest and of the whole."""
    (tmp_path / "blob").write_bytes(BLOB)
    other = Coordinator([httpx.WriteError("broken pipe"), offset(300_000), HELLO])
    async with talking_to(other) as transport:
        await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=DIGEST)
    _, asked, rest = other.requests
    assert [request.method for request in other.requests] == ["PUT", "HEAD", "PATCH"]
    assert other.bodies == [BLOB, b"", BLOB[300_000:]]
    assert asked.headers["Repr-Digest"] == rest.headers["Repr-Digest"] == to_field(DIGEST)
    assert rest.headers["Content-Digest"] == to_field(digest_of(BLOB[300_000:]))
    assert (rest.headers["Upload-Offset"], rest.headers["Upload-Complete"]) == ("300000", "?1")
    assert (rest.headers["Content-Type"], rest.headers["Content-Length"]) == (PARTIAL_TYPE, "468000")


@pytest.mark.parametrize("told", [lambda: offset(0), lambda: httpx.Response(403)], ids=["nothing", "a refusal"])
async def test_an_upload_of_which_nothing_is_left_begins_anew(
    told: Callable[[], httpx.Response], tmp_path: Path
) -> None:
    """At offset 0 it is the request that it was at first; a refusal says its reason to that one."""
    (tmp_path / "blob").write_bytes(BLOB)
    other = Coordinator([answer(408, "body_too_slow"), told(), HELLO])
    async with talking_to(other) as transport:
        await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=DIGEST)
    assert [request.method for request in other.requests] == ["PUT", "HEAD", "PUT"]
    assert other.bodies[2] == BLOB


@pytest.mark.parametrize("code", ["digest_mismatch", "upload_offset_mismatch"])
async def test_an_upload_whose_kept_bytes_were_no_good_is_asked_about_again(code: str, tmp_path: Path) -> None:
    """What lay there may have been damaged or lost meanwhile: that is no fault of what was sent."""
    (tmp_path / "blob").write_bytes(BLOB)
    script = [httpx.WriteError("reset"), offset(5), answer(409, code), offset(0), HELLO]
    other = Coordinator(script)
    async with talking_to(other) as transport:
        await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=DIGEST)
    assert [request.method for request in other.requests] == ["PUT", "HEAD", "PATCH", "HEAD", "PUT"]


async def test_an_upload_that_was_refused_whole_is_not_sent_again(tmp_path: Path) -> None:
    """Where nothing had been kept, the digest of what was sent is wrong, and stays so."""
    (tmp_path / "blob").write_bytes(BLOB)
    other = Coordinator([answer(400, "digest_mismatch")])
    async with talking_to(other) as transport:
        with pytest.raises(RemoteProblem):
            await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=DIGEST)


@pytest.mark.parametrize("told", ["", "-1", "many", len(BLOB) + 1, "9" * 5000])
async def test_an_offset_that_is_none_is_not_believed(told: object, tmp_path: Path) -> None:
    """Nobody reads a file from where it does not go on."""
    (tmp_path / "blob").write_bytes(BLOB)
    async with talking_to(Coordinator([httpx.WriteError("reset"), offset(told)])) as transport:
        with pytest.raises(MessageInvalid, match="is this the coordinator's address"):
            await transport.upload("/v1/x", tmp_path / "blob", Greeting, digest=DIGEST)


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


def rest_answer(began: int, content: bytes, fault: Exception | None = None) -> httpx.Response:
    """Return an answer with the rest of the blob."""
    fields = {"Content-Range": f"bytes {began}-{len(BLOB) - 1}/{len(BLOB)}"}
    return httpx.Response(206, headers=fields, stream=Body(content, fault))


async def test_a_download_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """It asks for the rest of the same blob, and is whole at the end."""
    other = Coordinator([blob_answer(BLOB[:300_000], httpx.ReadError("reset")), rest_answer(300_000, BLOB[300_000:])])
    lengths: list[int] = []
    async with talking_to(other) as transport:
        await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST, on_length=lengths.append)
    first, second = other.requests
    assert "Range" not in first.headers
    assert (second.headers["Range"], second.headers["If-Range"]) == ("bytes=300000-", f'"{DIGEST}"')
    assert (tmp_path / "blob").read_bytes() == BLOB
    assert lengths == sorted(lengths)
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


async def test_a_download_goes_on_in_the_next_process(tmp_path: Path) -> None:
    """What came of it lies beside it, and neither another blob nor another file is gone on with."""
    async with talking_to(Coordinator([blob_answer(BLOB[:300_000], RuntimeError("killed"))])) as transport:
        with pytest.raises(RuntimeError):
            await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    other = Coordinator([blob_answer(b"other"), rest_answer(300_000, BLOB[300_000:])])
    async with talking_to(other) as transport:
        await transport.download("/v1/y", tmp_path / "blob", digest=digest_of(b"other"))
        await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    assert [request.headers.get("Range") for request in other.requests] == [None, "bytes=300000-"]
    assert (tmp_path / "blob").read_bytes() == BLOB


def part_of(tmp_path: Path, content: bytes) -> None:
    """Let something of the blob have come before."""
    PartFile(tmp_path / "blob", DIGEST).append(content)


async def test_a_download_that_had_come_whole_is_not_asked_for_again(tmp_path: Path) -> None:
    """A kill before the last step leaves all bytes, and they are checked again."""
    part_of(tmp_path, BLOB)
    async with talking_to(Coordinator([])) as transport:
        assert await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST) == len(BLOB)
    assert (tmp_path / "blob").read_bytes() == BLOB


@pytest.mark.parametrize(
    "told",
    [
        lambda: httpx.Response(416),
        lambda: rest_answer(7, BLOB[7:]),
        lambda: rest_answer(1000, BLOB[1000:]),
    ],
    ids=["no such range", "another range", "its kept bytes are damaged"],
)
async def test_a_download_whose_kept_bytes_are_no_good_begins_anew(
    told: Callable[[], httpx.Response], tmp_path: Path
) -> None:
    """Whatever a power cut has left of them."""
    part_of(tmp_path, bytes(1000))
    other = Coordinator([told(), blob_answer(BLOB)])
    async with talking_to(other) as transport:
        await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    assert [request.headers.get("Range") for request in other.requests] == ["bytes=1000-", None]
    assert (tmp_path / "blob").read_bytes() == BLOB


@pytest.mark.parametrize(
    "fault", [lambda: answer(503, "version_conflict"), lambda: httpx.ConnectError("refused"), lambda: blob_answer(BLOB)]
)
async def test_a_download_may_come_whole_where_the_rest_was_asked_for(
    fault: Callable[[], httpx.Response | Exception], tmp_path: Path
) -> None:
    """What is sent from the first byte on takes the place of what was kept; of another answer nothing is kept."""
    part_of(tmp_path, BLOB[:1000])
    async with talking_to(Coordinator([fault(), blob_answer(BLOB)])) as transport:
        await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    assert (tmp_path / "blob").read_bytes() == BLOB


async def test_a_download_that_is_refused_is_told_as_a_problem(tmp_path: Path) -> None:
    """The body of an error is read as an error, never as an adapter."""
    async with talking_to(Coordinator([answer(404, "not_found")])) as transport:
        with pytest.raises(RemoteProblem) as problem:
            await transport.download("/v1/x", tmp_path / "blob", digest=DIGEST)
    assert problem.value.code == "not_found"
    assert list(tmp_path.iterdir()) == []
