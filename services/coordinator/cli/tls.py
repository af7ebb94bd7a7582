"""``fedcollm tls``: a private CA, and the coordinator's certificate from it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel

from services.coordinator.certificates import (
    CertifiedKey,
    host_name,
    hosts_of,
    issue,
    new_authority,
    read_authority,
    read_certificate,
    sha256_of,
)
from shared.cli.console import AsJson, Output, telling
from shared.cli.files_written import require_free, write_private, write_text
from shared.cli.questions import Questions
from shared.errors import ConfigurationError
from shared.protocol.terms import FROZEN

CA_FILE, CA_KEY, CERTIFICATE, KEY = FILES = ("ca.pem", "ca.key", "server.pem", "server.key")

Folder: TypeAlias = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where the four files are.")]
Hosts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--host", metavar="HOST", help="A name or an IP address at which it is reached; may be given several times."
    ),
]

tls = typer.Typer(help="Certificates for the coordinator.", no_args_is_help=True)


class Issued(BaseModel):
    """What was written: the coordinator's certificate, for which hosts and how long, and whose it is."""

    files: tuple[Path, ...]
    hosts: tuple[str, ...]
    until: datetime
    ca_sha256: str
    ca_until: datetime
    model_config = FROZEN


@tls.command("init")
def init(
    folder: Folder = Path("tls"),
    *,
    host: Hosts = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing, and take this machine's name.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a CA that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a private CA, and the coordinator's certificate from it."""
    with telling(as_json=as_json) as output:
        require_free([folder / name for name in FILES], force=force)
        hosts = Questions(output, asking=not (yes or as_json)).ask(
            "Names and addresses at which other machines reach the coordinator, with commas",
            given=",".join(host) if host else None,
            option="--host",
            check=_one_or_more,
            default=gethostname(),
        )
        _tell(output, folder, write_authority(folder, hosts))


@tls.command("issue")
def renew(folder: Folder = Path("tls"), *, host: Hosts = None, as_json: AsJson = False) -> None:
    """Make a new certificate from the CA that is there, for the hosts of the one before or for others."""
    with telling(as_json=as_json) as output:
        authority = read_authority(folder / CA_FILE, folder / CA_KEY)
        hosts = parse_hosts(host) if host else hosts_of(read_certificate(folder / CERTIFICATE))
        written = _write_certificate(folder, authority, hosts)
        output.result(
            written,
            *_written(written),
            "next: start the coordinator again; agents, worker and operators change nothing",
        )
        if written.until == written.ca_until:
            output.note(
                f"the CA itself is over on {written.ca_until:%Y-%m-%d}: make another in a new folder in time, and let "
                "everybody's ca_file hold both until the coordinator has a certificate of the new one"
            )


def write_authority(folder: Path, hosts: Sequence[str]) -> Issued:
    """Write a new CA, and a certificate for the coordinator, into a folder."""
    authority = new_authority(datetime.now(UTC))
    write_private(folder / CA_KEY, authority.key_pem)
    write_text(folder / CA_FILE, f"{authority.certificate_pem}\n")
    issued = _write_certificate(folder, authority, hosts)
    return issued.model_copy(update={"files": tuple(folder / name for name in FILES)})


def _write_certificate(folder: Path, authority: CertifiedKey, hosts: Sequence[str]) -> Issued:
    issued = issue(authority, hosts, datetime.now(UTC))
    write_private(folder / KEY, issued.key_pem)
    write_text(folder / CERTIFICATE, f"{issued.certificate_pem}\n")
    return Issued(
        files=(folder / CERTIFICATE, folder / KEY),
        hosts=tuple(hosts_of(issued.certificate)),
        until=issued.certificate.not_valid_after_utc,
        ca_sha256=sha256_of(authority.certificate),
        ca_until=authority.certificate.not_valid_after_utc,
    )


def parse_hosts(answers: Sequence[str]) -> list[str]:
    """Return the hosts that were named, in an answer or in several, with or without commas."""
    return [host_name(part.strip()) for answer in answers for part in answer.split(",") if part.strip()]


def _one_or_more(answer: str) -> list[str]:
    hosts = parse_hosts([answer])
    if not hosts:
        raise ConfigurationError("name one host or more: a DNS name or an IP address")
    return hosts


def _written(written: Issued) -> list[str]:
    return [
        *(f"wrote {file}" for file in written.files),
        f"for {', '.join(written.hosts)}; until {written.until:%Y-%m-%d}",
    ]


def _tell(output: Output, folder: Path, written: Issued) -> None:
    output.result(
        written,
        *_written(written),
        f"the CA has SHA-256 {written.ca_sha256}; until {written.ca_until:%Y-%m-%d}",
        "next: in coordinator.toml:",
        '        host = "0.0.0.0"',
        f'        tls_certificate_file = "{folder / CERTIFICATE}"',
        f'        tls_key_file = "{folder / KEY}"',
        "      in worker.toml and operator.toml, with https:// in coordinator_url:",
        f'        ca_file = "{folder / CA_FILE}"',
        f"give {folder / CA_FILE} to every organisation: it is all that its agent trusts (ca_file in agent.toml)",
        f"keep {folder / CA_KEY} off the coordinator's machine: only `fedcollm tls issue` needs it, once a year",
    )
