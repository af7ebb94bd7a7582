"""For agents: secure aggregation, a path for each stage of an attempt (docs/secure-aggregation.md)."""

import asyncio
from functools import partial
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Path, Response

from services.coordinator.context import AnyContext, Context
from services.coordinator.routes.agents import Agent, RoundPath, Sender, Upload
from services.coordinator.routes.bodies import (
    RECEIVES_NUMBERS,
    RECEIVES_THE_REST,
    TELLS_THE_OFFSET,
    UNLIMITED,
    AllOfIt,
    Announced,
    Chunks,
    RestOfIt,
    WholeDigest,
    incoming,
    offset,
    receive,
)
from services.coordinator.routes.problems import problems
from services.coordinator.routes.runs import RunPath
from shared.errors import (
    BlobTooLarge,
    LengthRequired,
    NotFound,
    RoundClosed,
    SignatureInvalid,
    UpdateConflict,
)
from shared.protocol.attempts import AttemptPlace, DealtShares, ReleasedShares, SignedSurvivors
from shared.protocol.messages import Accepted
from shared.protocol.secagg.attempt import Advert

router = APIRouter(prefix="/runs/{run_id}/rounds/{number}", tags=["secure aggregation"])

MAY_ANSWER = problems(NotFound, RoundClosed, UpdateConflict, SignatureInvalid)


async def place(run_id: RunPath, number: RoundPath, attempt: Annotated[int, Path(ge=1, le=1_000_000)]) -> AttemptPlace:
    """Return which attempt a path names."""
    return AttemptPlace(run_id=run_id, round=number, attempt=attempt)


Place: TypeAlias = Annotated[AttemptPlace, Depends(place)]


@router.put("/ready", summary="Say that this agent's update is trained", responses=problems(NotFound, RoundClosed))
def put_ready(context: AnyContext, agent: Agent, run_id: RunPath, number: RoundPath) -> Accepted:
    context.attempts.ready(agent.name, run_id, number)
    return Accepted()


@router.put("/attempts/{attempt}/keys", summary="Announce keys", responses=MAY_ANSWER)
def put_keys(context: AnyContext, agent: Agent, place: Place, advert: Advert) -> Accepted:
    context.attempts.announce(agent.name, place, advert)
    return Accepted()


@router.put("/attempts/{attempt}/shares", summary="Deal sealed shares", responses=MAY_ANSWER)
def put_shares(context: AnyContext, agent: Agent, place: Place, dealt: DealtShares) -> Accepted:
    context.attempts.deal(agent.name, place, dealt)
    return Accepted()


@router.put(
    "/attempts/{attempt}/masked",
    summary="Send the masked vector",
    responses=MAY_ANSWER | problems(LengthRequired, BlobTooLarge),
    openapi_extra=RECEIVES_NUMBERS,
    max_body_size=UNLIMITED,
)
async def put_masked(context: AnyContext, agent: Sender, place: Place, body: Upload, announced: AllOfIt) -> Accepted:
    return await _take(context, agent.name, place, body, announced)


@router.patch(
    "/attempts/{attempt}/masked",
    summary="Send the rest of the masked vector",
    responses=MAY_ANSWER | problems(LengthRequired, BlobTooLarge),
    openapi_extra=RECEIVES_THE_REST,
    max_body_size=UNLIMITED,
)
async def patch_masked(context: AnyContext, agent: Sender, place: Place, body: Upload, announced: RestOfIt) -> Accepted:
    return await _take(context, agent.name, place, body, announced)


async def _take(context: Context, agent: str, place: AttemptPlace, body: Chunks, announced: Announced) -> Accepted:
    digest = announced.digest
    slot = await asyncio.to_thread(context.attempts.masked_slot, agent, place, digest=digest, size=announced.size)
    if slot is not None:
        with incoming(context.blobs, agent, announced) as blob:
            await receive(body, blob, partial(context.attempts.write, slot, blob))
            await asyncio.to_thread(context.attempts.keep_masked, slot, blob, digest=digest)
    return Accepted()


@router.head(
    "/attempts/{attempt}/masked",
    summary="Ask how much of the masked vector is here",
    response_class=Response,
    status_code=204,
    responses=problems() | TELLS_THE_OFFSET,
)
async def head_masked(context: AnyContext, agent: Agent, _: Place, digest: WholeDigest) -> Response:
    return await offset(context.uploads, context.blobs, agent.name, digest)


@router.put("/attempts/{attempt}/consistency", summary="Sign the survivors", responses=MAY_ANSWER)
def put_consistency(context: AnyContext, agent: Agent, place: Place, signed: SignedSurvivors) -> Accepted:
    context.attempts.confirm(agent.name, place, signed)
    return Accepted()


@router.put("/attempts/{attempt}/unmasking", summary="Release shares", responses=MAY_ANSWER)
def put_unmasking(context: AnyContext, agent: Agent, place: Place, released: ReleasedShares) -> Accepted:
    context.attempts.release(agent.name, place, released)
    return Accepted()
