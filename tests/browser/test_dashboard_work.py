"""What people do with the dashboard, against real coordinators, workers and agents."""

import asyncio
import json
import re
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from bench.federation import ManualClock, token_of
from services.client_agent.enrolment import enrol, read_invitation
from services.coordinator.app import create_app
from services.coordinator.context import Context
from services.coordinator.presets import PRESETS, read_terms
from services.coordinator.principals import Role
from services.coordinator.tokens import TokenEntry, TokenFile, TokensFile
from shared.egress import TrafficCount
from shared.protocol.identity import IdentityKey, fingerprint
from shared.protocol.membership import Invitation, MemberState
from shared.transport import tell_nobody
from tests.support.dashboard import Looking, elsewhere, fedcollm, looking, region
from tests.support.federations import coordinator
from tests.support.seeded import MORNING, opened, small
from tests.support.served import operator_options, served

AGENTS = ("ada", "bob", "cleo")


def sign_in(one: Looking, token: str) -> None:
    """Sign in by the form."""
    one.page.get_by_label("Token").fill(token)
    one.page.get_by_role("button", name="Sign in").click()


def test_signing_in_shows_the_federation(chromium: Browser, port: int) -> None:
    """Nobody sees anything before; a token of nobody's is refused; afterwards the federation is there."""
    with looking(chromium, port, None) as one:
        one.open("federation")
        expect(one.page.get_by_role("navigation", name="Pages")).to_be_hidden()
        sign_in(one, "fct_of-nobody")
        expect(one.page.get_by_role("alert")).to_contain_text("This coordinator does not know the token")
        expect(one.page.get_by_label("Token")).to_be_focused()
        sign_in(one, token_of("viewer"))
        one.arrive("federation")
        expect(one.page.get_by_role("heading", level=1)).to_contain_text("northern-clinics")


@pytest.mark.slow
def test_a_bad_form_is_refused_field_by_field(chromium: Browser, port: int, context: Context) -> None:
    """Each fault stands beside its field and in a list that leads there; put right, the draft is made."""
    with looking(chromium, port) as one:
        one.open("new-run")
        page = one.page
        page.get_by_label("Run id").fill("Clinics")
        page.get_by_label("Name", exact=True).fill("Clinics: all")
        page.get_by_role("button", name="Make the draft").click()
        expect(page.get_by_role("heading", name="2 things are to be put right")).to_be_visible()
        expect(page.get_by_label("Run id")).to_have_attribute("aria-invalid", "true")
        expect(region(page, "The run")).to_contain_text("Letters, digits, spaces, dots, dashes and underscores")
        page.get_by_label("Run id").fill("clinics")
        page.get_by_label("Name", exact=True).fill("Clinics")
        region(page, "Cohort").get_by_label("Min count").fill("two")
        region(page, "LoRA of the SLM").get_by_label("Rank").fill("0")
        region(page, "Training, at the agents").get_by_label("Learning rate").evaluate(
            "field => { field.value = '99'; }"
        )
        page.get_by_role("button", name="Make the draft").click()
        expect(page.get_by_role("heading", name="3 things are to be put right")).to_be_visible()
        expect(region(page, "Cohort").get_by_label("Min count")).to_have_attribute("aria-invalid", "true")
        page.get_by_role("link", name=re.compile("Training, optimiser: learning rate .* Too large: 10 is the")).click()
        rate = region(page, "Training, at the agents").get_by_label("Learning rate")
        expect(rate).to_be_focused()
        rate.fill("0.001")
        region(page, "Cohort").get_by_label("Min count").fill("9")
        region(page, "LoRA of the SLM").get_by_label("Rank").fill("8")
        page.get_by_role("button", name="Make the draft").click()
        expect(region(page, "Cohort")).to_contain_text("The minimum count or time of a cohort is above its maximum")
        region(page, "Cohort").get_by_label("Min count").fill("3")
        page.get_by_role("button", name="Make the draft").click()
        one.arrive("draft")
    made = context.lifecycle.run("clinics")
    assert (made.state, made.terms.cohort.min_count, made.terms.training.optimiser.learning_rate) == ("draft", 3, 0.001)


@pytest.mark.slow
def test_a_run_is_made_like_another(chromium: Browser, port: int, context: Context) -> None:
    """The form begins with that run's terms; while nobody answers it says that, and that nothing in it is wrong."""
    with looking(chromium, port) as one:
        page = one.page
        one.open("runs/triage-1")
        page.get_by_role("link", name="New run like this").click()
        one.arrive("new-run")
        page.get_by_label("Run id").fill("triage-3")
        page.route("**/v1/runs/triage-3", lambda route: route.abort())
        page.get_by_role("button", name="Make the draft").click()
        expect(region(page, "Nobody answers")).to_contain_text("look again once it does")
        page.unroute("**/v1/runs/triage-3")
        page.get_by_role("button", name="Make the draft").click()
        one.arrive("draft")
    assert context.lifecycle.run("triage-3").terms == context.lifecycle.run("triage-1").terms


@pytest.mark.slow
def test_the_file_of_a_drafts_terms_says_what_the_coordinator_has(
    chromium: Browser, port: int, context: Context, tmp_path: Path
) -> None:
    """Of every preset, and of texts that TOML has to escape; so the command that signs finds no difference."""
    with looking(chromium, port) as one:
        for number, preset in enumerate(PRESETS):
            run_id, file = f"from-{preset}", tmp_path / f"{preset}.toml"
            one.open("new-run")
            one.page.get_by_role("combobox", name="Begin with").select_option(preset)
            one.page.get_by_label("Run id").fill(run_id)
            region(one.page, "Task").get_by_label("Template").fill(
                f'{number} "quoted" \\ é\x7f:\n\t{{question}}\nAnswer:'
            )
            region(one.page, "LoRA of the SLM").get_by_label("Targets").fill("q_proj, v_proj" if number else "")
            one.page.get_by_role("button", name="Make the draft").click()
            one.arrive("draft")
            with one.page.expect_download() as download:
                one.page.get_by_role("button", name=f"Download {run_id}.toml").click()
            download.value.save_as(file)
            assert read_terms(file) == context.lifecycle.run(run_id).terms


@pytest.mark.slow
def test_an_invitation_lets_an_agent_in(chromium: Browser, tmp_path: Path) -> None:
    """The file that the page makes enrols an agent by the agent's own code; then it is approved, and revoked."""
    clock = ManualClock(datetime.now(UTC).timestamp())
    with ExitStack() as stack:
        context = stack.enter_context(coordinator(tmp_path / "coordinator", clock))
        port = stack.enter_context(served(create_app(context)))
        stack.callback(context.changes.stop)
        one = stack.enter_context(looking(chromium, port))
        page = one.page
        one.open("agents")
        page.get_by_role("link", name="Invite an agent").click()
        one.arrive("agents/invite")
        clock.advance(3600)
        page.get_by_label("Agent", exact=True).fill("dora")
        page.get_by_label("I have compared it, and it is mine").check()
        page.get_by_role("button", name="Make the invitation").click()
        one.arrive("invited")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download dora.invitation").click()
        file = tmp_path / "dora.invitation"
        download.value.save_as(file)
        assert read_invitation(file).expires_at == int(clock()) + 86_400
        assert enrolled(read_invitation(file)) is MemberState.PENDING
        one.open("agents")
        row = page.get_by_role("row").filter(has_text="dora")
        expect(row).to_contain_text("waits for approval")
        expect(region(page, "To be approved")).to_contain_text("fedcollm agents approve dora")
        fedcollm("agents", "approve", "dora", "--yes", *operator_options(tmp_path, port))
        one.open("agents")
        expect(row).to_contain_text("approved")
        page.get_by_role("button", name="Revoke dora").click()
        page.get_by_role("dialog").get_by_role("textbox").fill("it was a test")
        page.get_by_role("dialog").get_by_role("button", name="Revoke dora").click()
        expect(row).to_contain_text("revoked")
        audited = json.loads(context.audit.page(after=0, limit=500).model_dump_json())["entries"]
        assert audited[-1]["detail"]["reason"] == "it was a test"


def enrolled(invitation: Invitation) -> MemberState:
    """Enrol as an agent does, and return its state."""
    key = IdentityKey(b"k" * 32)

    async def bring() -> MemberState:
        view = await enrol(
            invitation,
            key,
            TrafficCount(),
            url=invitation.coordinator_url,
            ca_file=None,
            insecure=False,
            on_retry=tell_nobody,
        )
        return view.state

    return elsewhere(lambda: asyncio.run(bring()))


@pytest.mark.slow
def test_a_token_that_has_ended_is_said_to_have(chromium: Browser, tmp_path: Path) -> None:
    """Whoever worked is signed out with the reason, and goes on where they were with a new one."""
    clock = ManualClock(MORNING)
    ends = datetime.fromtimestamp(MORNING + 12 * 3600, UTC)
    file, never = tmp_path / "principals.json", datetime(9999, 1, 1, tzinfo=UTC)

    def know(token: str, not_after: datetime) -> None:
        entry = TokenEntry.of(token, Role.OPERATOR, not_after=not_after)
        file.write_text(TokensFile({"anna": entry}).model_dump_json())

    know("fct_annas", ends)
    with opened(tmp_path / "coordinator", clock, TokenFile(file)) as context:
        small(context, clock)
        with served(create_app(context)) as port, looking(chromium, port, None) as one:
            one.open("federation")
            sign_in(one, "fct_annas")
            one.arrive("federation")
            one.open("new-run")
            one.page.get_by_role("combobox", name="Begin with").select_option("qwen")
            one.page.get_by_label("Run id").fill("clinics")
            region(one.page, "The run").get_by_label("Rounds").fill("7")
            region(one.page, "Gate").get_by_role("checkbox").uncheck()
            clock.advance(86_400)
            one.page.get_by_role("button", name="Make the draft").click()
            expect(one.page.get_by_role("heading", name="You were signed out")).to_be_visible()
            expect(one.page.locator("main")).to_contain_text("token of anna has ended on 2026-11-24")
            know("fct_annas_new_one", never)
            sign_in(one, "fct_annas_new_one")
            one.arrive("new-run")
            expect(one.page.get_by_label("Run id")).to_have_value("clinics")
            expect(one.page.get_by_role("combobox", name="Begin with")).to_have_value("qwen")
            expect(region(one.page, "The run").get_by_label("Rounds")).to_have_value("7")
            expect(region(one.page, "Gate").get_by_role("checkbox")).not_to_be_checked()
            context.changes.stop()


@pytest.mark.slow
def test_a_coordinator_that_goes_away_and_comes_back(chromium: Browser, context: Context) -> None:
    """It is said to be away, and since when; what was on the screen stays there; once it is back, a click goes on."""
    with looking(chromium, 0) as one:
        with served(create_app(context)) as port:
            one.url = f"http://127.0.0.1:{port}"
            one.page.clock.install()
            one.open("adapters")
        one.page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))  # from here on nothing happens by itself
        one.page.get_by_role("link", name="Audit log").click()
        banner = one.page.get_by_text("The coordinator does not answer. Last heard")
        expect(banner).to_be_visible()
        expect(one.page.get_by_role("heading", name="Adapters", level=1)).to_be_visible()
        one.page.clock.run_for(400)
        expect(one.page.get_by_text("Loading…")).to_be_visible()
        with served(create_app(context), port):
            one.page.get_by_role("link", name="Audit log").click()
            one.arrive("audit")
            expect(banner).to_be_hidden()
            expect(one.page.get_by_role("heading", name="Audit log", level=1)).to_be_visible()
            expect(one.page.get_by_text("Loading…")).to_be_hidden()
            expect(region(one.page, "Its newest entry")).to_contain_text(fingerprint(context.audit.head().key))
