"""For Prometheus: the coordinator's metrics, and those of what its store knows. Outside /v1, where everybody looks."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import PlainTextResponse

from services.coordinator.context import AnyContext, principal
from services.coordinator.principals import Principal, Role
from services.coordinator.routes.problems import problems
from shared.metrics import CONTENT_TYPE

router = APIRouter(tags=["metrics"])

Viewer = Annotated[Principal, Depends(principal(Role.OPERATOR, Role.VIEWER))]


@router.get("/metrics", summary="Read the metrics", response_class=PlainTextResponse, responses=problems())
def get_metrics(context: AnyContext, _: Viewer) -> Response:
    return Response(context.metrics.text(), media_type=CONTENT_TYPE)
