import re
from pathlib import Path

import pytest

from services.coordinator.assets import FOLDER, dashboard_assets
from services.coordinator.context import Context
from shared.errors import PartMissing
from tests.support.federations import client

pytestmark = pytest.mark.anyio

ASSETS = dashboard_assets()
SOURCES = {name: asset.path.read_text() for name, asset in ASSETS.items() if asset.path.is_relative_to(FOLDER)}
SCRIPTS = {name: text for name, text in SOURCES.items() if name.endswith(".js")}
IMPORTED = re.compile(r"""(?:from|import\()\s*"([^"]+)\"""")


async def test_every_file_is_served_as_what_it_is(context: Context) -> None:
    """Scripts as scripts, with the headers by which a browser runs nothing else; plotly.js is among them."""
    assert {"index.html", "app.js", "pages/runs.js", "style.css", "plotly.js"} <= ASSETS.keys()
    async with client(context, None) as http:
        for name, asset in ASSETS.items():
            answer = await http.get(f"/dashboard/{'' if name == 'index.html' else name}")
            assert (answer.status_code, answer.content) == (200, asset.path.read_bytes()), name
            assert answer.headers["Content-Type"].partition(";")[0] == asset.media_type
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_file_that_is_known_is_not_sent_again(context: Context) -> None:
    """Browsers ask each time, and get what an upgrade has changed."""
    async with client(context, None) as http:
        first = await http.get("/dashboard/app.js")
        again = await http.get("/dashboard/app.js", headers={"If-None-Match": f'"other", W/{first.headers["ETag"]}'})
        other = await http.get("/dashboard/app.js", headers={"If-None-Match": '"other"'})
    assert first.headers["Cache-Control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert other.status_code == 200


@pytest.mark.parametrize("name", ["index.htm", "pages", "..%2Fapp.py", "%2e%2e/app.py", "pages/..%2f..%2fapp.py"])
async def test_nothing_else_is_served(name: str, context: Context) -> None:
    """A name is looked up and is no path, however it is written."""
    async with client(context, None) as http:
        answer = await http.get(f"/dashboard/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "route_unknown")


async def test_the_address_alone_leads_to_the_dashboard(context: Context) -> None:
    """Whoever types no path is shown the way."""
    async with client(context, None) as http:
        answer = await http.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/dashboard/")


def test_the_dashboard_loads_only_what_is_served() -> None:
    """What a module imports and the page names is there, and every script is reached."""
    reached, waiting = set(), ["app.js"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        found = {str(Path(name).parent / each) for each in IMPORTED.findall(SCRIPTS[name])}
        found = {str((FOLDER / each).resolve().relative_to(FOLDER)) for each in found}
        assert found <= ASSETS.keys(), name
        waiting += found - reached - {"plotly.js"}
    assert reached == SCRIPTS.keys()
    assert set(re.findall(r'(?:src|href)="([\w.]+)"', SOURCES["index.html"])) <= ASSETS.keys()


def test_nothing_from_the_api_can_become_html() -> None:
    """Elements are made of text: no module parses HTML, runs a text, or writes a style that the policy would refuse."""
    for name, text in SCRIPTS.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
    for name, text in SOURCES.items():
        assert not re.search(r"""\sstyle=|\sstyle:|<style|\son\w+=["']""", text) or name.endswith(".css"), name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name


def test_a_module_is_short() -> None:
    """A module that does not fit on a few screens is two modules."""
    assert {name: len(text.splitlines()) for name, text in SCRIPTS.items() if text.count("\n") >= 300} == {}


def test_a_coordinator_without_plotly_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its start, and not when somebody opens a chart."""
    monkeypatch.setattr("services.coordinator.assets.find_spec", lambda _: None)
    with pytest.raises(PartMissing, match=r"pip install '\.\[coordinator\]'"):
        dashboard_assets()
