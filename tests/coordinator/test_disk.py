"""Disks without room, and disks that may only be read: told to whoever has to know, and nothing is lost."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bench.federation import FEDERATION, ManualClock
from services.coordinator.backup import back_up
from services.coordinator.context import Context
from services.coordinator.reconciling import reconciling
from services.coordinator.rounds import Advanced
from services.coordinator.store import SqlStore
from services.coordinator.transaction import Transaction
from shared.access import require_writable
from shared.errors import ConfigurationError, FedCoLLMError, OutputUnwritable, StorageFull, StorageReadOnly
from shared.folders import write_whole
from shared.protocol.rounds import ENDED_RUNS, RoundState, RunState
from shared.protocol.terms import CohortTerms
from shared.storing import full, storing
from tests.coordinator.test_restart import results
from tests.support.federations import RUN, adapter, begin, client, coordinator, federation, submit, terms_of, work
from tests.support.requests import UPDATE, announcing, assert_problem

pytestmark = pytest.mark.anyio

PATIENT = terms_of(cohort=CohortTerms(min_count=2, max_count=2, min_seconds=999, max_seconds=999))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", disk):
        pytest.skip("this user, or this container, may mount nothing: no disk of 24 MiB could be made")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # noqa: S603, S607 - what was mounted above


def mount(*arguments: str | Path) -> int:
    """Mount something, and return how that ended."""
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode  # noqa: S603, S607


def fill(disk: Path) -> Path:
    """Take all the room there is, and return what to delete to give it back."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


async def test_a_full_disk_is_told_to_agents_and_operators_and_nothing_is_lost(
    small_disk: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """507, which says when to come again; alive, and not ready; then on, with what had been acknowledged."""
    with coordinator(small_disk, clock) as context:
        begin(context, PATIENT)
        submit(context, "ada", 1.0)
        blob = adapter(2.0)
        async with client(context, "bob") as bob, client(context, None) as anybody:
            assert (await anybody.get("/readyz")).status_code == 200
            ballast = fill(small_disk)
            refused = await bob.put(UPDATE, content=blob, headers=announcing(blob))
            assert_problem(refused, 507, "storage_full")
            assert refused.headers["Retry-After"] == "10"
            assert_problem(await anybody.get("/readyz"), 507, "storage_full")
            assert (await anybody.get("/healthz")).status_code == 200
            assert not list((small_disk / "blobs" / "incoming").iterdir())
            ballast.unlink()
            assert (await anybody.get("/readyz")).status_code == 200
            assert (await bob.put(UPDATE, content=blob, headers=announcing(blob))).status_code == 200
        context.rounds.reconcile()
        work(context)
        work(context)
        assert context.lifecycle.rounds(RUN).rounds[0].accepted == 2
        assert context.lifecycle.run(RUN).state is RunState.FINISHED
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_aggregate_that_finds_no_room_is_made_when_there_is_some(small_disk: Path, clock: ManualClock) -> None:
    """The reconciler says so, tries again with each pass, and no update has to come twice."""
    with coordinator(small_disk, clock) as context:
        begin(context, PATIENT)
        for agent in ("ada", "bob"):
            submit(context, agent)
        ballast = fill(small_disk)
        for _ in range(2):
            with pytest.raises(StorageFull, match=r"data_dir.*make room"):
                context.rounds.reconcile()
        ballast.unlink()
        assert context.rounds.reconcile()
        assert context.lifecycle.rounds(RUN).rounds[0].state is RoundState.AGGREGATED


def test_a_backup_to_a_full_disk_leaves_nothing_there(small_disk: Path, context: Context, clock: ManualClock) -> None:
    """And says that it is the backup's disk, and not the coordinator's."""
    begin(context)
    ballast = fill(small_disk)
    into = small_disk / "backup"
    with pytest.raises(OutputUnwritable, match=r"disk/.*backup.* cannot be written"):
        back_up(context.settings.data_dir, {}, into, clock, federation=FEDERATION)
    assert list(small_disk.iterdir()) == [ballast]
    ballast.unlink()
    back_up(context.settings.data_dir, {}, into, clock, federation=FEDERATION)


def test_a_start_on_a_disk_that_may_only_be_read_is_refused(small_disk: Path, clock: ManualClock) -> None:
    """Whoever started it reads which folder, and that its owner is not what is wrong."""
    with coordinator(small_disk / "state", clock) as context:
        begin(context)
    if mount("-o", "remount,ro", small_disk):
        pytest.skip("nothing can be mounted anew here")
    for folder in ("state", "other"):
        with pytest.raises(ConfigurationError, match=rf"{small_disk / folder} is on a disk that may only be read"):
            require_writable(small_disk / folder)
    with pytest.raises(ConfigurationError, match=r"data_dir: .* mount it"), coordinator(small_disk / "state", clock):
        pass


async def test_a_disk_that_becomes_one_to_be_read_only_is_told_as_that(context: Context) -> None:
    """By the database and by the folder of blobs: 507 too, with another code, and then on."""
    begin(context, PATIENT)
    blob = adapter(1.0)
    with context.store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")  # stays with the pool's only connection
    async with client(context, "ada") as ada:
        assert_problem(await ada.put(UPDATE, content=blob, headers=announcing(blob)), 507, "storage_read_only")
        with context.store._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only=OFF")
        assert (await ada.put(UPDATE, content=blob, headers=announcing(blob))).status_code == 200


def test_a_fault_of_the_disk_is_called_what_it_is() -> None:
    """No room, or only to be read; anything else stays what it was."""
    for number, error in ((errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EROFS, StorageReadOnly)):
        with pytest.raises(error, match="the place"), storing("the place"):
            raise OSError(number, os.strerror(number))
    with pytest.raises(OSError, match="Input/output"), storing("the place"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_the_log_says_once_that_the_disk_is_full_and_once_that_it_is_not(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass a second for a night would fill what is left of it."""
    said: list[tuple[str, dict[str, Any]]] = []

    class Log:
        """Keeps what is logged."""

        def __getattr__(self, level: str) -> Callable[..., None]:
            return lambda event, **fields: said.append((event, fields))

    monkeypatch.setattr("shared.logs.log", Log())
    faults = iter([full("here"), full("here"), full("here"), None, None])
    passes: list[bool] = []

    def advance() -> Advanced:
        fault = next(faults, None)
        passes.append(fault is None)
        context.changes.ring()
        return Advanced((), well=True, no_storage=fault)

    monkeypatch.setattr(context.rounds, "advance", advance)
    async with reconciling(context):
        while sum(passes) < 3:
            await context.changes.wait(0.1)
    assert [event for event, _ in said] == ["disk.trouble", "disk.well_again"]
    assert said[0][1]["code"] == "storage_full"


class Faults:
    """A disk that has no room at the step that a test chooses, once: at a commit, or at a file's or folder's sync."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        self.fails_at: int | None = None
        self._patch = patch

    def at_commits(self) -> None:
        """Fail where a change becomes durable."""
        real = SqlStore.write

        @contextmanager
        def write(store: SqlStore) -> Iterator[Transaction]:
            with real(store) as transaction:
                database = transaction._rows._connection.connection.driver_connection
                before = database.total_changes
                yield transaction
                if database.total_changes != before:
                    self._step(full("here"))

        self._patch.setattr(SqlStore, "write", write)

    def at_syncs(self) -> None:
        """Fail where a file or a folder becomes durable, of whomever."""
        real = os.fsync

        def fsync(descriptor: int) -> None:
            self._step(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            real(descriptor)

        self._patch.setattr(os, "fsync", fsync)

    def _step(self, error: Exception) -> None:
        self.steps += 1
        if self.steps == self.fails_at:
            raise error


async def played(folder: Path, faults: Faults, *, fails_at: int | None) -> list[tuple[Any, ...]]:
    """Play a run of one round to its end, whatever fails on the way, and return what it decided."""
    async with federation(folder, ManualClock()) as everybody:
        faults.steps, faults.fails_at = 0, fails_at
        for _ in range(60):
            with suppress(FedCoLLMError, OSError):
                await everybody.start(RUN, PATIENT)
                await everybody.step()
                if (await everybody.run(RUN)).state in ENDED_RUNS:
                    break
        left = [path for path in folder.rglob("*") if path.name.endswith(".part")]
        assert not left
        assert not list((folder / "coordinator" / "blobs" / "incoming").iterdir())
        faults.fails_at = None
        return results(everybody)


async def swept(tmp_path: Path, faults: Faults, *, every: int) -> None:
    """Let the disk be full at each step, or at every so manieth, and compare."""
    expected = await played(tmp_path / "well", faults, fails_at=None)
    assert expected[0][0] is RunState.FINISHED
    steps = faults.steps
    assert steps > 12
    for step in range(1, steps + 1, every):
        assert await played(tmp_path / str(step), faults, fails_at=step) == expected, f"step {step}"


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_no_room_at_any_commit_changes_nothing_of_what_a_run_gives(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever change of the coordinator's finds none: it is made later, once, and the digests are the same."""
    faults = Faults(monkeypatch)
    faults.at_commits()
    await swept(tmp_path, faults, every=every)


@pytest.mark.parametrize("every", [17, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_no_room_for_any_file_changes_nothing_of_what_a_run_gives(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coordinator, worker and agents alike: adapters, updates, notes."""
    faults = Faults(monkeypatch)
    faults.at_syncs()
    await swept(tmp_path, faults, every=every)


def test_what_found_no_room_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note that could not be written leaves the one before, and no part of itself."""
    write_whole(tmp_path / "note", b"before")

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OSError, match="no room"):
        write_whole(tmp_path / "note", b"after")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("note", b"before")]
