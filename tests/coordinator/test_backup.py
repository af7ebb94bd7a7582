"""A coordinator is backed up while it runs, and put back: nothing is missing, and nothing is asked for twice."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bench.federation import FEDERATION, Federation, ManualClock
from services.coordinator.backup import NOTE, Backup, back_up, read_backup
from services.coordinator.blobs import FileBlobs
from services.coordinator.context import Context
from services.coordinator.restoring import Restored, restore
from services.coordinator.retention import BEGINNINGS
from shared.errors import (
    BackupInvalid,
    BlobCorrupt,
    BlobMissing,
    ConfigurationError,
    FedCoLLMError,
    OutputExists,
    OutputUnwritable,
)
from shared.protocol.audit import Chain, require_head
from shared.protocol.rounds import RoundState, RunState
from tests.support.federations import (
    AGENTS,
    RUN,
    begin,
    coordinator,
    federation,
    kinds,
    lease,
    play_round,
    store,
    submit,
    terms_of,
    theta_of,
    work,
)
from tests.support.players import FOUR, SECURE

pytestmark = pytest.mark.anyio


def backed_up(context: Context, into: Path, clock: ManualClock, **settings: Path) -> Backup:
    """Back up a coordinator that runs."""
    return back_up(context.settings.data_dir, settings, into, clock, federation=FEDERATION)


def put_back(folder: Path, data_dir: Path, clock: ManualClock, **settings: Path) -> Restored:
    """Put a backup back."""
    return restore(folder, data_dir, settings, clock, federation=FEDERATION)


@pytest.fixture
def backup(context: Context, clock: ManualClock, tmp_path: Path) -> Path:
    """A backup that was made while round 3 had one of two updates, round 2 having been refused."""
    begin(context, terms_of(rounds=3))
    play_round(context, 1)
    play_round(context, 2, loss=9.0)
    submit(context, "ada", 30.0, number=3)
    backed_up(context, tmp_path / "backup", clock)
    return tmp_path / "backup"


def test_a_coordinator_that_was_put_back_goes_on_to_the_end_of_its_run(
    backup: Path, context: Context, clock: ManualClock, tmp_path: Path
) -> None:
    """Paused until its operator lets it; then from the same adapters, and with cards and log as they were."""
    theta, card = theta_of(context), context.cards.card(RUN, 1)
    clock.advance(60)
    done = put_back(backup, tmp_path / "again", clock)
    assert done.paused == (RUN,)
    with coordinator(tmp_path / "again", clock) as again:
        assert again.lifecycle.run(RUN).state is RunState.PAUSED
        assert (theta_of(again), again.cards.card(RUN, 1)) == (theta, card)
        assert again.rounds.published_path(theta).is_file()
        again.lifecycle.start(RUN, actor="operator")
        for number in (64, 65):
            play_round(again, number)
        assert again.lifecycle.run(RUN).state is RunState.FINISHED
        states = {view.number: view.state for view in again.lifecycle.rounds(RUN).rounds}
        assert states == {
            1: RoundState.PUBLISHED,
            2: RoundState.REFUSED,
            3: RoundState.ABORTED,
            64: RoundState.PUBLISHED,
            65: RoundState.PUBLISHED,
        }
        said = kinds(again)
        assert said[said.index("round.aborted") :][:3] == ["round.aborted", "run.paused", "run.restored"]
        log = again.audit
        require_head(log.head(), known=None)
        chain = Chain(log.head().head)
        for entry in log.page(after=0, limit=1000).entries:
            chain.append(entry)
        chain.require_whole()


@pytest.mark.parametrize("seconds", [1.0, 86_400.0, 30 * 86_400.0])
def test_no_number_is_given_twice_however_often_a_backup_is_put_back(
    seconds: float, backup: Path, clock: ManualClock, tmp_path: Path
) -> None:
    """Each time the numbers begin behind all that may have been given since, at one a second."""
    given = 3
    for index in range(3):
        clock.advance(seconds)
        put_back(backup, tmp_path / str(index), clock)
        with coordinator(tmp_path / str(index), clock) as again:
            again.lifecycle.start(RUN, actor="operator")
            opened = again.lifecycle.rounds(RUN).rounds[-1].number
        assert opened > max(given, 3 + seconds * (index + 1))
        given = opened


def test_a_draft_and_a_run_that_is_being_prepared_are_numbered_anew_too(
    context: Context, clock: ManualClock, tmp_path: Path
) -> None:
    """Both may have had rounds since the backup, under numbers from 1 on."""
    context.lifecycle.create("draft", terms_of(), actor="operator")
    context.lifecycle.create(RUN, terms_of(), actor="operator")
    context.lifecycle.start(RUN, actor="operator")
    lease(context)
    backed_up(context, tmp_path / "backup", clock)
    clock.advance(10)
    put_back(tmp_path / "backup", tmp_path / "again", clock)
    with coordinator(tmp_path / "again", clock) as again:
        for run_id in ("draft", RUN):
            again.lifecycle.start(run_id, actor="operator")
            work(again)
            assert [view.number for view in again.lifecycle.rounds(run_id).rounds] == [11]


def test_what_has_ended_stays_ended(context: Context, clock: ManualClock, tmp_path: Path) -> None:
    """A finished run is not touched."""
    begin(context)
    play_round(context, 1)
    before = context.lifecycle.run(RUN)
    backed_up(context, tmp_path / "backup", clock)
    assert put_back(tmp_path / "backup", tmp_path / "again", clock).paused == ()
    with coordinator(tmp_path / "again", clock) as again:
        assert again.lifecycle.run(RUN) == before


async def test_agents_that_are_ahead_of_a_restored_coordinator_go_on_with_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    """They have spent updates of rounds that it does not know; it asks for others, and no attempt is refused."""
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        await opened.start(RUN, terms_of(rounds=3, **SECURE))
        await until(opened, 2, RoundState.MASKED)
        backed_up(opened.context, tmp_path / "backup", clock)
        await until(opened, 3, RoundState.AGGREGATED)
    spent = json.loads((tmp_path / "ada" / "spent.json").read_text())[RUN]["updates"]
    assert spent == 3
    clock.advance(20)  # less than a round may take: numbers go by the clock, and not by what the operator remembers
    shutil.rmtree(tmp_path / "coordinator")
    put_back(tmp_path / "backup", tmp_path / "coordinator", clock)
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        opened.context.lifecycle.start(RUN, actor="operator")
        assert (await opened.finish(RUN)).state is RunState.FINISHED
        states = {view.number: view.state for view in (await opened.rounds(RUN)).rounds}
    assert states == {
        1: RoundState.PUBLISHED,
        2: RoundState.ABORTED,
        **dict.fromkeys((23, 24), RoundState.PUBLISHED),
    }


async def until(opened: Federation, number: int, state: RoundState) -> None:
    """Step until a round is in a state."""
    for _ in range(60):
        with opened.context.store.read() as tx:
            live = tx.live_round(tx.run(RUN))
        if live is not None and (live.number, live.state) == (number, state):
            return
        await opened.step()
    raise TimeoutError


async def test_a_backup_holds_nothing_of_what_agents_send(tmp_path: Path, clock: ManualClock) -> None:
    """No masked vector, no share, no readable update: of what goes on only a round that will be aborted."""
    async with federation(tmp_path, clock, agents=FOUR) as opened:
        await opened.start(RUN, terms_of(**SECURE))
        await until(opened, 1, RoundState.CONSISTENCY)
        with opened.context.store.read() as tx:
            current = tx.round(RUN, 1)
            sent = [
                body
                for stage in (RoundState.SHARES, RoundState.MASKED)
                for body in tx.attempts.messages(current, stage, FOUR).values()
            ]
        begin(opened.context, terms_of(), "readable")
        sent.append(submit(opened.context, "ada", 12345.0, run_id="readable").digest)
        backup = backed_up(opened.context, tmp_path / "backup", clock)
    assert len(sent) == 9
    database = (tmp_path / "backup" / "coordinator.db").read_bytes()
    names = {file.name for file in backup.files}
    for body in sent:
        assert body.encode() not in database
        assert f"blobs/sha256/{body[7:9]}/{body[9:]}" not in names
    with closing(sqlite3.connect(tmp_path / "backup" / "coordinator.db")) as copied:
        for table in ("attempt_messages", "attempts", "ready", "updates"):
            assert copied.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # noqa: S608


def test_what_is_written_meanwhile_is_in_the_backup_whole_or_not_at_all(
    context: Context, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round that ends, and what is deleted then, between the database's moment and the blobs' copies."""
    begin(context, terms_of(rounds=3))
    play_round(context, 1)
    for agent in AGENTS:
        submit(context, agent, number=2)
    context.rounds.reconcile()  # the aggregate is named by a live round
    happened: list[int] = []
    path = FileBlobs.path

    def asked(blobs: FileBlobs, digest: str) -> Path:
        if not happened:
            happened.append(1)
            work(context)
            work(context, loss=9.0)  # refused: nothing names aggregate and candidates any more
            clock.seconds += 1e9
            happened.extend(context.retention.collect(beginning) for beginning in BEGINNINGS)
            clock.seconds -= 1e9
        return path(blobs, digest)

    monkeypatch.setattr(FileBlobs, "path", asked)
    backed_up(context, tmp_path / "backup", clock)
    assert sum(happened) > 3
    read_backup(tmp_path / "backup")
    put_back(tmp_path / "backup", tmp_path / "again", clock)
    with coordinator(tmp_path / "again", clock) as again, again.store.read() as tx:
        assert [current.state for current in tx.rounds(RUN)] == [
            RoundState.PUBLISHED,
            RoundState.REFUSED,
            RoundState.ABORTED,
        ]
        for digest in tx.blobs.named():
            again.blobs.require_intact(tx.blob(digest))


def test_modes_are_kept_and_nobody_else_may_look(backup: Path, tmp_path: Path, clock: ManualClock) -> None:
    """What was for its owner alone is so in the backup, and where it is put back."""
    assert backup.stat().st_mode & 0o777 == 0o700
    put_back(backup, tmp_path / "again", clock)
    for folder in (backup, tmp_path / "again"):
        assert (folder / "coordinator.key").stat().st_mode & 0o777 == 0o600


def test_blobs_are_linked_and_not_copied_where_the_disk_is_the_same(backup: Path, context: Context) -> None:
    """So that a backup costs next to nothing until it is carried away; what was put back is apart."""
    digest = theta_of(context)
    copied = backup / "blobs" / "sha256" / digest[7:9] / digest[9:]
    assert copied.samefile(context.blobs.path(digest))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "is gone": Path.unlink,
    "was cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "has another bit": lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_backup_of_which_a_file_was_damaged_is_refused(
    damage: str, backup: Path, tmp_path: Path, clock: ManualClock
) -> None:
    """Whichever it is: nothing is put back, and the file is named."""
    files = [each.name for each in read_backup(backup).files]
    assert {"coordinator.db", "coordinator.key"} <= set(files)
    for name in files:
        file = backup / name
        before, links = file.read_bytes(), file.stat()
        file.unlink()  # it may be the running coordinator's own, by another name
        file.write_bytes(before)
        DAMAGES[damage](file)
        with pytest.raises(BackupInvalid, match=name):
            put_back(backup, tmp_path / "again", clock)
        assert not (tmp_path / "again").exists()
        file.write_bytes(before)
        file.chmod(links.st_mode)
    read_backup(backup)


def no_backup(backup: Path, data_dir: Path) -> None:  # noqa: ARG001
    """Take away what says what is in it."""
    (backup / NOTE).unlink()


def other_note(backup: Path, data_dir: Path) -> None:  # noqa: ARG001
    """Write something else there."""
    (backup / NOTE).write_text("{}")


def climbing(backup: Path, data_dir: Path) -> None:  # noqa: ARG001
    """Name a file that lies elsewhere."""
    note = json.loads((backup / NOTE).read_text())
    note["files"][0]["name"] = "../outside"
    (backup / NOTE).write_text(json.dumps(note))


def not_empty(backup: Path, data_dir: Path) -> None:  # noqa: ARG001
    """Leave something where the backup should go."""
    data_dir.mkdir()
    (data_dir / "coordinator.db").write_text("older")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(no_backup, BackupInvalid), (other_note, BackupInvalid), (climbing, BackupInvalid), (not_empty, OutputExists)],
)
def test_what_cannot_be_put_back_changes_nothing(
    wrong: Callable[[Path, Path], None], error: type[FedCoLLMError], backup: Path, tmp_path: Path, clock: ManualClock
) -> None:
    """It is said why, and what was there is still there."""
    target = tmp_path / "again"
    wrong(backup, target)
    before = [path.read_text() for path in target.glob("*")]
    with pytest.raises(error):
        put_back(backup, target, clock)
    assert [path.read_text() for path in target.glob("*")] == before


def test_a_backup_of_another_federation_or_of_the_future_is_refused(
    backup: Path, tmp_path: Path, clock: ManualClock
) -> None:
    """Whose rounds would be signed for others, or numbered by a clock that is wrong."""
    with pytest.raises(BackupInvalid, match="in-memory, and this is another"):
        restore(backup, tmp_path / "again", {}, clock, federation="another")
    clock.advance(-1)
    with pytest.raises(BackupInvalid, match="set the clock"):
        put_back(backup, tmp_path / "again", clock)
    assert not (tmp_path / "again").exists()


def test_what_fails_on_the_way_leaves_an_empty_folder(
    backup: Path, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room, or a database of a newer release: it may be tried again at once."""
    copied = (backup / "coordinator.db").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("services.coordinator.restoring.settle", full)
        with pytest.raises(OutputUnwritable, match="make room"):
            put_back(backup, tmp_path / "again", clock)
    assert not list((tmp_path / "again").iterdir())
    put_back(backup, tmp_path / "again", clock)
    assert (backup / "coordinator.db").read_bytes() == copied


def test_a_backup_is_written_once(backup: Path, context: Context, clock: ManualClock) -> None:
    """An older one is not replaced."""
    before = (backup / NOTE).read_bytes()
    with pytest.raises(OutputExists):
        backed_up(context, backup, clock)
    assert (backup / NOTE).read_bytes() == before


def test_a_coordinator_that_has_lost_a_blob_has_no_backup(context: Context, clock: ManualClock, tmp_path: Path) -> None:
    """Nor one with a blob that has rotted: its operator learns of it now, and not when the backup is needed."""
    begin(context)
    digest = theta_of(context)
    place = context.blobs.path(digest)
    content = place.read_bytes()
    place.write_bytes(content[:-1])
    with pytest.raises(BlobCorrupt, match="check the disk"):
        backed_up(context, tmp_path / "backup", clock)
    place.unlink()
    with pytest.raises(BlobMissing, match=digest):
        backed_up(context, tmp_path / "backup", clock)
    assert not (tmp_path / "backup").exists()
    store(context, content)
    backed_up(context, tmp_path / "backup", clock)


def test_a_database_of_another_release_is_not_backed_up_by_this_one(
    context: Context, clock: ManualClock, tmp_path: Path
) -> None:
    """It would be migrated, and the way back to that release would be lost."""
    data_dir = tmp_path / "other"
    shutil.copytree(context.settings.data_dir, data_dir)
    with closing(sqlite3.connect(data_dir / "coordinator.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '0001'")
        database.commit()
    with pytest.raises(ConfigurationError, match="the schema 0001"):
        back_up(data_dir, {}, tmp_path / "backup", clock, federation=FEDERATION)
    with pytest.raises(ConfigurationError, match="has been started"):
        back_up(tmp_path / "nothing", {}, tmp_path / "backup", clock, federation=FEDERATION)
    assert not (tmp_path / "backup").exists()
