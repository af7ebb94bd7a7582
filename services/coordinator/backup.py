"""A backup: a folder with all that a coordinator is, made while it runs and checked file by file (docs/adr/0023).

    <folder>/backup.json        what is in it: every other file with its digest and its mode; written last
    <folder>/coordinator.db     the database at one moment
    <folder>/coordinator.key    what signs the audit log's head
    <folder>/blobs/sha256/…     the blobs that the database names, as links where the disk is the same
    <folder>/settings/…         what the coordinator's settings name, and they themselves

Nothing is locked. A blob that is deleted between the database's moment and its own copy is named by no row any more,
so the next moment does without it.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from services.coordinator.blobs import FileBlobs
from services.coordinator.snapshot import snapshot
from shared.access import refusal
from shared.errors import BackupInvalid, BlobCorrupt, BlobMissing
from shared.folders import appearing, file_digest, sync, write_whole
from shared.protocol.audit import AuditHead
from shared.protocol.digests import Digest
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN
from shared.release import release

NOTE, DATABASE, KEY, BLOBS, SETTINGS = "backup.json", "coordinator.db", "coordinator.key", "blobs", "settings"

# How often the database is read anew because a blob went meanwhile; of a blob that is lost the second time tells.
MOMENTS = 20


class BackupFile(BaseModel):
    """A file of a backup."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")]
    bytes: Annotated[int, Field(ge=0)]
    mode: Annotated[int, Field(ge=0, le=0o777)]
    digest: Digest
    model_config = FROZEN


class Backup(BaseModel):
    """What is in a backup, and of when it is: ``taken_at``, in seconds since 1970, with ``head`` as the audit log's."""

    federation: PrincipalName
    release: str
    taken_at: float
    head: AuditHead
    files: tuple[BackupFile, ...]
    model_config = FROZEN


def back_up(
    data_dir: Path, settings: Mapping[str, Path], into: Path, clock: Callable[[], float], *, federation: str
) -> Backup:
    """Write a backup of a coordinator, which may run meanwhile, to a new folder, and return what is in it.

    ``settings`` are files beside ``data_dir`` that are wanted too, by their names in the backup.

    Raises:
        OutputExists, OutputUnwritable: the folder is there, or the disk says no.
        ConfigurationError: there is no coordinator in ``data_dir``, or another release's.
        BlobMissing, BlobCorrupt: the coordinator has lost a blob, and no backup can have it.
    """
    taken_at = clock()
    with appearing(into, marker=NOTE, force=False) as folder:
        folder.chmod(0o700)
        head = _copy_store(data_dir, folder, federation=federation)
        copy(data_dir / KEY, folder / KEY)
        for name, file in settings.items():
            copy(file, folder / SETTINGS / name)
        files = tuple(_noted(folder, path) for path in sorted(folder.rglob("*")) if path.is_file())
        for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
            sync(path)
        backup = Backup(federation=federation, release=release(), taken_at=taken_at, head=head, files=files)
        write_whole(folder / NOTE, backup.model_dump_json(indent=1).encode(), mode=0o600)
    sync(into.parent)
    return backup


def read_backup(folder: Path) -> Backup:
    """Return what is in a backup, once every file was compared with its digest.

    Raises:
        BackupInvalid: it is none, or is not whole.
    """
    try:
        backup = Backup.model_validate_json((folder / NOTE).read_bytes())
    except OSError as error:
        raise BackupInvalid(f"{folder} is no backup: {refusal(folder / NOTE, error)}") from None
    except ValidationError:
        raise BackupInvalid(f"{folder} is no backup that this release can read: {NOTE} says something else") from None
    for each in backup.files:
        file = folder / each.name
        if not file.is_file():
            raise BackupInvalid(f"{folder} is not whole: {each.name} is missing; use another backup")
        if file_digest(file) != each.digest:
            raise BackupInvalid(f"{folder} is not whole: {each.name} was changed; use another backup")
    return backup


def copy(file: Path, into: Path, *, mode: int | None = None) -> None:
    """Copy a file to where none is, with its mode or another, and wait until the disk has it."""
    into.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.open("rb") as source:
        permitted = os.fstat(source.fileno()).st_mode & 0o777 if mode is None else mode
        with os.fdopen(os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            os.fchmod(target.fileno(), permitted)
            target.flush()
            os.fsync(target.fileno())


def _copy_store(data_dir: Path, folder: Path, *, federation: str) -> AuditHead:
    """Copy one moment of the database, with every blob that it names."""
    blobs, database, lost = FileBlobs(data_dir / BLOBS), folder / DATABASE, ""
    for _ in range(MOMENTS):
        head, digests = snapshot(data_dir / DATABASE, database, federation=federation)
        try:
            _copy_blobs(blobs, digests, folder)
        except BlobMissing as error:
            database.unlink()
            if str(error) == lost:
                raise
            lost = str(error)
        else:
            return head
    raise BlobMissing(f"the blobs of {data_dir} go faster than they can be copied: back up when fewer rounds go on")


def _copy_blobs(blobs: FileBlobs, digests: Iterable[str], folder: Path) -> None:
    """Have exactly these blobs in the backup; those that are there from the moment before are not copied again."""
    wanted = {folder / BLOBS / "sha256" / digest[7:9] / digest[9:]: digest for digest in digests}
    for other in (folder / BLOBS).rglob("*"):
        if other.is_file() and other not in wanted:
            other.unlink()
    for place, digest in wanted.items():
        if not place.exists():
            _link(blobs.path(digest), place)


def _link(file: Path, into: Path) -> None:
    """Give a file that never changes another name, or copy it where that cannot be."""
    into.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(file, into)
    except FileNotFoundError:
        raise BlobMissing(f"{file} has gone") from None
    except OSError:  # another disk, or one that knows no links
        copy(file, into)


def _noted(folder: Path, file: Path) -> BackupFile:
    state, name, digest = file.stat(), file.relative_to(folder).as_posix(), file_digest(file)
    if name.startswith(f"{BLOBS}/") and digest != f"sha256:{file.parent.name}{file.name}":
        raise BlobCorrupt(f"blob {file.parent.name}{file.name} has changed on disk since it was stored: check the disk")
    return BackupFile(name=name, bytes=state.st_size, mode=state.st_mode & 0o777, digest=digest)
