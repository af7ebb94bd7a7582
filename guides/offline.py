"""The site asks nobody: whoever reads it is seen by nobody else, and needs no internet."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# What a browser fetches by itself: attributes, by element. A link that a reader follows is not among them.
FETCHED = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
}
# Of <link>, those that name another page of the site are fetched by nobody.
FOLLOWED = {"canonical", "prev", "next", "alternate"}
IN_STYLES = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)")


def asked_elsewhere(site: Path) -> list[str]:
    """Return what the pages and styles of a site would fetch from elsewhere, each with the file that it is in."""
    found = []
    for file in sorted(site.rglob("*.html")):
        page = _Page()
        page.feed(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(site)}: {address}" for address in page.elsewhere]
    for file in sorted(site.rglob("*.css")):
        found += [f"{file.relative_to(site)}: {each}" for each in IN_STYLES.findall(file.read_text(encoding="utf-8"))]
    return found


class _Page(HTMLParser):
    """A page, and what it has a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one element."""
        given = {name: value or "" for name, value in attrs}
        self.elsewhere += [address for address in self._fetched(tag, given) if re.match(r"(https?:)?//", address)]
        self.elsewhere += IN_STYLES.findall(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        """Look at what stands between elements: styles, where they do."""
        if self.rawdata and self.cdata_elem == "style":
            self.elsewhere += IN_STYLES.findall(data)

    @staticmethod
    def _fetched(tag: str, given: dict[str, str]) -> Iterator[str]:
        if tag == "link" and given.get("rel") not in FOLLOWED:
            yield given.get("href", "")
        for name in FETCHED.get(tag, ()):
            for part in given.get(name, "").split(","):
                yield part.strip().partition(" ")[0]
