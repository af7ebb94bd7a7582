"""How an operator's commands reach the coordinator: the options that say where it is, and a transport with patience."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from services.coordinator.cli.pages import all_members
from services.coordinator.cli.settings import OperatorSettings
from services.coordinator.cli.signing import Signer
from shared.answers import Answer
from shared.cli.console import AsJson, Output, or_here, telling
from shared.configuration import read_settings
from shared.credentials import BearerToken
from shared.egress import TrafficCount
from shared.errors import ConfigurationError
from shared.key_file import read_key
from shared.protocol.membership import MemberList
from shared.protocol.names import RunId
from shared.transport import OnRetry, Params, Transport, open_transport

OPERATOR_FILE = "operator.toml"

# Long enough for a coordinator that is being restarted.
PATIENCE_SECONDS = 10.0

_PANEL = "Coordinator"
Url: TypeAlias = Annotated[
    str | None,
    typer.Option("--coordinator", metavar="URL", help="Where the coordinator listens.", rich_help_panel=_PANEL),
]
TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="Holds the operator's token.", rich_help_panel=_PANEL),
]
CaFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="The only CA that is trusted.", rich_help_panel=_PANEL),
]
Insecure: TypeAlias = Annotated[
    bool,
    typer.Option("--insecure", help="Speak plain HTTP to another machine.", rich_help_panel=_PANEL),
]
OperatorFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"Says all of these; {OPERATOR_FILE} if there is one.",
        callback=or_here(OPERATOR_FILE),
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]


def run_id(text: str) -> str:
    """Return a run's id as it was written, if it can be one."""
    try:
        return TypeAdapter(RunId).validate_python(text)
    except ValidationError:
        raise typer.BadParameter(
            f"{text!r} is no run's id: it has up to 64 lower-case letters, digits and dashes, and no dash first"
        ) from None


RunName: TypeAlias = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", callback=run_id)]


@dataclass(frozen=True)
class Operator:
    """Who gives a command: ``output`` is where it tells, and the rest is what its options say of the coordinator."""

    output: Output
    coordinator: str | None
    token_file: Path | None
    ca_file: Path | None
    insecure: bool
    config: Path | None

    def settings(self) -> OperatorSettings:
        """Return which coordinator is meant: options win over the environment, and that over the file.

        Raises:
            ConfigurationError: it is not said, or cannot be used.
        """
        options = {
            "coordinator_url": self.coordinator,
            "token_file": self.token_file,
            "ca_file": self.ca_file,
            "insecure": self.insecure,
        }
        try:
            given = {name: value for name, value in options.items() if value}
            return read_settings(OperatorSettings, self.config, given=given)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{error}\nsay it with --coordinator and --token-file, or in {OPERATOR_FILE}"
            ) from None

    def signer(self) -> Signer:
        """Return the operator's key, and the federation that it signs for.

        Raises:
            ConfigurationError: the settings do not name both, or the key cannot be read.
        """
        found = self.signer_if_any()
        if found is None:
            raise ConfigurationError(
                f"only who has the operator's key can do this: set federation and key_file in {OPERATOR_FILE}"
            )
        return found

    def signer_if_any(self) -> Signer | None:
        """Return the operator's key where the settings name it; errors are those of ``signer``."""
        settings = self.settings()
        if settings.federation is None or settings.key_file is None:
            return None
        return Signer(settings.federation, read_key(settings.key_file))

    @asynccontextmanager
    async def connected(
        self, *, on_retry: OnRetry | None = None, patience_seconds: float | None = PATIENCE_SECONDS
    ) -> AsyncIterator[Transport]:
        """Open a transport to the coordinator; it tries again for a while before it says that nobody answers."""
        settings = self.settings()
        async with open_transport(
            settings.coordinator_url,
            BearerToken.read(settings.token_file),
            TrafficCount(),
            patience_seconds=patience_seconds,
            ca_file=settings.ca_file,
            insecure=settings.insecure,
            on_retry=on_retry or self.output.retrying,
        ) as transport:
            yield transport

    def ask(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        body: BaseModel | None = None,
        params: Params | None = None,
    ) -> Answer:
        """Send one request and return its answer."""

        async def asked() -> Answer:
            async with self.connected() as transport:
                return await transport.call(method, path, answer, body=body, params=params)

        return asyncio.run(asked())

    def members(self) -> MemberList:
        """Return all agents that were ever invited, page after page; errors are those of ``ask``."""

        async def asked() -> MemberList:
            async with self.connected() as transport:
                return await all_members(transport)

        return asyncio.run(asked())


def operating(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command of an operator the options that all of them have, and turn these into its ``Operator``."""

    def with_options(
        *,
        coordinator: Url = None,
        token_file: TokenFile = None,
        ca_file: CaFile = None,
        insecure: Insecure = False,
        config: OperatorFile = None,
        as_json: AsJson = False,
        **own: object,
    ) -> None:
        with telling(as_json=as_json) as output:
            command(Operator(output, coordinator, token_file, ca_file, insecure, config), **own)

    # Typer reads options off a signature: the command's own ones, less its Operator, and those above.
    _, *own = signature(command).parameters.values()
    *common, _ = signature(with_options).parameters.values()
    options = wraps(command)(with_options)
    options.__signature__ = Signature([*own, *common])  # type: ignore[attr-defined]
    options.__annotations__ = {option.name: option.annotation for option in (*own, *common)}
    return options
