"""The agent's local status page: for this machine, not for the network."""

from fastapi import FastAPI, Response

from services.client_agent.status import Status, StatusView


def create_status_page(status: Status) -> FastAPI:
    """Return the app that shows ``status``."""
    app = FastAPI(title="FedCoLLM agent", docs_url=None, redoc_url=None)

    @app.get("/healthz", summary="Say whether this agent takes part: 200, or 503 and why not")
    async def get_health(response: Response) -> dict[str, str]:
        if status.unwell:
            response.status_code = 503
        return {"status": status.unwell or "ok"}

    @app.get("/", include_in_schema=False)  # what somebody asks for who was told of a page
    @app.get("/status", summary="What this agent is doing")
    async def get_status() -> StatusView:
        return status.view()

    return app
