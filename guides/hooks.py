"""What MkDocs calls while it builds the site: pages out of the code go in, and what came of it is looked at."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from guides.api import api_pages, page_name
from guides.configuration import configuration
from guides.error_table import error_table
from guides.offline import asked_elsewhere

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
# Where files of the clone that are not in docs/ lie in the site, if a page links to them.
CLONE = "clone/"
API = "api.md"
MADE = {"configuration": configuration, "errors": error_table}
# A link that is called as the file is: a reader of the clone looks for it there, and one of the site for its title.
NAMED = re.compile(r"\[[\w-]+\.md\]\((?=([\w/.-]+\.md)[#)])")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the API's pages, the list of decisions, and the files of the clone that pages link to."""
    names = []
    for tag, text in api_pages().items():
        names.append(f"api/{page_name(tag)}.md")
        files.append(File.generated(config, names[-1], content=text))
    _list_below(API, {"API, by subject": names}, config)
    decisions = sorted(file.src_uri for file in files if re.match(r"adr/\d{4}", file.src_uri))
    files.append(File.generated(config, "adr/index.md", content=_decisions(decisions)))
    _list_below(API, {"Decisions": ["adr/index.md", *decisions]}, config)
    for page in list(files.documentation_pages()):
        for link, _ in LINK.findall(page.content_string):
            target = _in_clone(link, page.src_uri)
            name = _in_site(target)
            if name.startswith(CLONE) and (ROOT / target).is_file() and files.get_file_from_path(name) is None:
                brought = File.generated(config, name, abs_src_path=str(ROOT / target))
                brought.inclusion = InclusionLevel.NOT_IN_NAV
                files.append(brought)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in what is made of the code, and let links lead to where the clone's files lie in the site."""
    del config
    source = page.file.src_uri
    for name, make in MADE.items():
        marker = f"<!-- made of the code: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, make())

    def call(link: re.Match[str]) -> str:
        file = files.get_file_from_path(_in_site(_in_clone(link[1], source)))
        return link[0] if file is None else f"[{_title(file.content_string)}]("

    def lead(link: re.Match[str]) -> str:
        target = _in_site(_in_clone(link[1], source))
        if link[1].endswith("/"):
            target += "/index.md"
        return f"]({posixpath.relpath(target, posixpath.dirname(source) or '.')}{link[2] or ''})"

    return LINK.sub(lead, NAMED.sub(call, markdown))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Name the search for those who do not see it: Material does not."""
    del page, config
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that would fetch anything from elsewhere."""
    if found := asked_elsewhere(Path(config.site_dir)):
        raise PluginError("the site would ask others:\n" + "\n".join(found))


def _in_clone(link: str, page: str) -> str:
    """Return the file of the clone that a page's link means."""
    place = page.removeprefix(CLONE) if page.startswith(CLONE) else DOCS + page
    return posixpath.normpath(posixpath.join(posixpath.dirname(place), link))


def _in_site(target: str) -> str:
    """Return where a file of the clone lies in the site."""
    return target.removeprefix(DOCS) if target.startswith(DOCS) else CLONE + target


def _list_below(page: str, entry: dict[str, list[str]], config: MkDocsConfig) -> None:
    """Put an entry at the end of the part of the navigation that a page is in."""
    for part in config.nav or []:
        for pages in part.values():
            if page in pages:
                pages.append(entry)


def _decisions(names: list[str]) -> str:
    titles = [_title((ROOT / DOCS / name).read_text(encoding="utf-8")) for name in names]
    lines = [f"- [{title}]({posixpath.basename(name)})" for name, title in zip(names, titles, strict=True)]
    return "\n".join(["# Decisions", "", "What is expensive to change later, and why it is as it is.", "", *lines, ""])


def _title(text: str) -> str:
    return text.partition("\n")[0].removeprefix("# ")
