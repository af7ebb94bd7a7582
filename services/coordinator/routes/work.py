"""For co-tuning workers: leases, heartbeats, results, and blobs by digest. On a port of its own (docs/adr/0004)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi import Body as JsonBody

from services.coordinator.context import AnyContext, Context, principal, version_of
from services.coordinator.principals import Principal, Role
from services.coordinator.routes.bodies import (
    RECEIVES_A_BLOB,
    RECEIVES_THE_REST,
    SENDS_A_BLOB,
    TELLS_THE_OFFSET,
    UNLIMITED,
    AllOfIt,
    Announced,
    Body,
    Chunks,
    RestOfIt,
    incoming,
    offset,
    receive,
    send,
)
from services.coordinator.routes.problems import problems
from shared.errors import (
    BlobMissing,
    BlobTooLarge,
    LeaseLost,
    LengthRequired,
    MessageInvalid,
    NotFound,
    UploadOffsetMismatch,
)
from shared.protocol.digests import DIGEST_PATTERN
from shared.protocol.messages import Accepted
from shared.protocol.questions import QuestionId
from shared.protocol.work import FailureRequest, Heartbeat, LeaseAnswer, LeaseRequest, QuestionOutcome, ResultRequest

router = APIRouter(prefix="/work", tags=["work"])

Worker = Annotated[Principal, Depends(principal(Role.WORKER))]
Sender = Annotated[Principal, Depends(principal(Role.WORKER, streamed=True))]
JobId = Annotated[str, Path(max_length=128)]
BlobDigest = Annotated[str, Path(pattern=DIGEST_PATTERN)]

MAY_ANSWER = problems(LengthRequired, BlobTooLarge, MessageInvalid, UploadOffsetMismatch)


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


async def upload(context: AnyContext, worker: Sender, chunks: Body, digest: BlobDigest) -> AsyncIterator[Chunks]:
    """Give the body of a worker's upload; workers may share a name, and so each adapter is a sender of its own."""
    async with context.uploads.newest(_sender(worker, digest), chunks) as newest:
        yield newest


Upload = Annotated[Chunks, Depends(upload, scope="function")]


@router.put(
    "/blobs/{digest}",
    summary="Store an adapter",
    responses=MAY_ANSWER,
    openapi_extra=RECEIVES_A_BLOB,
    max_body_size=UNLIMITED,
)
async def put_blob(
    context: AnyContext, worker: Sender, body: Upload, digest: BlobDigest, announced: AllOfIt
) -> Accepted:
    return await _take(context, worker, body, digest, announced)


@router.patch(
    "/blobs/{digest}",
    summary="Store the rest of an adapter",
    responses=MAY_ANSWER,
    openapi_extra=RECEIVES_THE_REST,
    max_body_size=UNLIMITED,
)
async def patch_blob(
    context: AnyContext, worker: Sender, body: Upload, digest: BlobDigest, announced: RestOfIt
) -> Accepted:
    return await _take(context, worker, body, digest, announced)


async def _take(context: Context, worker: Principal, body: Chunks, digest: str, announced: Announced) -> Accepted:
    context.work.require_blob(digest, announced.digest, announced.size)
    with incoming(context.blobs, _sender(worker, digest), announced) as blob:
        await receive(body, blob, blob.write)
        await asyncio.to_thread(context.work.store_blob, blob, digest)
    return Accepted()


@router.head(
    "/blobs/{digest}",
    summary="Ask how much of an adapter is here",
    response_class=Response,
    status_code=204,
    responses=problems() | TELLS_THE_OFFSET,
)
async def head_blob(context: AnyContext, worker: Worker, digest: BlobDigest) -> Response:
    return await offset(context.uploads, context.blobs, _sender(worker, digest), digest)


def _sender(worker: Principal, digest: str) -> str:
    return f"{worker.name}.{digest.removeprefix('sha256:')}"
