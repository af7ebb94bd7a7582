"""What a run gave: scores, why rounds came to nothing, where time and bytes went, and what it made."""

from collections.abc import Iterator

from pydantic import BaseModel
from rich.console import Group, RenderableType

from services.coordinator.cli.display import (
    Fitting,
    masking_lines,
    plain_table,
    reason_lines,
    score_table,
    state_line,
)
from services.coordinator.cli.following import Followed, catch_up
from services.coordinator.cli.parts import time_spent, time_table
from shared.cli.console import size
from shared.protocol.codec import blob_bytes
from shared.protocol.manifest import SignedManifest
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
    readable = followed.run.terms.aggregation == "PlaintextAggregation"
    prepared = followed.run.base_scores is not None  # and so it has a manifest, by which all updates are of one length
    signed = await operator.call("GET", f"/v1/runs/{run_id}/manifest", SignedManifest) if prepared else None
    listed = await operator.call("GET", f"/v1/runs/{run_id}/artefacts", ArtefactList)
    return Report(
        run=followed.run,
        rounds=followed.rounds,
        seconds=time_spent(followed.events).seconds,
        # Masked, only those of which a sum was made have left their agents; before it they are ready.
        updates=sum(row.accepted for row in followed.rounds if readable or row.aggregate_bytes is not None),
        update_bytes=blob_bytes(signed.manifest.layout) if signed else 0,
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
    yield Fitting(
        score_table(run, report.rounds, "accuracy and loss"),
        Group(score_table(run, report.rounds), "", score_table(run, report.rounds, "loss")),
    )
    yield from masking_lines(run, report.rounds)
    yield from reason_lines(report.rounds)
    yield ""
    yield time_table(report.seconds)
    yield ""
    yield _updates_line(report.updates, report.update_bytes)
    yield ""
    yield artefacts_table(report.artefacts)


def _updates_line(count: int, length: int) -> str:
    match count:
        case 0:
            return "no update was accepted"
        case 1:
            return f"1 update of {size(length)} was accepted"
        case _:
            return f"{count} updates of {size(length)} were accepted, {size(count * length)} in all"


def artefacts_table(artefacts: tuple[Artefact, ...]) -> RenderableType:
    """Return the adapters that a run made."""
    if not artefacts:
        return NO_ADAPTERS
    table = plain_table("adapters")
    for column in ("name", "round", "size"):
        table.add_column(column, justify="left" if column == "name" else "right", no_wrap=True)
    table.add_column("digest", overflow="fold")
    for artefact in artefacts:
        table.add_row(artefact.name, str(artefact.round), size(artefact.bytes), artefact.digest)
    return table
