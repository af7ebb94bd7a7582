"""Uploads that broke off and go on: request by request, as the coordinator sees them."""

import os
from pathlib import Path

import httpx
import pytest

from bench.federation import ManualClock
from services.coordinator.context import Context
from services.coordinator.partial_uploads import KEPT_SECONDS, PartialUploads
from shared.protocol.digests import digest_of, to_field
from shared.protocol.resumption import append_fields, offset_fields
from shared.protocol.rounds import RoundState
from tests.coordinator.test_attempts import opened
from tests.support.federations import RUN, adapter, begin, client
from tests.support.requests import UPDATE, announcing, assert_problem, partial_files, pieces

pytestmark = pytest.mark.anyio

SECTOR = 512
WIDE = {"slm.lora_A.weight": (2, 1600), "slm.lora_B.weight": (1600, 2)}  # 50 sectors
BLOB = adapter(1.0)
MASKED = f"/v1/runs/{RUN}/rounds/1/attempts/1/masked"


def lying(context: Context, blob: bytes, content: bytes, sender: str = "ada") -> Path:
    """Let an upload have broken off, of which these bytes are there."""
    file = context.blobs.partial.file(sender, digest_of(blob))
    file.write_bytes(content)
    return file


async def there(context: Context, blob: bytes, who: str = "ada", path: str = UPDATE) -> int:
    """Ask how much of an upload is there."""
    async with client(context, who) as http:
        response = await http.head(path, headers=offset_fields(digest_of(blob)))
    assert response.status_code == 204
    assert (response.headers["Upload-Complete"], response.headers["Cache-Control"]) == ("?0", "no-store")
    return int(response.headers["Upload-Offset"])


async def go_on(
    context: Context, blob: bytes, offset: int, who: str = "ada", path: str = UPDATE, **bent: str
) -> httpx.Response:
    """Send the rest of an upload."""
    rest = blob[offset:]
    fields = {**announcing(rest), **append_fields(digest_of(blob), offset), **bent}
    async with client(context, who) as http:
        return await http.patch(path, content=pieces(rest), headers=fields)


@pytest.mark.parametrize("damaged", [False, True], ids=["short", "short, its last sector zeros"])
@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
async def test_whatever_a_crash_of_the_disk_leaves_the_upload_ends_right(
    *, every: int, damaged: bool, context: Context
) -> None:
    """Cut at any sector it goes on or begins anew, as a client does, and nothing wrong is ever kept."""
    for length in range(0, len(adapter(1.0, WIDE)), SECTOR * every):
        blob = adapter(1.0 + length, WIDE)  # like no other
        digest = digest_of(blob)
        path = f"/v1/work/blobs/{digest}"
        content = blob[: length - SECTOR] + bytes(SECTOR) if damaged and length else blob[:length]
        lying(context, blob, content, f"worker.{digest.removeprefix('sha256:')}")
        assert await there(context, blob, "worker", path) == length
        answer = await go_on(context, blob, length, "worker", path)
        if damaged and length:
            assert_problem(answer, 400, "digest_mismatch")
            assert await there(context, blob, "worker", path) == 0
            answer = await go_on(context, blob, 0, "worker", path)
        assert answer.is_success
        assert context.blobs.path(digest).read_bytes() == blob
        assert not partial_files(context)


@pytest.mark.parametrize("offset", [1, 100, len(BLOB) - 1, len(BLOB)])
async def test_an_update_goes_on_after_any_byte(offset: int, context: Context) -> None:
    """Also where its last one has come, and the coordinator was killed before it could say so."""
    begin(context)
    lying(context, BLOB, BLOB[:offset])
    assert await there(context, BLOB) == offset
    assert (await go_on(context, BLOB, offset)).json()["digest"] == digest_of(BLOB)
    again = await go_on(context, BLOB, offset)
    assert again.is_success, "the same again gets the same receipt"
    assert context.lifecycle.rounds(RUN).rounds[0].accepted == 1


async def test_a_masked_vector_goes_on(context: Context, clock: ManualClock) -> None:
    """As an update does."""
    opened(context, clock).play(until=RoundState.MASKED)
    vector = bytes(range(104))
    lying(context, vector, vector[:60], "bob")
    assert await there(context, vector, "bob", MASKED) == 60
    assert (await go_on(context, vector, 60, "bob", MASKED)).is_success
    assert context.blobs.path(digest_of(vector)).read_bytes() == vector


@pytest.mark.parametrize("offset", [99, 101])
async def test_an_upload_that_would_go_on_elsewhere_is_refused_and_nothing_is_lost_by_it(
    offset: int, context: Context
) -> None:
    """Its bytes would overlap, or leave a gap: that is no fault of what is there."""
    begin(context)
    lying(context, BLOB, BLOB[:100])
    assert_problem(await go_on(context, BLOB, offset), 409, "upload_offset_mismatch")
    assert await there(context, BLOB) == 100
    assert context.lifecycle.rounds(RUN).rounds[0].refused == 0


@pytest.mark.parametrize(
    ("bent", "status", "code"),
    [
        ({"Content-Digest": to_field(digest_of(b"other"))}, 400, "digest_mismatch"),
        ({"Content-Length": str(len(BLOB))}, 413, "blob_too_large"),
        ({"Content-Length": "1"}, 400, "blob_truncated"),
        ({"Upload-Complete": "?0"}, 422, "message_invalid"),
        ({"Upload-Offset": "-1"}, 422, "message_invalid"),
        ({"Repr-Digest": "none"}, 422, "message_invalid"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_an_update_that_goes_on_wrongly_is_refused(
    bent: dict[str, str], status: int, code: str, context: Context
) -> None:
    """Each thing that it announces is looked at."""
    begin(context)
    lying(context, BLOB, BLOB[:100])
    assert_problem(await go_on(context, BLOB, 100, **bent), status, code)
    assert context.lifecycle.rounds(RUN).rounds[0].accepted == 0


async def test_nobody_sees_or_goes_on_with_anothers_upload(context: Context) -> None:
    """What is there is its sender's alone, whoever knows the digest."""
    begin(context)
    lying(context, BLOB, BLOB[:100])
    assert await there(context, BLOB, "bob") == 0
    assert_problem(await go_on(context, BLOB, 100, "bob"), 409, "upload_offset_mismatch")
    assert await there(context, BLOB) == 100


async def test_an_agent_that_begins_another_upload_has_no_more_than_that(context: Context) -> None:
    """What it had begun is forgotten; what another one of a like name had is not."""
    begin(context)
    lying(context, BLOB, BLOB[:100], "ada.b")
    lying(context, BLOB, BLOB[:100])
    other = lying(context, adapter(2.0), adapter(2.0)[:50])
    assert await there(context, BLOB) == 0
    assert other in partial_files(context)
    assert len(partial_files(context)) == 2


def test_a_partial_upload_is_kept_over_a_restart_and_for_a_day(context: Context) -> None:
    """Then nobody comes for it any more."""
    file = lying(context, BLOB, BLOB[:100])
    now = context.admission.clock()
    context.blobs.sweep(named=[])
    os.utime(file, (now, now - KEPT_SECONDS + 1))
    context.forget_partial_uploads()
    assert file.exists()
    os.utime(file, (now, now - KEPT_SECONDS - 1))
    context.forget_partial_uploads()
    assert not partial_files(context)


def test_an_offset_is_of_bytes_that_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File and folder are synced before it is told."""
    partial, synced = PartialUploads(tmp_path), []
    partial.file("ada", digest_of(BLOB)).write_bytes(BLOB[:100])
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink()))
    assert partial.durable("ada", digest_of(BLOB)) == 100
    assert synced == [*tmp_path.iterdir(), tmp_path]
