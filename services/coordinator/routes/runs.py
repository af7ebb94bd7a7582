"""Runs, for operators and viewers: lifecycle, rounds, events, artefacts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from services.coordinator.context import AnyContext, principal
from services.coordinator.lifecycle import MOST_A_PAGE
from services.coordinator.principals import Principal, Role
from services.coordinator.routes.bodies import SENDS_A_BLOB, send
from services.coordinator.routes.problems import problems
from shared.errors import IllegalTransition, NotFound, RunConflict, SignatureInvalid
from shared.protocol.manifest import ManifestSignature
from shared.protocol.messages import (
    ArtefactList,
    CancelRequest,
    Event,
    EventList,
    RoundList,
    RunList,
    RunView,
    WaitSeconds,
)
from shared.protocol.names import LAST_ROUND, RunId
from shared.protocol.terms import RunTerms

router = APIRouter(prefix="/runs", tags=["runs"])

RunPath = Annotated[RunId, Path(description="Chosen by who makes the run.")]
Operator = Annotated[Principal, Depends(principal(Role.OPERATOR))]
Viewer = Annotated[Principal, Depends(principal(Role.OPERATOR, Role.VIEWER))]


Limit = Annotated[int, Query(ge=1, le=MOST_A_PAGE)]


@router.get("", summary="List the runs, newest first", responses=problems(NotFound))
def list_runs(
    context: AnyContext,
    _: Viewer,
    before: Annotated[RunId | None, Query(description="Runs older than this one.")] = None,
    limit: Limit = 20,
) -> RunList:
    return context.lifecycle.runs(before=before, limit=limit)


@router.put("/{run_id}", summary="Make a draft of a run", responses=problems(RunConflict))
def create_run(context: AnyContext, operator: Operator, run_id: RunPath, terms: RunTerms) -> RunView:
    return context.lifecycle.create(run_id, terms, actor=operator.name)


@router.get("/{run_id}", summary="Look at a run", responses=problems(NotFound))
def get_run(context: AnyContext, _: Viewer, run_id: RunPath) -> RunView:
    return context.lifecycle.run(run_id)


@router.post("/{run_id}/start", summary="Start or resume a run", responses=problems(NotFound, IllegalTransition))
def start_run(context: AnyContext, operator: Operator, run_id: RunPath) -> RunView:
    return context.lifecycle.start(run_id, actor=operator.name)


@router.put(
    "/{run_id}/manifest/signature",
    summary="Sign what a run is, so that its rounds open",
    responses=problems(NotFound, SignatureInvalid),
)
def sign_run(context: AnyContext, operator: Operator, run_id: RunPath, signed: ManifestSignature) -> RunView:
    return context.lifecycle.sign(run_id, signed.signature, actor=operator.name)


@router.post("/{run_id}/pause", summary="Hand out nothing more", responses=problems(NotFound, IllegalTransition))
def pause_run(context: AnyContext, operator: Operator, run_id: RunPath) -> RunView:
    return context.lifecycle.pause(run_id, actor=operator.name)


@router.post("/{run_id}/cancel", summary="End a run for good", responses=problems(NotFound))
def cancel_run(context: AnyContext, operator: Operator, run_id: RunPath, request: CancelRequest) -> RunView:
    return context.lifecycle.cancel(run_id, request.reason, actor=operator.name)


@router.get("/{run_id}/rounds", summary="List the rounds of a run", responses=problems(NotFound))
def list_rounds(
    context: AnyContext,
    _: Viewer,
    run_id: RunPath,
    after: Annotated[int, Query(ge=0, le=LAST_ROUND)] = 0,
    limit: Limit = MOST_A_PAGE,
) -> RoundList:
    return context.lifecycle.rounds(run_id, after=after, limit=limit)


@router.get("/{run_id}/events", summary="Follow the run's log", responses=problems(NotFound))
async def list_events(
    context: AnyContext,
    viewer: Viewer,
    connection: Request,
    run_id: RunPath,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    wait_seconds: WaitSeconds = 0,
) -> EventList:
    events = await context.changes.poll(
        lambda: context.lifecycle.events(run_id, after=after),
        who=viewer.name,
        ready=bool,
        wait_seconds=wait_seconds,
        gone=connection.is_disconnected,
    )
    return EventList(
        events=tuple(Event(seq=e.seq, at=e.at, kind=e.kind, round=e.round, detail=e.detail) for e in events),
        last=events[-1].seq if events else after,
    )


@router.get("/{run_id}/artefacts", summary="List what a run made", responses=problems(NotFound))
def list_artefacts(context: AnyContext, _: Viewer, run_id: RunPath) -> ArtefactList:
    return ArtefactList(artefacts=tuple(context.lifecycle.artefacts(run_id)))


@router.get(
    "/{run_id}/artefacts/{name}",
    summary="Fetch an adapter that a run made",
    response_class=Response,
    responses=problems(NotFound) | SENDS_A_BLOB,
)
def get_artefact(
    context: AnyContext,
    _: Operator,
    run_id: RunPath,
    name: Annotated[str, Path(max_length=64)],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    digest, path = context.lifecycle.artefact_path(run_id, name)
    return send(path, digest, if_none_match)
