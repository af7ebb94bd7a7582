"""How a command reaches the coordinator: the three options that say where it is, and a transport with some patience."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from pydantic import BaseModel, TypeAdapter, ValidationError

from services.coordinator.cli.settings import OperatorSettings
from shared.cli.console import Output
from shared.configuration import read_settings
from shared.errors import ConfigurationError
from shared.protocol.messages import RunId
from shared.transport import Answer, BearerToken, OnRetry, TrafficCount, Transport, open_transport

OPERATOR_FILE = Path("operator.toml")

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
OperatorFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"Says both; {OPERATOR_FILE} if there is one.",
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


def read_operator(url: str | None, token_file: Path | None, config: Path | None) -> OperatorSettings:
    """Return which coordinator is meant: options win over the environment, and that over the file.

    Raises:
        ConfigurationError: it is not said, or cannot be used.
    """
    options = {"coordinator_url": url, "token_file": token_file}
    if config is None and OPERATOR_FILE.exists():
        config = OPERATOR_FILE
    try:
        return read_settings(OperatorSettings, config, given={name: value for name, value in options.items() if value})
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}\nsay it with --coordinator and --token-file, or in {OPERATOR_FILE}"
        ) from None


@asynccontextmanager
async def connect(
    settings: OperatorSettings, on_retry: OnRetry, *, patience_seconds: float | None = PATIENCE_SECONDS
) -> AsyncIterator[Transport]:
    """Open a transport to the coordinator; it tries again for a while before it says that nobody answers."""
    token = BearerToken.read(settings.token_file)
    async with open_transport(
        settings.coordinator_url,
        token,
        TrafficCount(),
        patience_seconds=patience_seconds,
        ca_file=settings.ca_file,
        on_retry=on_retry,
    ) as transport:
        yield transport


def ask(
    settings: OperatorSettings,
    output: Output,
    method: str,
    path: str,
    answer: type[Answer],
    *,
    body: BaseModel | None = None,
    params: Mapping[str, str | int | float] | None = None,
) -> Answer:
    """Send one request and return its answer."""

    async def asked() -> Answer:
        async with connect(settings, output.retrying) as operator:
            return await operator.call(method, path, answer, body=body, params=params)

    return asyncio.run(asked())
