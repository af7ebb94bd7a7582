"""The agent's local status page: for this machine, not for the network."""

from fastapi import FastAPI

from services.client_agent.status import Status, StatusView


def create_status_page(status: Status) -> FastAPI:
    """Return the app that shows ``status``."""
    app = FastAPI(title="FedCoLLM agent", docs_url=None, redoc_url=None)

    @app.get("/healthz", summary="Say that this process serves")
    async def get_health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/", include_in_schema=False)  # what somebody asks for who was told of a page
    @app.get("/status", summary="What this agent is doing")
    async def get_status() -> StatusView:
        return status.view()

    return app
