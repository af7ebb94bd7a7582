"""``fedcollm``: start the coordinator and its worker, and operate runs."""

from pathlib import Path
from typing import Annotated

import typer

from shared.console import EXIT_CODES, start, telling
from shared.errors import PartMissing

app = typer.Typer(
    help="Run a federation's coordinator, and operate its runs.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# `init` and `doctor` come here, so that they are first in the help.

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file; the environment wins over it.")]


@app.command()
def coordinator(*, config: ConfigFile = None) -> None:
    """Run the coordinator until it is told to stop."""
    with telling(as_json=False):
        try:
            from services.coordinator.__main__ import run  # noqa: PLC0415 - FastAPI and the store: no other command's
        except ImportError as error:
            raise PartMissing(_install("coordinator", error)) from None
    raise typer.Exit(run(config))


@app.command()
def worker(*, config: ConfigFile = None) -> None:
    """Run a co-tuning worker, which holds the models, until it is told to stop."""
    with telling(as_json=False):
        try:
            from services.coordinator.worker.__main__ import run  # noqa: PLC0415 - torch
        except ImportError as error:
            raise PartMissing(_install("worker", error)) from None
    raise typer.Exit(run(config))


def _install(extra: str, error: ImportError) -> str:
    return f"the {extra} is not installed here ({error.name} is missing): pip install 'fedcollm[{extra}]'"


def main() -> None:
    """Run the command line."""
    start(app, "fedcollm")


if __name__ == "__main__":
    main()
