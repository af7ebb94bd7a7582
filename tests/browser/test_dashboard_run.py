"""A run in the dashboard, from an empty form to its end, against a federation that lives."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from services.client_agent.state import StateFolder
from tests.support.cotuners import AddingCoTuner
from tests.support.dashboard import Looking, fedcollm, looking, region
from tests.support.federations import LLM_LAYOUT, SLM_LAYOUT
from tests.support.living import living
from tests.support.served import operator_options

AGENTS = ("ada", "bob", "cleo")


@pytest.mark.slow
def test_a_run_is_made_signed_and_watched_to_its_end(chromium: Browser, tmp_path: Path) -> None:
    """From an empty form to the adapters of three rounds, which its agents hold; then one is rolled back."""
    cotuner = AddingCoTuner(SLM_LAYOUT, LLM_LAYOUT, [0.9, 0.8, 0.7])
    with living(tmp_path, cotuner, AGENTS) as port, looking(chromium, port) as one:
        operator = operator_options(tmp_path, port)
        terms = make_run(one, tmp_path / "first.toml")
        start_run(one)
        fedcollm("runs", "sign", "first", "--terms", str(terms), *operator)
        expect(region(one.page, "This run is finished")).to_be_visible(timeout=60_000)
        expect(region(one.page, "At a glance")).to_contain_text("3 of 3")
        assert one.complaints == []
        roll_back(one, tmp_path)
        ask(one)


def make_run(one: Looking, terms: Path) -> Path:
    """Make a draft by the form, and keep its terms."""
    page = one.page
    one.open("runs")
    page.get_by_role("link", name="New run").click()
    one.arrive("new-run")
    page.get_by_label("Run id").fill("first")
    region(page, "The run").get_by_label("Rounds").fill("3")
    region(page, "LoRA of the SLM").get_by_label("Rank").fill("2")
    region(page, "Cohort").get_by_label("Max count").fill("3")
    region(page, "Secure aggregation").get_by_label("Clip norm").fill("10000")
    page.get_by_role("button", name="Make the draft").click()
    one.arrive("draft")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download first.toml").click()
    download.value.save_as(terms)
    page.get_by_role("link", name="Open the run").click()
    one.arrive("runs/:id")
    return terms


def start_run(one: Looking) -> None:
    """Start a draft, and wait until it says what it waits for."""
    one.page.get_by_role("button", name="Start").click()
    one.page.get_by_role("dialog").get_by_role("button", name="Start").click()
    expect(one.page.locator("main")).to_contain_text("fedcollm runs sign", timeout=30_000)


def roll_back(one: Looking, folder: Path) -> None:
    """Let agents hold the first round's adapter, and then the newest again."""
    page = one.page
    published = {agent: StateFolder(folder / agent) for agent in AGENTS}
    one.open("adapters")
    page.get_by_role("button", name="Let agents hold it: first, round 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Let agents hold it").click()
    expect(region(page, "What the agents hold")).to_contain_text("first, round 1")
    until(page, lambda: {held_round(one) for one in published.values()} == {1})
    page.get_by_role("button", name="Follow the newest again").click()
    page.get_by_role("dialog").get_by_role("button", name="Follow the newest").click()
    expect(region(page, "What the agents hold")).to_contain_text("first, round 3")
    until(page, lambda: {held_round(one) for one in published.values()} == {3})


def held_round(state: StateFolder) -> int | None:
    """Return the round whose adapter an agent holds."""
    return None if state.published is None else state.published.round


def ask(one: Looking) -> None:
    """Put a prompt to the models."""
    one.open("ask")
    one.page.get_by_label("Prompt").fill("Who is there?")
    one.page.get_by_role("button", name="Ask", exact=True).click()
    one.arrive("answered")
    for name in ("LLM, as it was", "LLM, co-tuned", "SLM, as it was", "SLM, co-tuned"):
        expect(region(one.page, name)).not_to_contain_text("No answer")


def until(page: Page, happens: Callable[[], bool]) -> None:
    """Wait until something has happened that the page does not show; fail after ten seconds."""
    for _ in range(200):
        if happens():
            return
        page.wait_for_timeout(50)
    pytest.fail("it has not happened")
