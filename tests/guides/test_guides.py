import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from bench.federation import ManualClock
from guides.api import api_pages
from guides.configuration import FILES, configuration
from guides.error_table import error_table
from guides.offline import asked_elsewhere
from services.coordinator.app import create_app, create_work_app
from services.coordinator.routes.problems import STATUS_BY_CODE
from shared.errors.advice import ADVICE, errors_with_codes, explained
from tests.support.browsers import open_chromium
from tests.support.federations import coordinator

ROOT = Path(__file__).parents[2]


def test_every_error_says_what_it_means_and_what_to_do():
    """In the docstring of its class, as a sentence each: the table has no hole."""
    for kind in errors_with_codes():
        meaning, advice = explained(kind)
        assert meaning.endswith("."), f"{kind.__name__}: its docstring begins with no sentence"
        assert advice.endswith((".", "?")), f"{kind.__name__}: a paragraph of its docstring begins with '{ADVICE}'"


def test_the_table_has_each_code_once_with_its_status():
    """Each code of the tree, and each that the coordinator answers with."""
    rows = [line.split(" | ") for line in error_table().splitlines()[2:]]
    codes = [re.findall(r">(\w+)<", row[0])[0] for row in rows]
    assert codes == sorted({kind.code for kind in errors_with_codes()})
    assert {code: int(row[1]) for code, row in zip(codes, rows, strict=True) if row[1]} == STATUS_BY_CODE


def test_the_api_reference_has_every_request_and_who_may_send_it(tmp_path: Path, clock: ManualClock):
    """Whatever a route is called, and whoever adds it; and every message has a section of its own."""
    pages = api_pages()
    text = "\n".join(pages.values())
    with coordinator(tmp_path, clock) as context:
        documents = [make(context).openapi() for make in (create_app, create_work_app)]
    for document in documents:
        for path, operations in document["paths"].items():
            for method in operations:
                section = text.split(f"{method.upper()} {path}\n```")[1].split("\n## ")[0]
                assert re.search(r"^For: [a-z]", section, re.MULTILINE), path
        for name in document["components"]["schemas"]:
            assert f"\n## {name}\n" in pages["messages"]


def test_the_reference_of_settings_has_every_setting_and_its_meaning():
    """Of each file, nested ones too."""
    text = configuration()
    for file, kind in FILES.items():
        section = text.split(f"## {file}\n")[1].split("\n## ")[0]
        for name, field in kind.model_fields.items():
            assert f"<code>{name}</code>" in section or f"### [{name}" in section, f"{file}: {name}"
            assert field.description is None or "### [" in section or field.description in section.replace("\\|", "|")
    assert "### [policy] of agent.toml" in text
    assert "<code>smallest_cohort</code>" in text


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://elsewhere.example/a.js"></script>',
        '<script src="//elsewhere.example/a.js"></script>',
        '<link rel="stylesheet" href="https://elsewhere.example/a.css">',
        '<link rel="preconnect" href="https://elsewhere.example">',
        '<img src="a.png" srcset="a.png 1x, https://elsewhere.example/b.png 2x">',
        "<style>@import 'https://elsewhere.example/a.css';</style>",
        '<p style="background: url(https://elsewhere.example/a.png)">',
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_is_found(html: str, tmp_path: Path):
    """Scripts, styles, pictures and fonts; a link that a reader may follow is none of them."""
    (tmp_path / "page.html").write_text(f'<a href="https://elsewhere.example">there</a>{html}')
    (found,) = asked_elsewhere(tmp_path)
    assert found.startswith("page.html: ")
    assert "elsewhere.example" in found


def test_a_style_sheet_that_asks_elsewhere_is_found(tmp_path: Path):
    """And what it has itself, or a page links to, is not."""
    (tmp_path / "own.css").write_text("p { background: url(a.png), url(data:image/png;base64,AA==) }")
    (tmp_path / "page.html").write_text('<a href="https://elsewhere.example"><img src="a.png"><link rel="canonical">')
    assert asked_elsewhere(tmp_path) == []
    (tmp_path / "own.css").write_text("@font-face { src: url('https://elsewhere.example/font.woff2') }")
    assert asked_elsewhere(tmp_path) == ["own.css: https://elsewhere.example/font.woff2"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guides as `make docs` builds them."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


@pytest.mark.slow
def test_every_page_of_the_documents_is_in_the_site(site: Path):
    """With what is made of the code in place of its marks."""
    for page in (ROOT / "docs").rglob("*.md"):
        text = (site / page.relative_to(ROOT / "docs").with_suffix(".html")).read_text()
        assert "<!-- made of" not in text
        assert 'http-equiv="Content-Security-Policy"' in text
    assert 'id="policy_refused"' in (site / "troubleshooting.html").read_text()
    assert (site / "clone" / "examples" / "data" / "arc.toml").is_file()


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where the site is served on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=site)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_a_reader_asks_nobody_but_the_site(site: Path, address: str):
    """Each page in a browser, a search too: no request goes elsewhere, and nothing that is needed is forbidden."""
    asked: set[str] = set()
    said: list[str] = []
    with open_chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.add(request.url))
        page.on("console", lambda message: said.append(message.text))
        for file in site.rglob("*.html"):
            page.goto(f"{address}/{file.relative_to(site)}")
        page.goto(f"{address}/index.html")
        page.get_by_placeholder("Search").fill("policy_refused")
        page.locator(".md-search-result__item").first.wait_for()
    assert len(asked) > 30
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert [text for text in said if "404" not in text] == []
