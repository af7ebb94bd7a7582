"""What a run gave: scores, why rounds came to nothing, where time and bytes went, and what it made."""

from collections.abc import Iterator

from pydantic import BaseModel
from rich.console import RenderableType

from services.coordinator.cli.display import plain_table, reason_lines, score_table, state_line
from services.coordinator.cli.following import Followed, catch_up
from services.coordinator.cli.parts import time_spent, time_table
from shared.cli.console import size
from shared.protocol.messages import Artefact, ArtefactList, RoundView, RunView
from shared.protocol.rounds import RoundState
from shared.protocol.terms import FROZEN
from shared.transport import Transport

NO_ADAPTERS = "there are no adapters yet; the first come with the first published round"


class Report(BaseModel):
    """A run's report; ``seconds`` is by part, over all rounds, and an update is ``update_bytes`` long."""

    run: RunView
    rounds: tuple[RoundView, ...]
    seconds: dict[str, float]
    updates: int
    update_bytes: int
    artefacts: tuple[Artefact, ...]
    model_config = FROZEN


async def read_report(operator: Transport, run_id: str) -> Report:
    """Ask for everything that a report says."""
    followed = Followed()
    while await catch_up(operator, run_id, followed, wait_seconds=0):
        pass
    assert followed.run is not None  # noqa: S101 - our own invariant: catch_up reads it first
    listed = await operator.call("GET", f"/v1/runs/{run_id}/artefacts", ArtefactList)
    return Report(
        run=followed.run,
        rounds=followed.rounds,
        seconds=time_spent(followed.events).seconds,
        updates=sum(row.accepted for row in followed.rounds),
        # An update has the aggregate's layout, and so its length.
        update_bytes=max((row.aggregate_bytes or 0 for row in followed.rounds), default=0),
        artefacts=listed.artefacts,
    )


def report_lines(report: Report) -> Iterator[RenderableType]:
    """Yield the report for people."""
    run = report.run
    published = sum(row.state is RoundState.PUBLISHED for row in report.rounds)
    name = f" ({run.terms.name})" if run.terms.name else ""
    yield f"run {run.id}{name}: {state_line(run)}"
    yield f"LLM {run.terms.llm}"
    yield f"SLM {run.terms.slm}"
    yield f"{published} of {run.terms.rounds} rounds published"
    yield ""
    yield score_table(run, report.rounds, "accuracy and loss")
    yield from reason_lines(report.rounds)
    yield ""
    yield time_table(report.seconds)
    yield ""
    yield (
        f"{report.updates} updates of {size(report.update_bytes)} were accepted, "
        f"{size(report.updates * report.update_bytes)} in all"
    )
    yield ""
    yield artefacts_table(report.artefacts)


def artefacts_table(artefacts: tuple[Artefact, ...]) -> RenderableType:
    """Return the adapters that a run made."""
    if not artefacts:
        return NO_ADAPTERS
    table = plain_table("adapters")
    for column in ("name", "round", "size", "digest"):
        table.add_column(column, justify="left" if column in {"name", "digest"} else "right")
    for artefact in artefacts:
        table.add_row(artefact.name, str(artefact.round), size(artefact.bytes), artefact.digest)
    return table
