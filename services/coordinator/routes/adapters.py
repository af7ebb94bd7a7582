"""Published adapters, for operators and viewers: which there are, and which of them the agents hold."""

from typing import Annotated

from fastapi import APIRouter, Query

from services.coordinator.context import AnyContext
from services.coordinator.routes.problems import problems
from services.coordinator.routes.runs import Limit, Operator, Viewer
from shared.errors import NotFound
from shared.protocol.membership import RoundPlace
from shared.protocol.names import RunId
from shared.protocol.published import AdapterList, Promotion, PromotionRequest

router = APIRouter(tags=["adapters"])

PLACE = r"^[a-z0-9][a-z0-9-]{0,63}:[0-9]{1,6}$"


@router.get("/adapters", summary="List the published adapters, newest first", responses=problems())
def list_adapters(
    context: AnyContext,
    _: Viewer,
    run_id: Annotated[RunId | None, Query(description="Those of this run alone.")] = None,
    before: Annotated[
        str | None, Query(pattern=PLACE, description="Those that come after this one: run:round.")
    ] = None,
    limit: Limit = 50,
) -> AdapterList:
    return context.promotion.adapters(run_id=run_id, before=None if before is None else _place(before), limit=limit)


def _place(text: str) -> RoundPlace:
    run_id, number = text.split(":")
    return RoundPlace(run_id=run_id, round=int(number))


@router.get("/promotion", summary="Say which adapter the agents hold", responses=problems())
def get_promotion(context: AnyContext, _: Viewer) -> Promotion:
    return context.promotion.promotion()


@router.put("/promotion", summary="Choose the adapter that the agents hold", responses=problems(NotFound))
def pin(context: AnyContext, operator: Operator, request: PromotionRequest) -> Promotion:
    return context.promotion.pin(request.run_id, request.round, actor=operator.name)


@router.delete("/promotion", summary="Let the agents hold the newest adapter again", responses=problems())
def unpin(context: AnyContext, operator: Operator) -> Promotion:
    return context.promotion.unpin(actor=operator.name)
