"""A backup is put back: into an empty folder, checked first, and with every run paused (docs/adr/0023).

Agents may be ahead of what is put back: they have taken part in rounds that it does not know. So a round that was open
ends, and the next one's number is ahead of all that there can have been: it skips one for every second since the
backup was taken. What an agent has trained for a number is then never asked for again under other masks; agents would
refuse that by themselves, and the run would come to nothing.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import rmtree

from pydantic import BaseModel

from services.coordinator.backup import BLOBS, DATABASE, KEY, SETTINGS, Backup, copy, read_backup
from services.coordinator.progress import SYSTEM, withdraw_work
from services.coordinator.records import Run
from services.coordinator.store import open_store
from services.coordinator.transaction import Transaction
from shared.access import require_writable
from shared.errors import BackupInvalid, OutputExists, OutputUnwritable
from shared.folders import owned, sync
from shared.protocol.names import LAST_ROUND
from shared.protocol.rounds import RoundEvent, RunEvent, RunState
from shared.protocol.terms import FROZEN

REASON = "the coordinator was restored from a backup"


class Restored(BaseModel):
    """A backup that was put back: which, what else was written, and which runs are paused now."""

    backup: Backup
    written: tuple[Path, ...]
    paused: tuple[str, ...]
    model_config = FROZEN


def restore(
    folder: Path, data_dir: Path, settings: Mapping[str, Path], clock: Callable[[], float], *, federation: str
) -> Restored:
    """Put a backup back into an empty folder.

    ``settings`` say where the files beside it belong, by their names in the backup; those that are there are left.

    Raises:
        BackupInvalid: the backup is not whole, is another federation's, or is of a time that has not come.
        OutputExists, StoreBusy, ConfigurationError: ``data_dir`` is not empty, in use, or cannot be written to.
        DatabaseTooNew: a newer release has made the backup.
        OutputUnwritable: the disk says no; nothing is left of what was written.
    """
    backup, now = read_backup(folder), clock()
    if backup.federation != federation:
        raise BackupInvalid(f"{folder} is a backup of the federation {backup.federation}, and this is {federation}")
    if not 0 <= now - backup.taken_at < LAST_ROUND:
        raise BackupInvalid(
            f"by this machine's clock {folder} was not made in the last thirty years: set the clock; by it the next "
            "rounds are numbered"
        )
    require_writable(data_dir)
    if any(data_dir.iterdir()):
        raise OutputExists(f"{data_dir} is not empty: name an empty folder as data_dir, or move away what is there")
    with owned(data_dir, "coordinator"):
        try:
            paused = _put_back(folder, backup, data_dir, now)
            written = [target for name, target in settings.items() if _put_beside(folder / SETTINGS / name, target)]
        except BaseException as error:
            for path in data_dir.iterdir():
                rmtree(path) if path.is_dir() else path.unlink()
            if isinstance(error, OSError):
                raise OutputUnwritable(f"{data_dir} cannot be written ({error.strerror}): make room") from None
            raise
    return Restored(backup=backup, written=tuple(written), paused=tuple(paused))


def _put_back(folder: Path, backup: Backup, data_dir: Path, now: float) -> list[str]:
    """Fill ``data_dir``: the database comes last, so that a coordinator never starts on less than the whole."""
    for each in backup.files:
        if each.name == KEY or each.name.startswith(f"{BLOBS}/"):
            copy(folder / each.name, data_dir / each.name, mode=each.mode)
    part = data_dir / f"{DATABASE}.part"
    copy(folder / DATABASE, part, mode=0o600)
    store = open_store(part, lambda: now, lambda **_: None)
    try:
        with store.write() as tx:
            paused = settle(tx, taken_at=backup.taken_at, now=now)
    finally:
        store.close()
    for path in (*(path for path in data_dir.rglob("*") if path.is_dir()), data_dir):
        sync(path)
    part.replace(data_dir / DATABASE)
    sync(data_dir)
    return paused


def _put_beside(file: Path, target: Path) -> bool:
    if target.exists() or not file.exists():
        return False
    copy(file, target)
    sync(target.parent)
    return True


def settle(tx: Transaction, *, taken_at: float, now: float) -> list[str]:
    """Bring what was put back to where it can go on, and return the runs that wait for their operator."""
    skipped = max(1, math.ceil(now - taken_at))
    tx.audit.append(SYSTEM, "coordinator.restored", "coordinator", {"taken_at": taken_at, "skipped": skipped})
    unended = tx.runs(states=(RunState.DRAFT, RunState.RUNNING, RunState.PAUSED))
    for run in unended:
        _interrupt(tx, run, skipped)
    return sorted(run.id for run in unended if run.state is not RunState.DRAFT)


def _interrupt(tx: Transaction, run: Run, skipped: int) -> None:
    withdraw_work(tx, run)
    current = tx.live_round(run)
    if current is not None:
        tx.change_round(current, RoundEvent.ABORT, actor=SYSTEM, detail={"reason": REASON}, reason=REASON)
    event = RunEvent.PAUSE if run.state is RunState.RUNNING else None
    # A draft too: it may have been started since, and its rounds have been numbered from 1.
    run = tx.change_run(run, event, actor=SYSTEM, detail={"reason": REASON}, round=run.round + skipped)
    tx.note(run.id, None, "run.restored", SYSTEM, {"next_round": run.round + 1})
