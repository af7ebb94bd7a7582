"""``fedcollm-agent``: run an organisation's agent, see what it does, use what it holds."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from services.client_agent.cli.adapters import adapters
from services.client_agent.cli.status import status
from shared.console import EXIT_CODES, start, telling
from shared.errors import PartMissing

app = typer.Typer(
    help="Run an organisation's agent, see what it does, and use the adapter that it holds.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# `init` and `doctor` come here, so that they are first in the help.

ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML file; FEDCOLLM_AGENT_* in the environment win.")
]


@app.command()
def run(*, config: ConfigFile = None) -> None:
    """Take part in runs until told to stop."""
    with telling(as_json=False):
        try:
            from services.client_agent.__main__ import run as run_agent  # noqa: PLC0415 - FastAPI: no other command's
        except ImportError as error:
            raise PartMissing("agent", error.name) from None
    raise typer.Exit(run_agent(config))


app.command()(status)
app.add_typer(adapters, name="adapters")


def main() -> None:
    """Run the command line."""
    start(app, "fedcollm-agent")


if __name__ == "__main__":
    main()
