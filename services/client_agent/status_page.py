"""The agent's local status page: for this machine, not for the network."""

import os
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from services.client_agent.egress_ledger import ledger_folder
from services.client_agent.ledger_page import month_page
from services.client_agent.ledger_report import Page, page_of
from services.client_agent.metrics import agent_registry
from services.client_agent.status import Status, StatusView
from shared.metrics import CONTENT_TYPE, exposition

Month = Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}$", description="Like 2026-11; the newest.")]
Number = Annotated[int | None, Query(ge=1, description="Of the month's pages; the last.")]
NO_SCRIPTS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


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


def create_status_page(status: Status) -> FastAPI:
    """Return the app that shows ``status``, and the ledger of the agent's state folder."""
    app = FastAPI(title="FedCoLLM agent", docs_url=None, redoc_url=None, dependencies=[Depends(require_a_name_of_here)])
    ledger = ledger_folder(status.state_dir or Path(os.devnull))
    registry = agent_registry(status)

    @app.get("/healthz", summary="Say whether this agent takes part: 200, or 503 and why not")
    async def get_health(response: Response) -> dict[str, str]:
        if status.unwell:
            response.status_code = 503
        return {"status": status.unwell or "ok"}

    @app.get("/", include_in_schema=False)  # what somebody asks for who was told of a page
    @app.get("/status", summary="What this agent is doing")
    async def get_status() -> StatusView:
        return status.view()

    @app.get("/ledger", summary="What has left this machine, as a page")
    def get_ledger_page(month: Month = None, page: Number = None) -> HTMLResponse:
        return HTMLResponse(month_page(page_of(ledger, month=month, page=page)), headers=NO_SCRIPTS)

    @app.get("/ledger.json", summary="What has left this machine")
    def get_ledger(month: Month = None, page: Number = None) -> Page:
        return page_of(ledger, month=month, page=page)

    @app.get("/metrics", summary="What this agent is doing, for Prometheus", response_class=PlainTextResponse)
    def get_metrics() -> Response:
        return Response(exposition(registry), media_type=CONTENT_TYPE)

    return app
