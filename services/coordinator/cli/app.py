"""``fedcollm``: start the coordinator and its worker, and operate runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from services.coordinator.cli.adapters import adapters
from services.coordinator.cli.agents import agents
from services.coordinator.cli.audit import audit
from services.coordinator.cli.backup import backup, restore
from services.coordinator.cli.doctor import doctor
from services.coordinator.cli.init import init
from services.coordinator.cli.runs import runs
from services.coordinator.cli.tls import tls
from services.coordinator.cli.tokens import tokens
from shared.cli.console import EXIT_CODES, SpeakInsecurely, or_here, telling
from shared.errors import PartMissing
from shared.interrupts import importing

# One step a line, each short enough for 80 columns.
HELP = """
Co-tune a large language model and the small ones of many organisations.

First: `fedcollm init` writes the configuration, `fedcollm doctor` checks it.
Then serve: `fedcollm coordinator` and, with the models, `fedcollm worker`.
Then run: `fedcollm runs start RUN --terms run.toml --watch`.
At the end: `fedcollm runs report RUN` and `fedcollm adapters export`.

Organisations take part with `fedcollm-agent`.
"""

app = typer.Typer(
    help=HELP,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(init)
app.command()(doctor)
app.command()(backup)
app.command()(restore)


def _config(name: str) -> Any:  # noqa: ANN401 - what typer says it is
    return typer.Option(
        "--config",
        metavar="FILE",
        help=f"The service's settings; {name} if there is one. The environment wins over it.",
        callback=or_here(name),
        show_default=False,
    )


@app.command()
def coordinator(
    *,
    config: Annotated[Path | None, _config("coordinator.toml")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve plain HTTP to other machines.")] = False,
) -> None:
    """Run the coordinator until it is told to stop."""
    with telling(as_json=False):
        try:
            with importing():
                from services.coordinator.service import run  # noqa: PLC0415 - FastAPI and the store: no other command's
        except ImportError as error:
            raise PartMissing.of("coordinator", error.name) from None
    raise typer.Exit(run(config, insecure=insecure))


@app.command()
def worker(*, config: Annotated[Path | None, _config("worker.toml")] = None, insecure: SpeakInsecurely = False) -> None:
    """Run a co-tuning worker, which holds the models, until it is told to stop."""
    with telling(as_json=False):
        try:
            with importing():
                from services.coordinator.worker.service import run  # noqa: PLC0415 - torch
        except ImportError as error:
            raise PartMissing.of("worker", error.name) from None
    raise typer.Exit(run(config, insecure=insecure))


app.add_typer(agents, name="agents")
app.add_typer(tokens, name="tokens")
app.add_typer(runs, name="runs")
app.add_typer(adapters, name="adapters")
app.add_typer(audit, name="audit")
app.add_typer(tls, name="tls")
