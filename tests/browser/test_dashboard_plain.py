"""The dashboard over plain HTTP from another machine, where browsers have neither digests nor a clipboard."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from bench.federation import ManualClock
from services.coordinator.app import create_app
from tests.support.browsers import open_chromium
from tests.support.dashboard import looking, region
from tests.support.seeded import MORNING, opened, small
from tests.support.served import served


@pytest.mark.slow
def test_what_needs_no_keys_is_done_without_encryption(tmp_path: Path) -> None:
    """A run is made; for an invitation the page names the command; nothing offers to copy what cannot be copied."""
    clock = ManualClock(MORNING)
    with (
        opened(tmp_path, clock) as context,
        open_chromium("--host-resolver-rules=MAP elsewhere.test 127.0.0.1") as browser,
    ):
        small(context, clock)
        with served(create_app(context)) as port, looking(browser, port) as one:
            one.url = f"http://elsewhere.test:{port}"
            one.open("new-run")
            one.page.get_by_label("Run id").fill("plain")
            one.page.get_by_role("button", name="Make the draft").click()
            one.arrive("draft")
            one.open("agents/invite")
            expect(region(one.page, "Not from here")).to_contain_text("fedcollm agents invite AGENT")
            assert one.page.get_by_role("button", name="Copy").count() == 0
            context.changes.stop()
        assert context.lifecycle.run("plain").state == "draft"
