"""Members: an operator invites, approves and revokes; whoever has an invitation enrols."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from services.coordinator.context import Address, AnyContext, principal
from services.coordinator.lifecycle import MOST_A_PAGE
from services.coordinator.principals import Principal, Role
from services.coordinator.routes.problems import problems
from services.coordinator.routes.runs import Limit
from shared.errors import (
    CertificateExpired,
    FederationMismatch,
    InvitationInvalid,
    MemberConflict,
    NotFound,
    SignatureInvalid,
)
from shared.protocol.membership import (
    EnrolmentRequest,
    InvitationRequest,
    MemberList,
    MemberView,
    RevocationRequest,
    SignedCertificate,
)
from shared.protocol.names import PrincipalName

router = APIRouter(tags=["members"])

MemberPath = Annotated[PrincipalName, Path(description="What the agent is called.")]
Operator = Annotated[Principal, Depends(principal(Role.OPERATOR))]


@router.get("/agents", summary="List the agents", responses=problems())
def list_members(
    context: AnyContext,
    _: Operator,
    after: Annotated[str, Query(max_length=64, description="Agents whose names come after this one.")] = "",
    limit: Limit = MOST_A_PAGE,
) -> MemberList:
    return context.membership.members(after=after, limit=limit)


@router.put(
    "/agents/{name}/invitation",
    summary="Invite an agent",
    responses=problems(FederationMismatch, MemberConflict),
)
def put_invitation(context: AnyContext, operator: Operator, name: MemberPath, request: InvitationRequest) -> MemberView:
    return context.membership.invite(name, request, actor=operator.name)


@router.post(
    "/enrol",
    summary="Bring the key of an agent that was invited",
    responses=problems(SignatureInvalid, InvitationInvalid, MemberConflict),
)
def enrol(
    context: AnyContext,
    _: Annotated[Principal, Depends(principal(Role.ANYONE))],
    address: Address,
    request: EnrolmentRequest,
) -> MemberView:
    with context.admission.failures_counted(address):
        return context.membership.enrol(request)


@router.put(
    "/agents/{name}/certificate",
    summary="Make an agent a member",
    responses=problems(NotFound, SignatureInvalid, FederationMismatch, CertificateExpired, MemberConflict),
)
def put_certificate(context: AnyContext, operator: Operator, name: MemberPath, signed: SignedCertificate) -> MemberView:
    return context.membership.approve(name, signed, actor=operator.name)


@router.post("/agents/{name}/revoke", summary="Revoke an agent", responses=problems(NotFound))
def revoke(context: AnyContext, operator: Operator, name: MemberPath, request: RevocationRequest) -> MemberView:
    return context.membership.revoke(name, request.reason, actor=operator.name)
