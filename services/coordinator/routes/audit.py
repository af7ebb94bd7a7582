"""The audit log, for operators and viewers: its entries, and its head."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.coordinator.context import AnyContext
from services.coordinator.routes.problems import problems
from services.coordinator.routes.runs import Viewer
from shared.errors import AuditBroken
from shared.protocol.audit import MOST_ENTRIES_A_PAGE, AuditPage, SignedHead

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("", summary="Read the audit log", responses=problems(AuditBroken))
def list_entries(
    context: AnyContext,
    _: Viewer,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ENTRIES_A_PAGE)] = MOST_ENTRIES_A_PAGE,
) -> AuditPage:
    return context.audit.page(after=after, limit=limit)


@router.get("/head", summary="Read the audit log's signed head", responses=problems(AuditBroken))
def get_head(context: AnyContext, _: Viewer) -> SignedHead:
    return context.audit.head()
