"""``fedcollm-agent report``: what runs have brought this organisation, measured on its hold-out."""

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import RenderableType
from rich.table import Table

from services.client_agent.cli.status import AgentFile
from services.client_agent.holdout_report import RunReport, accuracy, gains, loss, reports, rows, verdict
from services.client_agent.ledger_report import in_utc
from services.client_agent.settings import Settings
from shared.access import require_readable
from shared.cli.console import AsJson, telling
from shared.configuration import read_settings
from shared.errors import about

NOTHING = "no report yet: set holdout.path to examples that are not trained on; it begins with the agent's next round"


def report(*, config: AgentFile = None, as_json: AsJson = False) -> None:
    """Say what runs have brought, measured on the hold-out; nothing of it leaves this machine."""
    with telling(as_json=as_json) as output:
        state_dir = _state_dir(config)
        found = reports(state_dir)
        output.result(found, *(part for run in found.runs for part in _parts(run)), *([] if found.runs else [NOTHING]))


def _state_dir(config: Path | None) -> Path:
    settings = read_settings(Settings, config)
    with about("state_dir"):
        require_readable(settings.state_dir)
    return settings.state_dir


def _parts(run: RunReport) -> Iterator[RenderableType]:
    shown, named = run.shown, f" ({run.run_name})" if run.run_name else ""
    yield f"run       {run.run_id}{named}{f', round {shown.round}' if shown else ''}"
    yield f"as of     {in_utc(run.at)} UTC"
    if run.trouble:
        yield f"trouble   {run.trouble}"
    if run.zero_shot is None:
        return
    also = f"; {run.left_out} more are trained on too and left out" if run.left_out else ""
    guessing = f"; guessing scores {100 * run.chance:.1f} %" if run.chance else ""
    yield f"hold-out  {run.examples} examples{also}{guessing}"
    yield f"result    {verdict(run)}"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("", "tokens right" if run.completions else "right", "loss", "what it is"):
        table.add_column(name, overflow="fold")
    for row in rows(run):
        told = (accuracy(row.result), loss(row.result)) if row.result else (row.why, "")
        table.add_row(row.method, *told, row.what)
    if shown and shown.gain:
        table.add_row("FedCoLLM less own data", *gains(shown.gain), "on the same examples")
    yield table
