"""What is wrong with a page in a browser, for people who see, do not see, or hold a phone."""

from dataclasses import dataclass
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


@dataclass(frozen=True)
class Screen:
    """On what a page is looked at."""

    scheme: Literal["light", "dark"]
    width: int

    def __str__(self) -> str:
        return f"{self.scheme}-{self.width}"


SCREENS = (Screen("light", 1280), Screen("dark", 1280), Screen("light", 390), Screen("dark", 390))


def barriers(page: Page) -> list[str]:
    """Return what axe finds, and how far the page is wider than its screen."""
    found = [
        f"{each['id']}: {each['help']}: {node['html']}"
        for each in Axe().run(page).response["violations"]
        for node in each["nodes"]
    ]
    root = "document.documentElement"
    over = page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
    return [*found, *([f"{over} pixels wider than the screen"] if over else [])]
