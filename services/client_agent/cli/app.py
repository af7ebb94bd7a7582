"""``fedcollm-agent``: run an organisation's agent, see what it does, use what it holds."""

from pathlib import Path
from typing import Annotated

import typer

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

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file; the environment wins over it.")]


@app.command()
def run(*, config: ConfigFile = None) -> None:
    """Take part in runs until told to stop."""
    with telling(as_json=False):
        try:
            from services.client_agent.__main__ import run as run_agent  # noqa: PLC0415 - FastAPI
        except ImportError as error:
            raise PartMissing(
                f"the agent is not installed here ({error.name} is missing): pip install 'fedcollm[agent]'"
            ) from None
    raise typer.Exit(run_agent(config))


def main() -> None:
    """Run the command line."""
    start(app, "fedcollm-agent")


if __name__ == "__main__":
    main()
