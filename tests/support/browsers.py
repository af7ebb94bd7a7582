"""Debian's Chromium, and what is wrong with a page in it, for people who see, do not see, or hold a phone."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright


@dataclass(frozen=True)
class Screen:
    """On what a page is looked at."""

    scheme: Literal["light", "dark"]
    width: int

    def __str__(self) -> str:
        return f"{self.scheme}-{self.width}"


SCREENS = (Screen("light", 1280), Screen("dark", 1280), Screen("light", 390), Screen("dark", 390))


@contextmanager
def open_chromium(*options: str) -> Iterator[Browser]:
    """Open a browser without a window, with these options; skip the test where there is none."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("there is no chromium on the PATH: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", *options])
        yield browser
        browser.close()


def barriers(page: Page) -> list[str]:
    """Return what axe finds, which tables are cut, and how far the page is wider than its screen."""
    found = [
        f"{each['id']}: {each['help']}: {node['html']}"
        for each in Axe().run(page).response["violations"]
        for node in each["nodes"]
    ]
    root = "document.documentElement"
    over = page.evaluate(f"{root}.scrollWidth - {root}.clientWidth")
    cut = page.locator(".scroll:not([tabindex])").evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => `cut: ${one.innerText.slice(0, 60)}`)"
    )
    return [*found, *cut, *([f"{over} pixels wider than the screen"] if over else [])]
