"""``fedcollm agents``: invite, approve and revoke the agents of the federation."""

import time
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError
from rich.table import Table

from services.coordinator.cli.connection import OPERATOR_FILE, Operator, operating
from services.coordinator.cli.display import plain_table
from services.coordinator.cli.signing import Signer
from shared.access import require_readable
from shared.cli.files_written import write_private
from shared.errors import ConfigurationError, MemberConflict, NotFound, about
from shared.loopback import is_here
from shared.protocol.identity import fingerprint
from shared.protocol.membership import MemberList, MemberView, RevocationRequest
from shared.protocol.names import PrincipalName
from shared.protocol.terms import FROZEN

agents = typer.Typer(help="Invite, approve and revoke agents, and list them.", no_args_is_help=True)

HOUR_SECONDS, DAY_SECONDS = 3600, 86_400


def name(text: str) -> str:
    """Return an agent's name as it was written, if it can be one."""
    try:
        return str(TypeAdapter(PrincipalName).validate_python(text))
    except ValidationError:
        raise typer.BadParameter(
            f"{text!r} is no agent's name: it begins with a letter or digit and has up to 64 letters, digits, dots, "
            "dashes and underscores"
        ) from None


def names(texts: list[str]) -> list[str]:
    """Return agents' names as they were written, if they can be ones."""
    return [name(text) for text in texts]


Name: TypeAlias = Annotated[str, typer.Argument(metavar="AGENT", help="What it is called.", callback=name)]
Names: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="AGENT...", help="What they are called.", callback=names)
]


class Invited(BaseModel):
    """Which files were written, one for each agent, and how long they are good."""

    files: dict[str, Path]
    expires_at: int
    model_config = FROZEN


@agents.command()
@operating
def invite(
    operator: Operator,
    invited: Names,
    *,
    hours: Annotated[int, typer.Option("--hours", min=1, max=720, help="How long an invitation is good.")] = 24,
    folder: Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="Where the invitations go.")] = Path(),
) -> None:
    """Write an invitation for each agent, AGENT.invitation, to be given to its organisation alone."""
    settings, signer = operator.settings(), operator.signer()
    there = settings.agents_url or settings.coordinator_url
    expires_at = int(time.time()) + hours * HOUR_SECONDS
    certificate = None if settings.ca_file is None else _text(settings.ca_file)
    files = {}
    for one in invited:
        invitation = signer.invite(one, coordinator_url=there, expires_at=expires_at, ca_certificate=certificate)
        operator.ask("PUT", f"/v1/agents/{one}/invitation", MemberView, body=invitation.told())
        files[one] = folder / f"{one}.invitation"
        write_private(files[one], invitation.model_dump_json(indent=2))
    if is_here(urlsplit(there).hostname or ""):
        operator.output.note(f"only agents on this machine reach {there}: for others set agents_url in {OPERATOR_FILE}")
    operator.output.result(
        Invited(files=files, expires_at=expires_at),
        *(f"wrote {file}: give it to whoever runs {one}, and to nobody else" for one, file in files.items()),
        f"each lets one agent in at {there}, until {_time(expires_at)}",
        f"next: they enrol, and `fedcollm agents approve {' '.join(files)}` makes them members",
    )


@agents.command("list")
@operating
def list_(operator: Operator) -> None:
    """List all agents that were ever invited."""
    found = operator.members()
    nothing = "no agents yet: `fedcollm agents invite AGENT` invites one"
    operator.output.result(found, _table(found) if found.agents else nothing)


@agents.command()
@operating
def approve(
    operator: Operator,
    enrolled: Names,
    *,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="How long they are members.")] = 365,
    expected: Annotated[
        str | None,
        typer.Option("--code", metavar="DIGITS", help="The check code that the organisation has read."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing: the keys have been compared.")] = False,
) -> None:
    """Make agents members, each by a certificate for the key that it has brought; again, for longer.

    Compare each check code with what the agent's administrator reads, by telephone for instance: whoever got hold of
    an invitation on its way would have brought another key, or would have named another operator in it.
    """
    if expected is not None and len(enrolled) > 1:
        raise ConfigurationError("--code is of one agent: approve the others by commands of their own")
    signer = operator.signer()
    found = {one.name: one for one in operator.members().agents}
    keys = {one: _compared(operator, signer, found.get(one), one, expected=expected, yes=yes) for one in enrolled}
    not_after = int(time.time()) + days * DAY_SECONDS
    approved = tuple(
        operator.ask(
            "PUT", f"/v1/agents/{one}/certificate", MemberView, body=signer.certify(one, key, not_after=not_after)
        )
        for one, key in keys.items()
    )
    told = (f"{one.name} is a member with the key {_fingerprint(one)}, {_until(one)}" for one in approved)
    operator.output.result(MemberList(agents=approved), *told)


@agents.command()
@operating
def revoke(
    operator: Operator,
    member: Name,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; the audit log keeps it.")],
) -> None:
    """Let an agent do nothing any more, from its next request on; a new invitation lets it come back."""
    revoked = operator.ask("POST", f"/v1/agents/{member}/revoke", MemberView, body=RevocationRequest(reason=reason))
    operator.output.result(revoked, f"{member} is revoked")


def _compared(
    operator: Operator, signer: Signer, member: MemberView | None, name: str, *, expected: str | None, yes: bool
) -> str:
    """Return the key that an agent has brought, if the operator says that it is its own."""
    if member is None:
        raise NotFound(f"no agent {name} was invited: `fedcollm agents invite {name}` does it")
    if member.key is None:
        raise MemberConflict(f"{name} has not enrolled yet: ask its administrator for `fedcollm-agent enrol`")
    found = signer.check_code(name, member.key)
    if expected is not None and expected.strip().lower() != found:
        raise MemberConflict(
            f"the check code of {name} is {found}, and not {expected}: somebody else may have used the invitation, or "
            f"changed it; `fedcollm agents revoke {name}` and invite it again"
        )
    if expected is None and not yes:
        if operator.output.as_json:
            raise ConfigurationError("nobody is asked with --json: say --code, or --yes")
        operator.output.note(f"{name} has brought a key; the check code is {found}")
        if not typer.confirm("Does its administrator read the same?", err=True):
            raise MemberConflict(f"{name} was not approved: `fedcollm agents revoke {name}`, and invite it again")
    return member.key


def _text(ca_file: Path) -> str:
    with about("ca_file"):
        require_readable(ca_file)
    return ca_file.read_text(encoding="ascii", errors="replace")


def _table(found: MemberList) -> Table:
    table = plain_table("agents")
    for column in ("agent", "state", "key", "until", "heard"):
        table.add_column(column, no_wrap=column not in {"agent", "heard"}, overflow="fold")
    for one in found.agents:
        table.add_row(one.name, one.state, _fingerprint(one), _until(one).removeprefix("until "), _heard(one))
    return table


def _heard(member: MemberView) -> str:
    """Say when an agent was heard of last, and what is odd about it."""
    if member.heard is None:
        return ""
    left = ", has stopped" if member.heard.left else ""
    second = "" if member.heard.second_at is None else f"; a second one was refused {_time(member.heard.second_at)}"
    return f"{_time(member.heard.at)}{left}{second}"


def _fingerprint(member: MemberView) -> str:
    return "" if member.key is None else fingerprint(member.key)


def _until(member: MemberView) -> str:
    """Say until when an agent is a member, or may become one."""
    until = member.invitation_expires_at if member.key is None else member.not_after
    return "" if until is None else f"until {_time(until)}"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
