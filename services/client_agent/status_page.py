"""The agent's local pages: for this machine, not for the network; nothing can be changed by them."""

import os
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, StreamingResponse

from services.client_agent.egress_ledger import ledger_folder, months, now, stored
from services.client_agent.holdout_report import Reports, reports
from services.client_agent.ledger_report import Page, page_of
from services.client_agent.metrics import agent_registry
from services.client_agent.pages import SCRIPT, Installation, ledger_html, policy_html, report_html, status_html
from services.client_agent.status import Status, StatusView
from shared.metrics import CONTENT_TYPE, exposition
from shared.web import HEADERS, STYLE

Month = Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}$", description="Like 2026-11; the newest.")]
Day = Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}-\d{2}$", description="Like 2026-11-25; all of the month.")]
KindName = Annotated[str | None, Query(pattern=r"^[a-z]+$", description="Of requests; all.")]
Number = Annotated[int | None, Query(ge=1, description="Of the month's pages; the last.")]


async def require_a_name_of_here(request: Request) -> None:
    """Refuse a request that was made to a name of the web: an address, this host's name or one without dots will do.

    A page of the web can give a name of its own this machine's address, and have the browser of whoever looks at it
    read what is served here as if it were its own.
    """
    host = request.url.hostname or ""
    if "." in host and host != socket.gethostname().lower() and not _is_address(host):
        raise HTTPException(421, "this page is for its own machine: ask for it by address, like http://127.0.0.1:8450")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def add_headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """Have browsers load nothing from elsewhere, and keep nothing."""
    response = await go_on(request)
    response.headers.update({**HEADERS, "Cache-Control": "no-store"})
    return response


assets = APIRouter(include_in_schema=False)


@assets.get("/style.css")
async def get_style() -> FileResponse:
    """Return how pages look."""
    return FileResponse(STYLE)


@assets.get("/refresh.js")
async def get_script() -> FileResponse:
    """Return what keeps the status page up to date."""
    return FileResponse(SCRIPT, media_type="text/javascript")


def create_status_page(status: Status, agent: Installation, clock: Callable[[], datetime] = now) -> FastAPI:
    """Return the app that shows ``status``, and the ledger of the agent's state folder."""
    app = FastAPI(title="FedCoLLM agent", docs_url=None, redoc_url=None, dependencies=[Depends(require_a_name_of_here)])
    registry = agent_registry(status)
    app.middleware("http")(add_headers)
    app.include_router(assets)
    state_dir = status.state_dir or Path(os.devnull)
    app.include_router(_of_ledger(ledger_folder(state_dir), agent))

    @app.get("/healthz", summary="Say whether this agent takes part: 200, or 503 and why not")
    async def get_health(response: Response) -> dict[str, str]:
        if status.unwell:
            response.status_code = 503
        return {"status": status.unwell or "ok"}

    @app.get("/", summary="What this agent is doing, as a page")
    async def get_status_page() -> HTMLResponse:
        return HTMLResponse(status_html(status.view(), agent, clock()))

    @app.get("/status.json", summary="What this agent is doing")
    async def get_status() -> StatusView:
        return status.view()

    @app.get("/policy", summary="What this agent is willing to do, as a page")
    async def get_policy_page() -> HTMLResponse:
        return HTMLResponse(policy_html(agent))

    @app.get("/report", summary="What runs have brought, measured on the hold-out, as a page")
    def get_report_page() -> HTMLResponse:
        return HTMLResponse(report_html(reports(state_dir), agent))

    @app.get("/report.json", summary="What runs have brought, measured on the hold-out")
    def get_report() -> Reports:
        return reports(state_dir)

    @app.get("/metrics", summary="What this agent is doing, for Prometheus", response_class=PlainTextResponse)
    def get_metrics() -> Response:
        return Response(exposition(registry), media_type=CONTENT_TYPE)

    return app


def _of_ledger(ledger: Path, agent: Installation) -> APIRouter:
    routes = APIRouter()

    @routes.get("/ledger", summary="What has left this machine, as a page")
    def get_ledger_page(
        month: Month = None, day: Day = None, kind: KindName = None, page: Number = None
    ) -> HTMLResponse:
        return HTMLResponse(ledger_html(page_of(ledger, month=month, day=day, kind=kind, page=page), agent))

    @routes.get("/ledger.json", summary="What has left this machine")
    def get_ledger(month: Month = None, day: Day = None, kind: KindName = None, page: Number = None) -> Page:
        return page_of(ledger, month=month, day=day, kind=kind, page=page)

    @routes.get("/ledger/{month}.jsonl", summary="A month of the ledger as it is on the disk")
    def get_ledger_file(month: str) -> StreamingResponse:
        files = {file.stem: file for file in months(ledger)}
        if month not in files:
            raise HTTPException(404, f"there is no {month} in the ledger")
        return StreamingResponse(stored(files[month]), media_type="application/jsonl")

    return routes
