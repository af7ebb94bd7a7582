"""The dashboard: static files that a browser runs, and that ask the API with the token of whoever looks.

What is served is what the folder holds when the coordinator starts, by name: no path comes from a request.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from mimetypes import guess_type
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Response
from fastapi.responses import FileResponse, RedirectResponse

from services.coordinator.context import principal
from services.coordinator.principals import Principal, Role
from shared.protocol.digests import digest_of
from shared.web import CONTENT_SECURITY_POLICY, HEADERS, STYLE

FOLDER = Path(__file__).parents[1] / "dashboard"
HOME = "/dashboard/"

# plotly.js makes a style element without content and puts its rules into that; this is the digest of nothing.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
ALLOWED = CONTENT_SECURITY_POLICY.replace("style-src 'self'", f"style-src 'self' {EMPTY_STYLE}")

router = APIRouter(prefix="/dashboard", include_in_schema=False)
root = APIRouter(include_in_schema=False)

Anyone = Annotated[Principal, Depends(principal(Role.ANYONE))]
Known = Annotated[str | None, Header(alias="If-None-Match")]


@dataclass(frozen=True)
class Asset:
    """A file of the dashboard, as it is served."""

    path: Path
    media_type: str
    etag: str


def _asset(path: Path) -> Asset:
    media_type = "text/javascript" if path.suffix == ".js" else guess_type(path.name)[0]
    assert media_type is not None, path  # noqa: S101 - our own files
    return Asset(path, media_type, f'"{digest_of(path.read_bytes())}"')


def _plotly() -> Path:
    """Return plotly.js as the package plotly brings it, which is not imported (docs/adr/0016)."""
    package = find_spec("plotly")
    assert package is not None, "plotly is not installed"  # noqa: S101 - the coordinator's extra has it
    assert package.origin is not None  # noqa: S101
    return Path(package.origin).parent / "package_data" / "plotly.min.js"


FILES = {str(path.relative_to(FOLDER)): path for path in sorted(FOLDER.rglob("*")) if path.is_file()}
ASSETS = {name: _asset(path) for name, path in (FILES | {"style.css": STYLE, "plotly.js": _plotly()}).items()}


def _serve(name: str, known: str | None) -> Response:
    asset = ASSETS.get(name)
    if asset is None:
        raise HTTPException(404, f"the dashboard has no {name}: it begins at {HOME}")
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
    return RedirectResponse(HOME)


@router.get("/", summary="Open the dashboard")
def get_index(_: Anyone, known: Known = None) -> Response:
    return _serve("index.html", known)


@router.get("/{name}", summary="Fetch a file of the dashboard")
def get_file(_: Anyone, name: str, known: Known = None) -> Response:
    return _serve(name, known)


@router.get("/pages/{name}", summary="Fetch a page's module")
def get_page(_: Anyone, name: str, known: Known = None) -> Response:
    return _serve(f"pages/{name}", known)
