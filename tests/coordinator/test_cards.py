import pytest

from bench.federation import ManualClock, key_of
from services.coordinator.context import Context
from shared.errors import CardInvalid, NotFound
from shared.protocol.card import SignedCard, require_card
from shared.protocol.terms import GateTerms
from tests.support.federations import RUN, begin, play_round, terms_of, theta_of

OPERATOR = key_of("operator").public


@pytest.fixture
def played(context: Context) -> Context:
    """A coordinator whose run has published round 1, refused round 2, and published round 3."""
    begin(context, terms_of(rounds=3, llm="owner/large", slm="/srv/models/small", gate=GateTerms(enabled=True)))
    play_round(context, 1)
    play_round(context, 2, loss=9.0)
    play_round(context, 3)
    return context


def test_a_card_leads_from_round_to_round(played: Context) -> None:
    """A round that was refused changed nothing and is not in it; all of it can be checked without the coordinator."""
    signed = played.cards.card(RUN, 3)
    assert require_card(signed, operator_key=OPERATOR, digest=theta_of(played)) == "slm-adapter"
    assert [one.number for one in signed.card.rounds] == [1, 3]
    assert signed.card.rounds[1].began_from == signed.card.rounds[0].slm_adapter
    assert [one.updates for one in signed.card.rounds] == [2, 2]
    assert require_card(signed, operator_key=OPERATOR, digest=signed.card.rounds[-1].llm_adapter) == "llm-adapter"
    first = played.cards.card(RUN, 1)  # rolled back to
    assert [one.number for one in first.card.rounds] == [1]
    assert require_card(first, operator_key=OPERATOR, digest=first.card.rounds[0].slm_adapter) == "slm-adapter"
    with pytest.raises(CardInvalid, match="is of the adapters"):
        require_card(signed, operator_key=OPERATOR, digest=signed.card.rounds[0].slm_adapter)


def test_a_card_names_models_and_not_the_workers_folders(played: Context) -> None:
    """As a hub names them, or by the last part of where they lie."""
    card = played.cards.card(RUN, 1).card
    assert (card.llm.name, card.slm.name) == ("owner/large", "small")


def test_a_card_never_changes(played: Context, clock: ManualClock) -> None:
    """What an agent fetched with an old adapter is what it gets when an operator rolls back to that."""
    before = played.cards.card(RUN, 1)
    clock.advance(60)
    played.lifecycle.create("another", terms_of(), actor="operator")
    assert played.cards.card(RUN, 1) == before
    assert SignedCard.model_validate_json(before.model_dump_json()) == before


@pytest.mark.parametrize(("run_id", "number"), [(RUN, 2), (RUN, 4), ("nowhere", 1)])
def test_what_was_not_published_has_no_card(run_id: str, number: int, played: Context) -> None:
    """A refused round, one that there is none of, and no run."""
    with pytest.raises(NotFound):
        played.cards.card(run_id, number)


def test_only_so_many_cards_are_kept_at_hand(played: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each can be made again, the same."""
    monkeypatch.setattr("services.coordinator.cards.KEPT", 1)
    first = played.cards.card(RUN, 1)
    played.cards.card(RUN, 3)
    assert played.cards.card(RUN, 1) == first
    assert len(played.cards._made) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/srv/models/small/", "small"),
        ("../kleine Größe", "kleine-Gr--e"),
        ("owner/a](b)", "owner/a--b-"),
        ("...", "unnamed"),
    ],
)
def test_a_name_is_said_so_that_it_can_be_written_down(name: str, said: str, context: Context) -> None:
    """Whatever the worker's folder is called."""
    begin(context, terms_of(slm=name))
    play_round(context, 1)
    assert context.cards.card(RUN, 1).card.slm.name == said


def test_a_card_stays_short(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many rounds it has the newest."""
    monkeypatch.setattr("services.coordinator.cards.MOST_ROUNDS", 2)
    begin(context, terms_of(rounds=3))
    for number in (1, 2, 3):
        play_round(context, number)
    signed = context.cards.card(RUN, 3)
    assert [one.number for one in signed.card.rounds] == [2, 3]
    assert require_card(signed, operator_key=OPERATOR, digest=theta_of(context)) == "slm-adapter"
