import pytest

from bench.federation import ManualClock
from services.coordinator.context import Context
from shared.errors import NotFound
from shared.protocol.membership import UNUSABLE, UNWILLING
from shared.protocol.published import AdapterList, Promotion
from tests.support.federations import RUN, begin, client, play_round, run_of, terms_of, theta_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def published(context: Context, clock: ManualClock) -> Context:
    """A coordinator on which a run has published three rounds, and a newer one two."""
    begin(context, terms_of(rounds=3))
    for number in (1, 2, 3):
        play_round(context, number)
        clock.advance(60)
    begin(context, terms_of(rounds=2), "second")
    return context


async def test_agents_hold_the_newest_until_an_operator_chooses_another(published: Context) -> None:
    """Rolling back is choosing an earlier round; whoever asks next is told of it."""
    newest = run_of(published).published
    assert newest is not None
    assert published.rounds.wanted("ada").published == newest
    earlier = published.promotion.pin(RUN, 1, actor="operator")
    assert earlier.pinned
    assert earlier.held is not None
    assert (earlier.held.round, earlier.held.digest != newest.digest) == (1, True)
    assert published.rounds.wanted("ada").published == earlier.held
    assert published.promotion.unpin(actor="operator") == Promotion(held=newest, pinned=False)
    assert published.rounds.wanted("ada").published == newest


@pytest.mark.parametrize(("reason", "is_given"), [(UNWILLING, True), (UNUSABLE, False), ("base_model_mismatch", False)])
def test_an_agent_is_given_what_it_can_use(reason: str, is_given: bool, published: Context) -> None:  # noqa: FBT001
    """One that only takes no part in a run goes back with the others; one whose SLM is another has no use for it."""
    earlier = published.promotion.pin(RUN, 1, actor="operator").held
    assert published.rounds.wanted("ada", {RUN: reason}).published == (earlier if is_given else None)
    newest = published.promotion.unpin(actor="operator").held
    assert published.rounds.wanted("ada", {RUN: reason}).published == (newest if is_given else None)


def test_rounds_go_on_from_their_own_newest_adapter(published: Context) -> None:
    """Choosing an adapter for the agents changes nothing of what runs train."""
    theta = theta_of(published, "second")
    published.promotion.pin(RUN, 2, actor="operator")
    assert theta_of(published, "second") == theta


def test_only_what_a_round_has_published_can_be_chosen(published: Context) -> None:
    """A round that is open, or that there is none of, has nothing to choose."""
    for run_id, number in (("second", 1), (RUN, 4), ("nowhere", 1)):
        with pytest.raises(NotFound, match="has published no adapter"):
            published.promotion.pin(run_id, number, actor="operator")
    assert published.promotion.promotion().pinned is False


def test_choosing_is_in_the_audit_log_once(published: Context) -> None:
    """Who chose what; the same choice again writes nothing."""
    for _ in range(2):
        published.promotion.pin(RUN, 1, actor="operator")
    for _ in range(2):
        published.promotion.unpin(actor="operator")
    lines = [line for line in published.audit.page(after=0, limit=500).entries if line.action.startswith("adapter.")]
    assert [(line.action, line.subject, line.actor) for line in lines] == [
        ("adapter.pinned", f"run/{RUN}/round/1", "operator"),
        ("adapter.unpinned", "adapters", "operator"),
    ]


async def test_published_adapters_come_in_pages_newest_first(published: Context, clock: ManualClock) -> None:
    """Of newer runs first and of a run its newer rounds, each once, with its scores and sizes."""
    clock.advance(1)
    play_round(published, 1, run_id="second")
    places, before = [], {}
    async with client(published, "viewer") as http:
        while True:
            answer = await http.get("/v1/adapters", params={"limit": 2} | before)
            page = AdapterList.model_validate_json(answer.content)
            places += [(one.run_id, one.round) for one in page.adapters]
            assert all(one.scores is not None and one.bytes for one in page.adapters)
            if page.next is None:
                break
            before = {"before": page.next}
        one_run = AdapterList.model_validate_json((await http.get("/v1/adapters", params={"run_id": RUN})).content)
    assert places == [("second", 1), (RUN, 3), (RUN, 2), (RUN, 1)]
    assert [one.round for one in one_run.adapters] == [3, 2, 1]
