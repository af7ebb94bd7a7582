"""What the page of a run says while it goes on, and what an operator does there."""

import pytest
from playwright.sync_api import Browser, Page, expect

from bench.federation import ManualClock, sign
from services.coordinator.context import Context
from shared.protocol.rounds import RoundEvent
from tests.support.dashboard import looking, region
from tests.support.seeded import Player

pytestmark = pytest.mark.slow


def step(page: Page) -> str:
    """Return the phase that the round is in."""
    return page.locator("[aria-current=step] .step").inner_text()


def test_the_phases_of_a_round_are_seen_as_it_goes(
    chromium: Browser, port: int, context: Context, clock: ManualClock
) -> None:
    """From who is ready to the stage of the attempt, without a reload, and said to who does not see it."""
    with looking(chromium, port, "viewer") as one:
        one.open("runs/triage-2")
        live = region(one.page, "Round 5")
        expect(live).to_contain_text("4 ready: 4 are needed, 6 at most.")
        assert step(one.page) == "Agents train"
        with context.store.write() as tx:
            player = Player(context, tx, clock)
            current = player.ready(tx.run("triage-2"), 6)
            tx.change_round(current, RoundEvent.GATHER, actor="coordinator", attempt=1)
        expect(live).to_contain_text("Stage 1 of 5: members announce their keys. 6 members.")
        expect(one.page.locator("[aria-live=polite]").filter(has_text="Round 5: masking.")).to_be_attached()
        assert step(one.page) == "Masking"
        assert one.page.get_by_role("button", name="Pause").count() == 0
    assert one.complaints == []


def test_a_run_that_waits_for_its_signature_says_how_it_is_signed(
    chromium: Browser, port: int, context: Context
) -> None:
    """The command is there to copy, and once it was given the first round opens."""
    with looking(chromium, port) as one:
        one.open("runs/letters-1")
        waits = region(one.page, "It waits to be signed")
        expect(waits).to_contain_text("fedcollm runs sign letters-1 --terms FILE")
        sign(context, "letters-1")
        expect(region(one.page, "Round 1")).to_contain_text("0 ready")
        expect(waits).to_be_hidden()


def test_an_operator_pauses_resumes_and_ends_a_run(chromium: Browser, port: int, context: Context) -> None:
    """Each is asked about first; ending it needs a reason, which everybody reads."""
    with looking(chromium, port) as one:
        page, dialog = one.page, one.page.get_by_role("dialog")
        one.open("runs/triage-2")
        page.get_by_role("button", name="Pause").click()
        dialog.get_by_role("button", name="Leave it as it is").click()
        page.get_by_role("button", name="Pause").click()
        dialog.get_by_role("button", name="Pause").click()
        expect(region(page, "This run is paused")).to_be_visible()
        page.get_by_role("button", name="Resume").click()
        dialog.get_by_role("button", name="Resume").click()
        expect(region(page, "Round 5")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        dialog.get_by_role("button", name="End it for good").click()
        expect(dialog).to_be_visible()
        dialog.get_by_role("textbox").fill("the data was wrong")
        dialog.get_by_role("button", name="End it for good").click()
        expect(region(page, "An operator has ended this run")).to_contain_text("the data was wrong")
        expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    assert context.lifecycle.run("triage-2").reason == "stopped: the data was wrong"


def test_a_chart_has_its_numbers_and_a_refused_round_its_reason(chromium: Browser, port: int, context: Context) -> None:
    """The table below a chart is what the API says; a round that came to nothing says why."""
    rounds = context.lifecycle.rounds("triage-1").rounds
    (refused,) = (each for each in rounds if each.reason)
    with looking(chromium, port) as one:
        one.open("runs/triage-1")
        one.drawn()
        accuracy = region(one.page, "Accuracy")
        accuracy.get_by_text("The numbers").click()
        expect(accuracy.get_by_role("row")).to_have_count(len(rounds) + 2)  # the columns, and the base models
        shown = accuracy.get_by_role("row").all_inner_texts()[2:]
        for text, each in zip(shown, rounds, strict=True):
            assert each.scores is not None
            assert f"{100 * each.scores.slm.accuracy:.1f} % (" in text
        expect(region(one.page, "1 round came to nothing")).to_contain_text(refused.reason or "")
        expect(region(one.page, "This run is finished")).to_be_visible()
