"""For co-tuning workers: leases, heartbeats, results, and blobs by digest. On a port of its own (docs/adr/0004)."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi import Body as JsonBody

from services.coordinator.context import AnyContext, Context, principal, version_of
from services.coordinator.principals import Principal, Role
from services.coordinator.routes.bodies import (
    RECEIVES_A_BLOB,
    SENDS_A_BLOB,
    UNLIMITED,
    AnnouncedDigest,
    AnnouncedLength,
    Body,
    receive,
    send,
)
from services.coordinator.routes.problems import problems
from shared.errors import BlobMissing, BlobTooLarge, LeaseLost, LengthRequired, MessageInvalid, NotFound
from shared.protocol.digests import DIGEST_PATTERN
from shared.protocol.messages import Accepted
from shared.protocol.questions import QuestionId
from shared.protocol.work import FailureRequest, Heartbeat, LeaseAnswer, LeaseRequest, QuestionOutcome, ResultRequest

router = APIRouter(prefix="/work", tags=["work"])

Worker = Annotated[Principal, Depends(principal(Role.WORKER))]
Sender = Annotated[Principal, Depends(principal(Role.WORKER, streamed=True))]
JobId = Annotated[str, Path(max_length=128)]
BlobDigest = Annotated[str, Path(pattern=DIGEST_PATTERN)]


@router.post("/lease", summary="Ask for work", responses=problems())
async def lease(context: AnyContext, worker: Worker, connection: Request, request: LeaseRequest) -> LeaseAnswer:
    context.presence.worker_asks(worker.name, request.worker, version=version_of(connection))
    return await context.changes.poll(
        lambda: _next(context, worker.name, request.worker),
        who=worker.name,
        ready=lambda answer: bool(answer.lease or answer.question),
        wait_seconds=request.wait_seconds,
        gone=connection.is_disconnected,
    )


def _next(context: Context, principal_name: str, worker: str) -> LeaseAnswer:
    """Return a run's work, or a question where there is none: nobody's round waits for an answer to that."""
    if granted := context.work.lease(principal_name, worker):
        return LeaseAnswer(lease=granted)
    return LeaseAnswer(lease=None, question=context.questions.next())


@router.put("/questions/{question_id}", summary="Answer a question", responses=problems())
def answer(
    context: AnyContext,
    _: Worker,
    question_id: Annotated[QuestionId, Path(description="As it was given with the question.")],
    outcome: Annotated[QuestionOutcome, JsonBody()],
) -> Accepted:
    context.questions.answer(question_id, outcome)
    return Accepted()


@router.post("/{job_id}/heartbeat", summary="Keep a lease", responses=problems(NotFound, LeaseLost))
def heartbeat(context: AnyContext, _: Worker, job_id: JobId, request: Heartbeat) -> Accepted:
    context.work.heartbeat(job_id, request.token)
    return Accepted()


@router.post("/{job_id}/result", summary="Hand in a result", responses=problems(NotFound, LeaseLost, BlobMissing))
def complete(context: AnyContext, worker: Worker, job_id: JobId, request: ResultRequest) -> Accepted:
    context.work.complete(job_id, request.token, request.result, actor=worker.name)
    return Accepted()


@router.post("/{job_id}/failure", summary="Say that work cannot be done", responses=problems(NotFound, LeaseLost))
def fail(context: AnyContext, worker: Worker, job_id: JobId, request: FailureRequest) -> Accepted:
    context.work.fail(
        job_id, request.token, request.code, request.message, actor=worker.name, elsewhere=request.elsewhere
    )
    return Accepted()


@router.get(
    "/blobs/{digest}",
    summary="Fetch any adapter",
    response_class=Response,
    responses=problems(NotFound, BlobMissing) | SENDS_A_BLOB,
)
def get_blob(
    context: AnyContext, _: Worker, digest: BlobDigest, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    return send(context.work.blob_path(digest), digest, if_none_match)


@router.put(
    "/blobs/{digest}",
    summary="Store an adapter",
    responses=problems(LengthRequired, BlobTooLarge, MessageInvalid),
    openapi_extra=RECEIVES_A_BLOB,
    max_body_size=UNLIMITED,
)
async def put_blob(
    context: AnyContext,
    _: Sender,
    body: Body,
    digest: BlobDigest,
    announced: AnnouncedDigest,
    size: AnnouncedLength,
) -> Accepted:
    context.work.require_blob(digest, announced, size)
    with context.blobs.receive(size=size) as incoming:
        await receive(body, incoming.write)
        await asyncio.to_thread(context.work.store_blob, incoming, digest)
    return Accepted()
