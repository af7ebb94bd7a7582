"""The files of the dashboard, by the names under which they are served: listed once, when the coordinator starts."""

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from mimetypes import guess_type
from pathlib import Path

from shared.errors import PartMissing, RouteUnknown
from shared.folders import file_digest
from shared.web import STYLE

FOLDER = Path(__file__).with_name("dashboard")


@dataclass(frozen=True)
class Asset:
    """A file of the dashboard."""

    path: Path

    @cached_property
    def etag(self) -> str:
        """The digest of its bytes, by which a browser knows it again."""
        return f'"{file_digest(self.path)}"'

    @property
    def media_type(self) -> str:
        """What it is."""
        return "text/javascript" if self.path.suffix == ".js" else guess_type(self.path.name)[0] or "text/plain"


def dashboard_assets() -> dict[str, Asset]:
    """Return all files by name: those of the folder, the look of all pages, and plotly.js.

    Raises:
        PartMissing: the package plotly, which brings plotly.js, is not installed.
    """
    own = {str(path.relative_to(FOLDER)): path for path in sorted(FOLDER.rglob("*")) if path.is_file()}
    return {name: Asset(path) for name, path in {**own, "style.css": STYLE, "plotly.js": _plotly()}.items()}


def asset_named(assets: dict[str, Asset], name: str) -> Asset:
    """Return a file by its name, which is looked up and is no path."""
    if name not in assets:
        raise RouteUnknown(f"the dashboard has no {name}: it begins at /dashboard/")
    return assets[name]


def _plotly() -> Path:
    """Return plotly.js as the package plotly brings it, which is not imported (docs/adr/0016)."""
    package = find_spec("plotly")
    if package is None or package.origin is None:
        raise PartMissing.of("coordinator", "plotly")
    return Path(package.origin).parent / "package_data" / "plotly.min.js"
