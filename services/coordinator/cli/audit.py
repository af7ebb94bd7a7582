"""``fedcollm audit``: read the audit log, copy it, and check that nothing in it was changed."""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel
from rich.table import Table

from services.coordinator.cli.audit_logs import asked_entries, asked_head, exported_entries, exported_head
from services.coordinator.cli.connection import OPERATOR_FILE, Operator, operating
from services.coordinator.cli.display import plain_table
from shared.access import refusal
from shared.cli.files_written import require_free, write_text
from shared.errors import ConfigurationError
from shared.protocol.audit import AuditEntry, AuditPage, Chain, SignedHead, require_head, require_later
from shared.protocol.identity import fingerprint
from shared.protocol.terms import FROZEN

audit = typer.Typer(help="Read the audit log, and check that nothing in it was changed.", no_args_is_help=True)

Limit: TypeAlias = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")]
Copy: TypeAlias = Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, JSON lines.")]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace an older file.")]
Exported: TypeAlias = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="Check a log that was exported, and ask no coordinator."),
]
Remembered: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--head",
        metavar="FILE",
        help=f"Heads that the log must go on from: an agent's audit-heads.jsonl, or the one that was verified last, in "
        f"audit-head.json beside {OPERATOR_FILE} unless another is named.",
        show_default=False,
    ),
]


class AuditCopy(BaseModel):
    """A log that was written to a file."""

    file: Path
    entries: int
    model_config = FROZEN


class Verified(BaseModel):
    """A log that is right from its first entry to its head; ``before`` is the newest head that was known of it."""

    head: SignedHead
    before: SignedHead | None
    model_config = FROZEN


@audit.command("list")
@operating
def list_(operator: Operator, *, limit: Limit = 20) -> None:
    """List the newest entries, oldest first; nothing is checked."""
    last = asked_head(operator).head.seq
    page = AuditPage(entries=tuple(asked_entries(operator, after=max(0, last - limit), last=last)))
    operator.output.result(page, _table(page.entries))


@audit.command()
@operating
def export(operator: Operator, file: Copy, *, force: Force = False) -> None:
    """Write the whole log, with its signed head, to a file that can be checked anywhere."""
    require_free([file], force=force)
    told = asked_head(operator)
    entries = list(asked_entries(operator, after=0, last=told.head.seq))
    write_text(file, "".join(f"{line.model_dump_json()}\n" for line in (told, *entries)))
    operator.output.result(
        AuditCopy(file=file, entries=len(entries)),
        f"{file} ({len(entries)} entries); `fedcollm audit verify --file {file}` checks it",
    )


@audit.command()
@operating
def verify(operator: Operator, *, file: Exported = None, head: Remembered = None) -> None:
    """Check every entry, the coordinator's signature, and that the log goes on from what was verified last.

    The exit code is 1 if it does not; the first wrong entry is named.
    """
    remembered = head or (operator.config or Path(OPERATOR_FILE)).with_name("audit-head.json")
    known = _remembered(remembered)
    told = asked_head(operator) if file is None else exported_head(file)
    require_head(told, known=None)
    for signed in known:
        require_head(signed, known=None)
        require_later(told, signed)
    chain = Chain(*(signed.head for signed in known), told.head)
    for entry in exported_entries(file) if file else asked_entries(operator, after=0, last=told.head.seq):
        chain.append(entry)
    chain.require_whole()
    if len(known) <= 1 and told not in known:  # a file of several is somebody's evidence
        write_text(remembered, f"{told.model_dump_json()}\n")
    before = max(known, key=lambda signed: signed.head.seq, default=None)
    operator.output.result(Verified(head=told, before=before), *_told(told, known, remembered))


def _remembered(file: Path) -> list[SignedHead]:
    try:
        return [SignedHead.model_validate_json(line) for line in file.read_bytes().splitlines() or [b""]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(refusal(file, error)) from None
    except ValueError:
        raise ConfigurationError(
            f"{file} holds no head of an audit log: put its copy back, or name another file with --head"
        ) from None


def _told(told: SignedHead, known: Sequence[SignedHead], remembered: Path) -> Iterable[str]:
    yield f"the audit log of {told.head.federation} is right, from its first entry to entry {told.head.seq}"
    if not known:
        yield (
            f"nothing was verified before: from now on {remembered} remembers this head, and that the coordinator "
            f"signs with {fingerprint(told.key)}"
        )
    elif len(known) == 1:
        yield f"it goes on from entry {known[0].head.seq}, which was verified last"
    else:
        yield f"all {len(known)} heads in {remembered} are of it"


def _table(entries: Iterable[AuditEntry]) -> Table:
    table = plain_table("the newest entries of the audit log, not checked")
    for column in ("entry", "when", "actor", "action", "subject", "detail"):
        table.add_column(column, justify="right" if column == "entry" else "left", overflow="fold")
    for entry in entries:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
        detail = json.dumps(entry.detail, ensure_ascii=False) if entry.detail else ""
        table.add_row(str(entry.seq), when, entry.actor, entry.action, entry.subject, detail)
    return table
