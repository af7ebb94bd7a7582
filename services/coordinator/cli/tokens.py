"""``fedcollm tokens``: issue, list and revoke tokens, on the coordinator's machine; a coordinator that runs notices."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.table import Table

from services.coordinator.cli.display import plain_table
from services.coordinator.principals import Role
from services.coordinator.settings import Settings
from services.coordinator.tokens import USUAL_DAYS, TokenEntry, TokenRole, TokensFile, issue, read_entries
from shared.cli.console import AsJson, or_here, telling
from shared.cli.files_written import write_private
from shared.configuration import read_settings
from shared.errors import NotFound, OutputExists
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN

tokens = typer.Typer(help="Issue, list and revoke tokens of operators, viewers and workers.", no_args_is_help=True)


def _name(text: str) -> str:
    try:
        return TypeAdapter(PrincipalName).validate_python(text)
    except ValidationError:
        raise typer.BadParameter(
            f"{text!r} is no name: it begins with a letter or digit and has up to 64 letters, digits, dots, dashes and "
            "underscores"
        ) from None


CoordinatorFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The coordinator's settings; coordinator.toml if there is one.",
        callback=or_here("coordinator.toml"),
        show_default=False,
    ),
]
Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is.", callback=_name)]


class Issued(BaseModel):
    """A token that was issued: where it lies, for whom, and when it ends."""

    name: str
    role: TokenRole
    not_after: datetime
    file: Path
    model_config = FROZEN


class Known(BaseModel):
    """Whose token the coordinator knows; the token itself it does not."""

    name: str
    role: TokenRole
    not_after: datetime
    model_config = FROZEN


class KnownList(BaseModel):
    """All of them, by name."""

    tokens: tuple[Known, ...]
    model_config = FROZEN


class Revoked(BaseModel):
    """Whose token the coordinator knows no more."""

    name: str
    model_config = FROZEN


@tokens.command("issue")
def issue_(
    name: Name,
    *,
    role: Annotated[Literal["operator", "viewer", "worker"], typer.Option("--role", help="What it is good for.")],
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long it holds.")] = USUAL_DAYS,
    into: Annotated[
        Path | None, typer.Option("--into", metavar="FILE", help="Where it is written; tokens/NAME if not named.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a token that NAME has.")] = False,
    config: CoordinatorFile = None,
    as_json: AsJson = False,
) -> None:
    """Issue a token, which takes effect at once, and write it into a file to hand over."""
    with telling(as_json=as_json) as output:
        principals = _principals_file(config)
        file = into or principals.parent / "tokens" / name
        token, entry = issue(Role(role), days=days)
        with changing(principals) as known:
            if name in known and not force:
                raise OutputExists(f"{name} has a token, as {known[name].role}: replace it with --force, or revoke it")
            write_private(file, token)
            known[name] = entry
        output.result(
            Issued(name=name, role=entry.role, not_after=entry.not_after, file=file),
            f"wrote {file}, the token of {name} as {entry.role} until {_day(entry)}: give it to them by a way that "
            "you trust, and delete it here unless it is used here; what runs with an older one has to be started again",
        )


@tokens.command("list")
def list_(*, config: CoordinatorFile = None, as_json: AsJson = False) -> None:
    """List who has a token, as what, and until when."""
    with telling(as_json=as_json) as output:
        known = sorted(read_entries(_principals_file(config)).items())
        found = tuple(Known(name=name, role=entry.role, not_after=entry.not_after) for name, entry in known)
        output.result(KnownList(tokens=found), _table(known))


@tokens.command()
def revoke(name: Name, *, config: CoordinatorFile = None, as_json: AsJson = False) -> None:
    """Revoke a token: its next request is refused."""
    with telling(as_json=as_json) as output:
        with changing(_principals_file(config)) as known:
            if known.pop(name, None) is None:
                raise NotFound(f"nobody called {name} has a token: `fedcollm tokens list` says who has")
        output.result(Revoked(name=name), f"{name} has no token any more")


def _principals_file(config: Path | None) -> Path:
    return read_settings(Settings, config).principals_file


@contextmanager
def changing(file: Path) -> Iterator[dict[str, TokenEntry]]:
    """Give the entries of the principals' file, and write what became of them, for the user that had it.

    Of two commands at once the second waits for the first: a token that was revoked stays so.
    """
    read_entries(file)  # which says what is wrong, if even its folder is not there
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        entries = dict(read_entries(file))
        yield entries
        owner = file.stat()
        write_private(file, TokensFile(entries).model_dump_json(indent=2))
        if os.geteuid() == 0:
            os.chown(file, owner.st_uid, owner.st_gid)
    finally:
        os.close(folder)


def _day(entry: TokenEntry) -> str:
    return entry.not_after.strftime("%Y-%m-%d")


def _table(known: list[tuple[str, TokenEntry]]) -> Table:
    table = plain_table("tokens")
    for column in ("name", "role", "until"):
        table.add_column(column, no_wrap=column == "until", overflow="fold")
    for name, entry in known:
        ended = " (ended)" if entry.not_after.timestamp() < time.time() else ""
        table.add_row(name, entry.role, f"{_day(entry)}{ended}")
    return table
