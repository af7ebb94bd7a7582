"""``fedcollm-agent``: run an organisation's agent, see what it does, use what it holds."""

import typer

from services.client_agent.cli.adapters import adapters
from services.client_agent.cli.doctor import doctor
from services.client_agent.cli.enrol import enrol
from services.client_agent.cli.init import init
from services.client_agent.cli.ledger import ledger
from services.client_agent.cli.report import report
from services.client_agent.cli.status import AgentFile, status
from shared.cli.console import EXIT_CODES, SpeakInsecurely, telling
from shared.errors import PartMissing
from shared.interrupts import importing

# One step a line, each short enough for 80 columns.
HELP = """
Take part in a federation with data that stays here.

First: `fedcollm-agent init` writes the configuration and enrols, `doctor` checks.
Then: `fedcollm-agent run` takes part, `status` says what it is doing.
At any time: `fedcollm-agent ledger` says what has left this machine.
With a hold-out: `fedcollm-agent report` says what the runs have brought.
At the end: `fedcollm-agent adapters export` hands out the adapter it holds.
"""

app = typer.Typer(
    help=HELP,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(init)
app.command()(enrol)
app.command()(doctor)


@app.command()
def run(*, config: AgentFile = None, insecure: SpeakInsecurely = False) -> None:
    """Take part in runs until told to stop."""
    with telling(as_json=False):
        try:
            with importing():
                from services.client_agent.service import run as run_agent  # noqa: PLC0415 - FastAPI: no other command's
        except ImportError as error:
            raise PartMissing.of("agent", error.name) from None
    raise typer.Exit(run_agent(config, insecure=insecure))


app.command()(status)
app.command()(ledger)
app.command()(report)
app.add_typer(adapters, name="adapters")
