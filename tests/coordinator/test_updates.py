import errno
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.federation import ManualClock
from services.coordinator.blobs import IncomingBlob
from services.coordinator.context import Context
from shared.protocol.digests import digest_of, to_field
from tests.support.federations import RUN, adapter, begin, client, lease, play_round, store, submit, terms_of
from tests.support.requests import UPDATE, announcing, assert_nothing_kept, assert_problem, pieces, send

pytestmark = pytest.mark.anyio


async def test_an_update_gets_a_receipt(context: Context) -> None:
    """The agent learns that the coordinator holds exactly its bytes."""
    begin(context)
    blob = adapter(1.0)
    receipt = (await send(context, blob)).json()
    assert receipt["digest"] == digest_of(blob)
    assert (receipt["run_id"], receipt["round"], receipt["agent"], receipt["bytes"]) == (RUN, 1, "ada", len(blob))
    assert context.lifecycle.rounds(RUN).rounds[0].accepted == 1


async def test_the_same_update_gets_the_same_receipt(context: Context, clock: ManualClock) -> None:
    """A retry whose first answer was lost changes nothing, whatever state the round is in by then."""
    begin(context)
    first = (await send(context, adapter(1.0))).json()
    clock.advance(3)
    assert (await send(context, adapter(1.0))).json() == first
    clock.advance(30)
    context.rounds.reconcile()
    assert (await send(context, adapter(1.0))).json() == first
    view = context.lifecycle.rounds(RUN).rounds[0]
    assert (view.accepted, view.late) == (1, 0)


async def test_another_update_for_the_same_round_is_a_conflict(context: Context) -> None:
    """The first one stands: an agent cannot change its mind, and nobody in its name can."""
    begin(context)
    await send(context, adapter(1.0))
    assert_problem(await send(context, adapter(2.0)), 409, "update_conflict")
    context.rounds.reconcile()
    with context.store.read() as tx:
        assert [update.digest for update in tx.updates(RUN, 1)] == [digest_of(adapter(1.0))]


async def test_two_agents_may_send_the_same_bytes(context: Context) -> None:
    """Equal adapters are one blob and two updates."""
    begin(context)
    assert (await send(context, adapter(1.0), "ada")).is_success
    assert (await send(context, adapter(1.0), "bob")).is_success
    assert context.lifecycle.rounds(RUN).rounds[0].accepted == 2


async def test_unknown_runs_and_rounds_are_not_found(context: Context) -> None:
    """An update for nothing that exists is refused."""
    begin(context)
    blob = adapter(1.0)
    assert_problem(await send(context, blob, path="/v1/runs/other/rounds/1/update"), 404, "not_found")
    assert_problem(await send(context, blob, path=f"/v1/runs/{RUN}/rounds/2/update"), 404, "not_found")
    assert_problem(await send(context, blob, path=f"/v1/runs/{RUN}/rounds/0/update"), 422, "message_invalid")


async def test_an_update_before_the_preparation_is_not_found(context: Context) -> None:
    """A run that has no rounds yet takes no updates."""
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    assert_problem(await send(context, adapter(1.0)), 404, "not_found")


async def test_a_past_round_is_closed(context: Context) -> None:
    """What was trained for a round that is over is told to go on, and counted as late."""
    begin(context, terms_of(rounds=2))
    play_round(context, 1)
    assert_problem(await send(context, adapter(9.0), "cleo"), 409, "round_closed")
    assert context.lifecycle.rounds(RUN).rounds[0].late == 1


ADAPTERS = f"/v1/work/blobs/{digest_of(adapter(1.0))}"
BLOB_ROUTES = pytest.mark.parametrize(
    ("who", "path", "status", "code"),
    [("ada", UPDATE, 401, "request_signature_invalid"), ("worker", ADAPTERS, 411, "length_required")],
    ids=["agent", "worker"],
)


@BLOB_ROUTES
async def test_a_blob_must_say_its_length(who: str, path: str, status: int, code: str, context: Context) -> None:
    """Nothing is streamed whose end is unknown; an agent has not even signed it."""
    begin(context)
    bent = {"Content-Length": None, "Transfer-Encoding": "chunked"}
    assert_problem(await send(context, adapter(1.0), who, path, **bent), status, code)


@BLOB_ROUTES
@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "+10", "0x10", "", "9" * 5000])
async def test_a_length_that_is_no_number_is_refused(
    length: str, who: str, path: str, status: int, code: str, context: Context
) -> None:
    """(Servers refuse most of these themselves; we do not rely on it.)."""
    begin(context)
    assert_problem(await send(context, adapter(1.0), who, path, **{"Content-Length": length}), status, code)


async def test_an_encoded_update_is_refused(context: Context) -> None:
    """Length and digest are those of the bytes themselves: no gzip in between."""
    begin(context)
    assert_problem(await send(context, adapter(1.0), **{"Content-Encoding": "gzip"}), 422, "message_invalid")
    assert (await send(context, adapter(1.0), **{"Content-Encoding": "identity"})).is_success


@pytest.mark.parametrize(
    ("who", "path", "status", "code"),
    [("ada", UPDATE, 401, "request_signature_invalid"), ("worker", ADAPTERS, 422, "message_invalid")],
    ids=["agent", "worker"],
)
@pytest.mark.parametrize("field", ["", "sha-256=:AAAA:", "md5=:AAAA:"])
async def test_a_blob_must_announce_its_digest(
    field: str, who: str, path: str, status: int, code: str, context: Context
) -> None:
    """Without one SHA-256 in RFC 9530's form nothing is taken."""
    begin(context)
    assert_problem(await send(context, adapter(1.0), who, path, **{"Content-Digest": field}), status, code)


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "another layout": (adapter(1.0).replace(b"slm.lora_A", b"slm.lora_X"), 422, "layout_mismatch"),
    "NaN": (adapter(float("nan")), 422, "values_not_finite"),
    "infinity": (adapter(float("inf")), 422, "values_not_finite"),
    "not safetensors": (b"\x80" * len(adapter(1.0)), 422, "layout_mismatch"),
}


@pytest.mark.parametrize("wrong", REFUSED)
async def test_a_wrong_update_is_refused_and_counted(wrong: str, context: Context) -> None:
    """Its sender is told why, nothing of it stays, and a good one may still follow."""
    blob, status, code = REFUSED[wrong]
    begin(context)
    assert_problem(await send(context, blob), status, code)
    assert_nothing_kept(context)
    assert context.lifecycle.rounds(RUN).rounds[0].refused == 1
    assert (await send(context, adapter(1.0))).is_success


async def test_an_update_with_another_digest_is_refused(context: Context) -> None:
    """Bytes that changed on the way are not taken for the agent's."""
    begin(context)
    wrong = to_field(digest_of(b"other"))
    assert_problem(await send(context, adapter(1.0), **{"Content-Digest": wrong}), 400, "digest_mismatch")
    assert_nothing_kept(context)


async def test_an_update_of_another_size_is_refused_unread(context: Context) -> None:
    """The size is known from the manifest: a longer body is not even read, a shorter one was cut; both are counted."""
    begin(context)
    blob = adapter(1.0)

    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with client(context, "ada") as http:
        for length in (len(blob) + 1, 1 << 34, 1 << 35):
            fields = announcing(blob, **{"Content-Length": str(length)})
            assert_problem(await http.put(UPDATE, content=never(), headers=fields), 413, "blob_too_large")
        more_than_a_days = announcing(blob, **{"Content-Length": str(10**30)})
        assert_problem(await http.put(UPDATE, content=never(), headers=more_than_a_days), 413, "blob_too_large")
    assert_problem(await send(context, blob[:-4]), 400, "blob_truncated")
    assert_nothing_kept(context)
    assert context.lifecycle.rounds(RUN).rounds[0].refused == 4


async def test_a_body_longer_or_shorter_than_announced_is_refused(context: Context) -> None:
    """Where the server lets such a body through, we do not, and we count it."""
    begin(context)
    blob = adapter(1.0)
    async with client(context, "ada") as http:
        longer = await http.put(UPDATE, content=pieces(blob + b"more"), headers=announcing(blob))
        shorter = await http.put(UPDATE, content=pieces(blob[:-1]), headers=announcing(blob))
    assert_problem(longer, 413, "blob_too_large")
    assert_problem(shorter, 400, "blob_truncated")
    assert_nothing_kept(context)
    assert context.lifecycle.rounds(RUN).rounds[0].refused == 2


async def test_an_unweighted_run_refuses_examples(context: Context) -> None:
    """A number that nobody needs does not cross the wire."""
    begin(context)
    assert_problem(await send(context, adapter(1.0), path=f"{UPDATE}?examples=7"), 422, "message_invalid")
    assert_nothing_kept(context)


@pytest.mark.parametrize("query", ["", "?examples=0", "?examples=-1", "?examples=many", "?examples=1.5"])
async def test_a_weighted_run_requires_examples(query: str, context: Context) -> None:
    """Without a weight, or with one that is none, an update of a weighted run is refused."""
    begin(context, terms_of(weighting="examples"))
    assert_problem(await send(context, adapter(1.0), path=f"{UPDATE}{query}"), 422, "message_invalid")
    assert_nothing_kept(context)
    assert (await send(context, adapter(1.0), path=f"{UPDATE}?examples=7")).is_success


class FullDisk:
    """A folder of blobs that has no room: for the bytes of one, or for its name once they are there."""

    def __init__(self, context: Context, room_for: str) -> None:
        self._part = context.settings.data_dir / "blobs" / "partial" / "part"
        self._room_for = room_for

    def upload(self, *, size: int, **_: object) -> IncomingBlob:
        """Begin a blob that will not be kept."""
        if self._room_for == "nothing":
            self._part.symlink_to("/dev/full")
        return IncomingBlob(self._part, self._place, size, threading.Lock())

    def _place(self, digest: str) -> Path:
        raise OSError(errno.ENOSPC, f"no room for {digest}")


@pytest.mark.parametrize("room_for", ["nothing", "the bytes"])
async def test_a_full_disk_answers_507_and_keeps_nothing(room_for: str, context: Context) -> None:
    """The agent is told when to try again, the round goes on, and the retry succeeds."""
    begin(context)
    response = await send(replace(context, blobs=FullDisk(context, room_for)), adapter(1.0))
    assert_problem(response, 507, "storage_full")
    assert response.headers["Retry-After"] == "10"
    assert_nothing_kept(context)
    assert (await send(context, adapter(1.0))).is_success


class Sent:
    """A body in two halves that knows whether it was read to its end."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self.whole = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the halves."""
        half = len(self._blob) // 2
        yield self._blob[:half]
        yield self._blob[half:]
        self.whole = True


SMALL, LARGE = adapter(2.0), bytes(4 << 20)


@pytest.mark.parametrize(
    ("who", "path", "blob", "status"),
    [
        ("ada", UPDATE, SMALL, 409),
        ("bob", UPDATE, SMALL, 200),
        ("cleo", "/v1/runs/other/rounds/1/update", SMALL, 404),
        ("cleo", f"{UPDATE}?examples=no", SMALL, 422),
        ("worker", f"/v1/work/blobs/{digest_of(SMALL)}", LARGE, 422),
        ("worker", f"/v1/work/blobs/{digest_of(LARGE)}", LARGE, 507),
    ],
    ids=["a conflict", "the same again", "no such run", "no number", "another digest", "a full disk"],
)
async def test_a_body_that_nobody_needs_is_read_to_its_end(
    who: str, path: str, blob: bytes, status: int, context: Context
) -> None:
    """Whoever is answered in the middle of sending may see a broken connection instead, and send it all again."""
    begin(context)
    submit(context, "ada", 1.0)
    submit(context, "bob", 2.0)
    sent = Sent(blob)
    async with client(replace(context, blobs=FullDisk(context, "nothing")), who) as http:
        assert (await http.put(path, content=sent, headers=announcing(blob))).status_code == status
    assert sent.whole


async def test_stored_blobs_of_workers_are_not_counted_as_updates(context: Context) -> None:
    """What a worker stores is no agent's update."""
    begin(context)
    store(context, adapter(4.0))
    assert context.lifecycle.rounds(RUN).rounds[0].accepted == 0
    assert context.work.lease("worker", "worker") is None
    with pytest.raises(AssertionError):
        lease(context)


async def test_an_agent_whose_updates_are_refused_again_and_again_does_not_fill_the_log(context: Context) -> None:
    """The first few are logged under its name, all are counted, and others are logged as before; nobody is woken."""
    begin(context)
    for _ in range(20):
        assert_problem(await send(context, adapter(1.0)[:-4]), 400, "blob_truncated")
    bell = context.changes._all.take()
    assert_problem(await send(context, adapter(1.0)[:-4]), 400, "blob_truncated")
    assert context.changes._all.take() is bell
    assert_problem(await send(context, adapter(1.0)[:-4], "bob"), 400, "blob_truncated")
    submit(context, "ada")
    submit(context, "bob")
    for _ in range(20):
        assert_problem(await send(context, adapter(9.0), "cleo"), 409, "round_closed")
    view = context.lifecycle.rounds(RUN).rounds[0]
    assert (view.refused, view.late) == (22, 20)
    logged = Counter((line.actor, line.action) for line in context.audit.page(after=0, limit=500).entries)
    of_updates = {key: count for key, count in logged.items() if key[1] in {"update.refused", "update.late"}}
    assert of_updates == {("ada", "update.refused"): 8, ("bob", "update.refused"): 1, ("cleo", "update.late"): 8}
