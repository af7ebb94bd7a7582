"""For agents: what is wanted, the manifest, adapters down, updates up."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

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
    WholeDigest,
    incoming,
    offset,
    receive,
    send,
)
from services.coordinator.routes.problems import problems
from services.coordinator.routes.runs import RunPath
from shared.errors import AgentRunsTwice, BlobTooLarge, LengthRequired, NotFound, RoundClosed, UpdateConflict
from shared.protocol.card import SignedCard
from shared.protocol.digests import DIGEST_PATTERN
from shared.protocol.manifest import SignedManifest
from shared.protocol.messages import MOST_DECLINED, MOST_FOLLOWED, Accepted, UpdateReceipt, WaitSeconds, Wanted
from shared.protocol.names import LAST_ROUND, Declined, InstanceId

router = APIRouter(tags=["agents"])

RoundPath = Annotated[int, Path(ge=1, le=LAST_ROUND)]
Agent = Annotated[Principal, Depends(principal(Role.AGENT))]
Sender = Annotated[Principal, Depends(principal(Role.AGENT, streamed=True))]
Reader = Annotated[Principal, Depends(principal(Role.AGENT, Role.OPERATOR, Role.VIEWER))]


async def upload(context: AnyContext, agent: Sender, chunks: Body) -> AsyncIterator[Chunks]:
    """Give the body of an agent's upload, which is broken off where the agent begins a newer one."""
    async with context.uploads.newest(agent.name, chunks) as newest:
        yield newest


Upload = Annotated[Chunks, Depends(upload, scope="function")]


@router.get("/wanted", summary="Ask what is wanted of this agent", responses=problems(AgentRunsTwice))
async def get_wanted(
    context: AnyContext,
    agent: Agent,
    connection: Request,
    holding: Annotated[str | None, Query(pattern=DIGEST_PATTERN, description="The adapter that it has.")] = None,
    declined: Annotated[
        tuple[Declined, ...],
        Query(max_length=MOST_DECLINED, description="Runs that it cannot or will not work for, and why: run:code."),
    ] = (),
    instance: Annotated[InstanceId | None, Query(description="Which process of the agent's asks.")] = None,
    follows: Annotated[
        tuple[InstanceId, ...],
        Query(max_length=MOST_FOLLOWED, description="Those before it on its state folder, which have ended."),
    ] = (),
    wait_seconds: WaitSeconds = 0,
) -> Wanted:
    reasons = {run_id: code for run_id, _, code in (one.partition(":") for one in declined)}
    async with context.instances.taking_part(agent.name, instance, follows, gone=connection.is_disconnected):
        context.presence.agent_asks(agent.name, version=version_of(connection), declines=reasons)
        wanted = await context.changes.poll(
            lambda: context.rounds.wanted(agent.name, reasons),
            who=agent.name,
            ready=lambda answer: bool(
                answer.assignment or answer.summons or (answer.published and answer.published.digest != holding)
            ),
            wait_seconds=wait_seconds,
            gone=connection.is_disconnected,
            agent=True,
        )
        context.presence.agent_is_told(agent.name, wanted)
    told = {"audit": await asyncio.to_thread(context.audit.head), "second_at": context.presence.second_at(agent.name)}
    return wanted.model_copy(update=told)


@router.post("/leave", summary="Say that this agent stops", responses=problems())
async def post_leave(
    context: AnyContext,
    agent: Agent,
    instance: Annotated[InstanceId, Query(description="Which process of the agent's stops.")],
) -> Accepted:
    if context.instances.leave(agent.name, instance):
        context.presence.agent_leaves(agent.name)
        await asyncio.to_thread(context.attempts.leave, agent.name)
    return Accepted()


@router.get("/runs/{run_id}/manifest", summary="Read what the run expects of agents", responses=problems(NotFound))
def get_manifest(context: AnyContext, _: Reader, run_id: RunPath) -> SignedManifest:
    return context.lifecycle.manifest(run_id)


@router.get(
    "/adapters/{digest}",
    summary="Fetch a published SLM adapter",
    response_class=Response,
    responses=problems(NotFound) | SENDS_A_BLOB,
)
def get_adapter(
    context: AnyContext,
    _: Reader,
    digest: Annotated[str, Path(pattern=DIGEST_PATTERN)],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    return send(context.rounds.published_path(digest), digest, if_none_match)


@router.get(
    "/runs/{run_id}/rounds/{number}/aggregate",
    summary="Fetch the aggregate of a round that this agent has a part in",
    response_class=Response,
    responses=problems(NotFound) | SENDS_A_BLOB,
)
def get_aggregate(
    context: AnyContext,
    agent: Agent,
    run_id: RunPath,
    number: RoundPath,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    digest, path = context.rounds.aggregate_path(agent.name, run_id, number)
    return send(path, digest, if_none_match)


@router.get(
    "/runs/{run_id}/rounds/{number}/card", summary="Read the model card of a round", responses=problems(NotFound)
)
def get_card(context: AnyContext, _: Reader, run_id: RunPath, number: RoundPath) -> SignedCard:
    return context.cards.card(run_id, number)


Examples = Annotated[int | None, Query(ge=1, le=1_000_000_000)]
MAY_ANSWER = problems(NotFound, RoundClosed, UpdateConflict, LengthRequired, BlobTooLarge)


@router.put(
    "/runs/{run_id}/rounds/{number}/update",
    summary="Send this agent's update",
    responses=MAY_ANSWER,
    openapi_extra=RECEIVES_A_BLOB,
    max_body_size=UNLIMITED,
)
async def put_update(
    context: AnyContext,
    agent: Sender,
    body: Upload,
    run_id: RunPath,
    number: RoundPath,
    announced: AllOfIt,
    examples: Examples = None,
) -> UpdateReceipt:
    return await _take(context, agent.name, run_id, number, body, announced, examples)


@router.patch(
    "/runs/{run_id}/rounds/{number}/update",
    summary="Send the rest of this agent's update",
    responses=MAY_ANSWER,
    openapi_extra=RECEIVES_THE_REST,
    max_body_size=UNLIMITED,
)
async def patch_update(
    context: AnyContext,
    agent: Sender,
    body: Upload,
    run_id: RunPath,
    number: RoundPath,
    announced: RestOfIt,
    examples: Examples = None,
) -> UpdateReceipt:
    return await _take(context, agent.name, run_id, number, body, announced, examples)


async def _take(
    context: Context, agent: str, run_id: str, number: int, body: Chunks, announced: Announced, examples: int | None
) -> UpdateReceipt:
    receipt, slot = await asyncio.to_thread(
        context.updates.receipt, agent, run_id, number, digest=announced.digest, size=announced.size, examples=examples
    )
    if receipt is not None:
        return receipt
    with incoming(context.blobs, agent, announced) as blob:
        await receive(body, blob, partial(context.updates.write, slot, blob))
        return await asyncio.to_thread(context.updates.accept, slot, blob, digest=announced.digest)


@router.head(
    "/runs/{run_id}/rounds/{number}/update",
    summary="Ask how much of this agent's update is here",
    response_class=Response,
    status_code=204,
    responses=problems() | TELLS_THE_OFFSET,
)
async def head_update(
    context: AnyContext,
    agent: Agent,
    run_id: RunPath,  # noqa: ARG001 - one upload of each agent is kept, and its digest is all that names it
    number: RoundPath,  # noqa: ARG001
    digest: WholeDigest,
) -> Response:
    return await offset(context.uploads, context.blobs, agent.name, digest)
