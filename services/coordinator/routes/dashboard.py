"""The dashboard: static files that a browser runs, and that ask the API with the token of whoever looks."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import FileResponse, RedirectResponse

from services.coordinator.assets import asset_named
from services.coordinator.context import AnyContext, Context, principal
from services.coordinator.principals import Principal, Role
from shared.web import CONTENT_SECURITY_POLICY, HEADERS

# plotly.js makes a style element without content and puts its rules into that; this is the digest of nothing.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
ALLOWED = CONTENT_SECURITY_POLICY.replace("style-src 'self'", f"style-src 'self' {EMPTY_STYLE}")

router = APIRouter(prefix="/dashboard", include_in_schema=False)
root = APIRouter(include_in_schema=False)

Anyone = Annotated[Principal, Depends(principal(Role.ANYONE))]
Known = Annotated[str | None, Header(alias="If-None-Match")]


def _serve(context: Context, name: str, known: str | None) -> Response:
    asset = asset_named(context.dashboard, name)
    headers = {
        **HEADERS,
        "Content-Security-Policy": ALLOWED,
        "Cache-Control": "no-cache",  # kept, and asked about each time: after an upgrade nobody sees the old one
        "ETag": asset.etag,
    }
    if asset.etag in {tag.strip().removeprefix("W/") for tag in (known or "").split(",")}:
        return Response(status_code=304, headers=headers)
    return FileResponse(asset.path, media_type=asset.media_type, headers=headers)


@root.get("/", summary="Go to the dashboard")
def get_root(_: Anyone) -> Response:
    return RedirectResponse("/dashboard/")


@router.get("/", summary="Open the dashboard")
def get_index(context: AnyContext, _: Anyone, known: Known = None) -> Response:
    return _serve(context, "index.html", known)


@router.get("/{name}", summary="Fetch a file of the dashboard")
def get_file(context: AnyContext, _: Anyone, name: str, known: Known = None) -> Response:
    return _serve(context, name, known)


@router.get("/pages/{name}", summary="Fetch a page's module")
def get_page(context: AnyContext, _: Anyone, name: str, known: Known = None) -> Response:
    return _serve(context, f"pages/{name}", known)
