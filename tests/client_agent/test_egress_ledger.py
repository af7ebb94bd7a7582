import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.client_agent.egress_ledger import EgressLedger, Entry, Fault, ledger_folder, months, read
from shared.credentials import BearerToken
from shared.egress import NO_BODY, Egress, TrafficCount
from shared.errors import EgressUnexplained, LedgerUnwritable, Unreachable
from shared.listening import listen
from shared.protocol.digests import digest_of
from shared.protocol.messages import Wanted
from shared.transport import open_transport

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
TO = "https://coordinator:443"
UPDATE = Egress("PUT", "/v1/runs/demo/rounds/3/update", 6_000_000, digest_of(b"an update"))


def question(number: int) -> Egress:
    """Return one of many requests that can be told apart."""
    return Egress("GET", f"/v1/wanted?wait_seconds={number}", 0, NO_BODY)


def at(time: datetime) -> Callable[[], datetime]:
    """Return a clock that stands still."""
    return lambda: time


def ledger(folder: Path, time: datetime = NOON) -> EgressLedger:
    """Return the ledger of an agent's folder."""
    return EgressLedger(folder, TrafficCount(), at(time))


def write(folder: Path, count: int, time: datetime = NOON) -> None:
    """Write so many entries."""
    for number in range(count):
        ledger(folder, time).record(question(number), to=TO, head_bytes=400)


def files(folder: Path) -> list[Path]:
    """Return the ledger's files."""
    return months(ledger_folder(folder))


def entries(folder: Path) -> list[Entry]:
    """Return what was written, which must be as it was written."""
    found = list(read(files(folder)))
    assert [each for each in found if isinstance(each, Fault)] == []
    return found


def faults(folder: Path) -> list[str]:
    """Return where the ledger is not what was written."""
    return [f"{each.where} {each.what}" for each in read(files(folder)) if isinstance(each, Fault)]


def test_an_entry_has_all_there_is_to_say_but_the_contents(tmp_path: Path):
    """When, to whom, what, of which kind, by which rule, how large, and the body's digest; the count is told too."""
    count = TrafficCount()
    opened = EgressLedger(tmp_path, count, at(NOON))
    opened.record(UPDATE, to=TO, head_bytes=512)
    opened.record(question(1), to=TO, head_bytes=400)
    update, asked = entries(tmp_path)
    assert (update.at, update.to, update.method, update.target) == (NOON, TO, "PUT", UPDATE.target)
    assert (update.kind, update.rule) == ("update", "policy.allow_plaintext")
    assert (update.head_bytes, update.body_bytes, update.digest) == (512, 6_000_000, UPDATE.digest)
    assert (asked.kind, asked.rule, asked.body_bytes, asked.digest) == ("question", None, 0, None)
    assert (count.requests, count.bytes) == (2, 6_000_912)


def test_what_nobody_can_explain_is_not_written(tmp_path: Path):
    """It does not leave, so it is not counted, and nothing is made for it."""
    with pytest.raises(EgressUnexplained):
        ledger(tmp_path / "state").record(Egress("PUT", "/v1/data", 9, digest_of(b"x")), to=TO, head_bytes=1)
    assert not (tmp_path / "state").exists()


async def ask(folder: Path, times: int, *, at_the_first_byte: Callable[[], None]) -> None:
    """Ask a coordinator so often whether something is wanted; it looks around when a request's first byte has come."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1):
            at_the_first_byte()
            await reader.readuntil(b"\r\n\r\n")
            body = b'{"assignment": null, "published": null}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_transport(url, BearerToken(""), ledger(folder), patience_seconds=None) as transport:
        for _ in range(times):
            await transport.call("GET", "/v1/wanted", Wanted)


@pytest.mark.anyio
async def test_an_entry_is_on_the_disk_before_a_byte_has_left(tmp_path: Path):
    """The other side finds the entry of a request in the file when the first byte of it has come."""
    seen: list[int] = []
    await ask(tmp_path, 3, at_the_first_byte=lambda: seen.append(len(entries(tmp_path))))
    assert seen == [1, 2, 3]


@pytest.mark.anyio
async def test_an_entry_is_synced_before_a_byte_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So a power cut takes no entry away of a request whose first byte the other side has seen."""
    synced: dict[int, int] = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    monkeypatch.setattr(os, "fsync", noted)
    seen: list[bool] = []

    def look() -> None:
        (file,) = files(tmp_path)
        seen.append(synced.get(file.stat().st_ino) == file.stat().st_size)

    await ask(tmp_path, 2, at_the_first_byte=look)
    assert seen == [True, True]


@pytest.mark.anyio
async def test_where_the_ledger_cannot_be_written_nothing_leaves(tmp_path: Path):
    """Not a byte comes, and the error says why and what to do."""
    came: list[bytes] = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read())
        writer.close()

    (tmp_path / "ledger").write_text("no folder")
    server = await asyncio.start_server(look, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with open_transport(url, BearerToken(""), ledger(tmp_path), patience_seconds=None) as transport:
            with pytest.raises(LedgerUnwritable, match=r"\(Not a directory\), so nothing was sent: make room"):
                await transport.call("GET", "/v1/wanted", Wanted)
        while not came:
            await asyncio.sleep(0)
    assert came == [b""]


@pytest.mark.anyio
async def test_what_was_never_sent_is_not_in_the_ledger(tmp_path: Path):
    """An agent that waits for its coordinator over a weekend writes nothing down."""
    with listen("127.0.0.1", 0) as closed:
        unused_url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with open_transport(unused_url, BearerToken(""), ledger(tmp_path), patience_seconds=0.01) as transport:
        with pytest.raises(Unreachable):
            await transport.call("GET", "/v1/wanted", Wanted)
    assert files(tmp_path) == []


# --- what a disk, a clock and another process may do --------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_leaves_the_ledger_as_it_was(tmp_path: Path, room: int):
    """What had room of an entry is taken back, nothing is counted, and with more room it goes on."""
    write(tmp_path, 3)
    before = files(tmp_path)[0].read_bytes()
    count = TrafficCount()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
    try:
        with pytest.raises(LedgerUnwritable, match="File too large"):
            EgressLedger(tmp_path, count, at(NOON)).record(UPDATE, to=TO, head_bytes=512)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path)[0].read_bytes() == before
    assert count.requests == 0
    write(tmp_path, 1)
    assert len(entries(tmp_path)) == 4


def test_a_torn_last_line_is_of_a_request_that_never_left(tmp_path: Path):
    """Cut at any byte, the ledger is whole to readers, and the next entry follows the last whole one."""
    write(tmp_path, 2)
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        assert len(entries(tmp_path)) == (end >= first)
        write(tmp_path, 1)
        assert len(entries(tmp_path)) == (end >= first) + 1


def test_a_line_longer_than_a_block_is_followed_too(tmp_path: Path):
    """An agent may decline many runs, and say so."""
    long = Egress("GET", "/v1/wanted?" + "&".join(f"declined={'x' * 64}" for _ in range(3000)), 0, NO_BODY)
    for _ in range(3):
        ledger(tmp_path).record(long, to=TO, head_bytes=400)
    assert [entry.target for entry in entries(tmp_path)] == [long.target] * 3


def test_writers_wait_for_each_other(tmp_path: Path):
    """`run` and `doctor` may send at the same moment: no entry is lost and the chain holds."""
    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda _: write(tmp_path, 25), range(4)))
    assert len(entries(tmp_path)) == 100


WRITER = """
import sys
from pathlib import Path
from services.client_agent.egress_ledger import EgressLedger
from shared.egress import NO_BODY, Egress, TrafficCount
ledger = EgressLedger(Path(sys.argv[1]), TrafficCount())
while True:
    ledger.record(Egress("GET", "/v1/wanted", 0, NO_BODY), to="http://here:80", head_bytes=1)
    print(flush=True)
"""


def test_a_kill_loses_nothing_that_had_left(tmp_path: Path):
    """Whatever was recorded when SIGKILL came is there, the chain holds, and another process goes on."""
    recorded = 0
    for wanted in (1, 20, 50):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as writer:  # noqa: S603
            assert writer.stdout is not None
            for _ in range(wanted):
                recorded += len(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            recorded += len(writer.stdout.read())
        assert recorded <= len(entries(tmp_path)) <= recorded + 1
        recorded = len(entries(tmp_path))


def test_a_month_is_a_file_and_the_chain_goes_over_them(tmp_path: Path):
    """The first entry of a month follows the last of the month before; a clock that is set back opens no old file."""
    for days in (0, 10, 40, 3):
        write(tmp_path, 2, NOON + timedelta(days=days))
    assert [file.name for file in files(tmp_path)] == ["2026-11.jsonl", "2026-12.jsonl", "2027-01.jsonl"]
    assert [len(list(read([file]))) for file in files(tmp_path)] == [2, 2, 4]
    assert len(entries(tmp_path)) == 8


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_writes_belongs_to_the_agents_user(tmp_path: Path):
    """A doctor that was called with sudo leaves nothing behind that the agent could not write to."""
    os.chown(tmp_path, 12345, 12346)
    write(tmp_path / "state", 1)
    made = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    assert len(made) == 4
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 12346)}


# --- what somebody may do -----------------------------------------------------------------------------------------


def change(lines: list[bytes]) -> None:
    lines[2] = lines[2].replace(b'"head_bytes":400', b'"head_bytes":399')


def damage(lines: list[bytes]) -> None:
    lines[2] = b"\0" * 100 + b"\n"


def take_out(lines: list[bytes]) -> None:
    del lines[2]


def put_in(lines: list[bytes]) -> None:
    lines.insert(2, lines[1])


def swap(lines: list[bytes]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def take_out_the_end(lines: list[bytes]) -> None:
    del lines[8:]


@pytest.mark.parametrize(
    ("tamper", "where"),
    [
        (change, "2026-11.jsonl, line 4"),
        (damage, "2026-11.jsonl, line 3 is no entry"),
        (take_out, "2026-11.jsonl, line 3"),
        (put_in, "2026-11.jsonl, line 3"),
        (swap, "2026-11.jsonl, line 3"),
        (take_out_the_end, "2026-12.jsonl, line 1"),
    ],
)
def test_a_line_that_was_changed_or_taken_out_is_found(
    tmp_path: Path, tamper: Callable[[list[bytes]], None], where: str
):
    """By the line that follows it, also in the next month's file; all that can be read is read."""
    write(tmp_path, 10)
    write(tmp_path, 2, NOON + timedelta(days=10))
    file = files(tmp_path)[0]
    lines = file.read_bytes().splitlines(keepends=True)
    tamper(lines)
    file.write_bytes(b"".join(lines))
    found = faults(tmp_path)
    assert found[0].startswith(where)
    assert len([each for each in read(files(tmp_path)) if isinstance(each, Entry)]) >= 10
    write(tmp_path, 1, NOON + timedelta(days=10))
    assert faults(tmp_path) == found


def test_a_month_in_the_middle_that_was_deleted_is_found(tmp_path: Path):
    """The month after it follows a line that is not there."""
    for days in (0, 10, 40):
        write(tmp_path, 2, NOON + timedelta(days=days))
    files(tmp_path)[1].unlink()
    assert [fault.split(" does")[0] for fault in faults(tmp_path)] == ["2027-01.jsonl, line 1"]
