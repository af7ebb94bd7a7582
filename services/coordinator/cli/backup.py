"""``fedcollm backup`` and ``restore``, on the coordinator's machine: it may run while the first does its work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from services.coordinator.cli.tls import CA_FILE, CA_KEY
from services.coordinator.cli.tokens import CoordinatorFile
from services.coordinator.settings import Settings
from shared.cli.console import AsJson, telling
from shared.configuration import read_settings
from shared.errors import PartMissing
from shared.interrupts import importing

Folder: TypeAlias = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of the backup.")]


def backup(folder: Folder, *, config: CoordinatorFile = None, as_json: AsJson = False) -> None:
    """Write all that the coordinator is to a new folder; it may run meanwhile."""
    with telling(as_json=as_json) as output, _with_the_store():
        from services.coordinator.backup import back_up  # noqa: PLC0415 - the store: no other command's

        settings = read_settings(Settings, config)
        beside = {name: file for name, file in _beside(settings, config).items() if file.exists()}
        made = back_up(settings.data_dir, beside, folder, time.time, federation=settings.federation)
        size = sum(each.bytes for each in made.files)
        output.result(
            made,
            f"wrote {folder}: {len(made.files)} files, {size:,} bytes, the audit log up to entry {made.head.seq}",
            "it holds keys: keep it where nobody else can read it, and on another machine; "
            f"`fedcollm restore --check {folder}` checks it there",
        )


def restore(
    folder: Folder,
    *,
    check: Annotated[bool, typer.Option("--check", help="Check the backup, and put nothing back.")] = False,
    config: CoordinatorFile = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup back into an empty data_dir, with every run paused."""
    with telling(as_json=as_json) as output, _with_the_store():
        from services.coordinator.backup import read_backup  # noqa: PLC0415 - as above
        from services.coordinator.restoring import restore as put_back  # noqa: PLC0415

        if check:
            found = read_backup(folder)
            output.result(found, f"{folder} is whole: {len(found.files)} files, made {_when(found.taken_at)}")
            return
        settings = read_settings(Settings, config)
        done = put_back(folder, settings.data_dir, _beside(settings, config), time.time, federation=settings.federation)
        output.result(
            done,
            f"put back into {settings.data_dir} what was there {_when(done.backup.taken_at)}",
            *(f"wrote {file}" for file in done.written),
            *(f"{run_id} is paused: `fedcollm runs start {run_id}` lets it go on" for run_id in done.paused),
            "what came after that is unknown here: revoke again who was revoked since, and tell the agents' "
            "administrators (docs/upgrade.md)",
        )


def _beside(settings: Settings, config: Path | None) -> dict[str, Path]:
    """Return what a coordinator needs besides its data_dir, by its name in a backup."""
    files = {"principals.json": settings.principals_file}
    if config is not None:
        files["coordinator.toml"] = config
    if settings.tls_certificate_file is not None and settings.tls_key_file is not None:
        files |= {"server.pem": settings.tls_certificate_file, "server.key": settings.tls_key_file}
        files |= {name: settings.tls_certificate_file.with_name(name) for name in (CA_FILE, CA_KEY)}
    return files


@contextmanager
def _with_the_store() -> Iterator[None]:
    try:
        with importing():
            import sqlalchemy  # noqa: F401, PLC0415 - whether it is there
    except ImportError as error:
        raise PartMissing.of("coordinator", error.name) from None
    yield


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %Z}"
