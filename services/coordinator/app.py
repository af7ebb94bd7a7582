"""The two HTTP apps of a coordinator: the public one and, on a port of its own, the workers'."""

from collections.abc import Mapping
from math import ceil
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from services.coordinator.changes import ClientGone
from services.coordinator.context import AnyContext, Context, principal, require_protocol
from services.coordinator.principals import Principal, Role
from services.coordinator.routes import (
    adapters,
    agents,
    attempts,
    audit,
    dashboard,
    federation,
    members,
    metrics,
    questions,
    runs,
    work,
)
from services.coordinator.routes.measuring import Measuring
from services.coordinator.routes.problems import (
    PROBLEM_TYPE,
    RETRY_AFTER_SECONDS,
    STATUS_BY_CODE,
    faults,
    problem,
    problems,
)
from services.coordinator.routes.slow_bodies import SlowBodies
from shared.errors import (
    BlobTooLarge,
    BodyTooSlow,
    FedCoLLMError,
    MessageInvalid,
    RouteUnknown,
    TooManyRequests,
    UploadSuperseded,
)
from shared.protocol.messages import Fault, Health
from shared.protocol.names import LAST_ROUND
from shared.storing import require_room

NOT_AUTHENTICATED = 401
NOT_FOUND = 404
BROKEN_OFF = frozenset({BodyTooSlow.code, UploadSuperseded.code})

# A body is read before its sender is known. Blobs, which are larger, are streamed and have limits of their own.
MAX_JSON_BYTES = 1 << 20

# What stands in paths, by the names that the log has for it; a round's number, as a number, has no more digits.
LOGGED_AS = {"run_id": "run_id", "number": "round", "job_id": "job"}
MOST_DIGITS = len(str(LAST_ROUND))

log = structlog.get_logger()

health = APIRouter()


@health.get("/healthz", summary="Say that this process serves", tags=["health"], responses=problems())
async def get_health(_: Annotated[Principal, Depends(principal(Role.ANYONE))]) -> Health:
    return Health()


@health.get("/readyz", summary="Say that this process can store what it is sent", tags=["health"], responses=problems())
def get_readyz(context: AnyContext, _: Annotated[Principal, Depends(principal(Role.ANYONE))]) -> Health:
    require_room(context.settings.data_dir)
    return Health()


def create_app(context: Context) -> FastAPI:
    """Return the app for agents, operators and screens."""
    parts = (federation, runs, adapters, questions, agents, attempts, members, audit)
    app = _app(context, "FedCoLLM coordinator", *(part.router for part in parts))
    for router in (metrics.router, dashboard.root, dashboard.router):
        app.include_router(router)
    return app


def create_work_app(context: Context) -> FastAPI:
    """Return the app for co-tuning workers."""
    return _app(context, "FedCoLLM work", work.router)


def by_port(public_app: ASGIApp, work_app: ASGIApp, *, work_port: int) -> ASGIApp:
    """Return one app for one server on two ports: workers on theirs, everybody else on the other."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (work_app if scope["server"][1] == work_port else public_app)(scope, receive, send)

    return app


def _app(context: Context, title: str, *routers: APIRouter) -> FastAPI:
    # The pages that FastAPI makes load scripts from elsewhere; the OpenAPI document itself is served.
    app = FastAPI(
        title=title,
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        max_body_size=MAX_JSON_BYTES,
    )
    app.state.context = context
    app.include_router(health)
    for router in routers:
        app.include_router(router, prefix="/v1", dependencies=[Depends(require_protocol)])
    app.add_exception_handler(FedCoLLMError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(ClientGone, _on_disconnect)
    app.add_exception_handler(Exception, _on_crash)
    app.add_middleware(
        SlowBodies,
        silence_seconds=context.settings.body_silence_seconds,
        bytes_per_second=context.settings.body_bytes_per_second,
    )
    app.add_middleware(Measuring, metrics=context.metrics, changes=context.changes)  # the last is the outermost
    return app


def _answer(
    request: Request,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    *,
    faults: tuple[Fault, ...] = (),
) -> JSONResponse:
    request.app.state.context.metrics.refused(code)
    fields = dict(headers or {})
    if status in RETRY_AFTER_SECONDS:
        fields.setdefault("Retry-After", str(RETRY_AFTER_SECONDS[status]))
    if code in BROKEN_OFF:
        fields["Connection"] = "close"  # the rest of the body is not waited for either
    if status == NOT_AUTHENTICATED:
        fields["WWW-Authenticate"] = "Bearer"
    document = problem(status, code, detail).model_copy(update={"faults": faults})
    return JSONResponse(document.model_dump(mode="json"), status, headers=fields, media_type=PROBLEM_TYPE)


def _about(request: Request) -> dict[str, str | int]:
    """Return what the log says of a request: who sent it, a principal or an address, and what it is about."""
    known: Principal | None = getattr(request.state, "who", None)
    address = request.client.host if request.client else "unknown"
    params = request.path_params
    named: dict[str, str | int] = {LOGGED_AS[name]: value for name, value in params.items() if name in LOGGED_AS}
    if (number := params.get("number", "")).isdecimal() and len(number) <= MOST_DIGITS:  # this may be no round's
        named["round"] = int(number)
    if known is not None and known.role is Role.AGENT:
        named["agent"] = known.name
    return {"path": request.url.path, "who": known.name if known else address, **named}


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FedCoLLMError)  # noqa: S101 - registered for nothing else
    status = STATUS_BY_CODE.get(error.code, 500)
    if status != NOT_FOUND:  # that is an answer like another: the doctor asks for what nobody has
        log.info("request.refused", **_about(request), code=error.code, detail=str(error))
    after = {"Retry-After": str(ceil(error.after_seconds))} if isinstance(error, TooManyRequests) else {}
    return _answer(request, status, error.code, str(error), after)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    told = "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors())
    return _answer(request, 422, MessageInvalid.code, told[:2000], faults=faults(error.errors()))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    if isinstance(error.__cause__, FedCoLLMError):  # FastAPI calls whatever ends its reading a fault of the body
        return await _on_error(request, error.__cause__)
    code = {404: RouteUnknown.code, 413: BlobTooLarge.code}.get(error.status_code, MessageInvalid.code)
    return _answer(request, error.status_code, code, str(error.detail), error.headers)


async def _on_disconnect(request: Request, _error: Exception) -> JSONResponse:
    # Nobody reads the answer; without it every broken upload would be logged as a fault of ours.
    log.info("request.broken_off", **_about(request))
    return _answer(request, 400, "blob_truncated", "the connection ended before it was answered: send it again")


async def _on_crash(request: Request, _error: Exception) -> JSONResponse:
    # The server logs the traceback; what went wrong inside is not for the other side.
    return _answer(request, 500, "internal", "the coordinator failed on this request; its log says why")
