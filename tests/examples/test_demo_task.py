import hashlib
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from examples.demo import dialects, pretrain, task

MODELS = Path(task.__file__).parent / "models"
SIZES = {"llm": (4_000_000, 8_000_000), "slm": (1_000_000, 2_000_000)}
SEEDS = (0, 1, 2)


def content(record: dialects.Record) -> frozenset[dialects.Card]:
    """What a record says, whatever the dialect and the order of its cards."""
    return frozenset(record)


@pytest.fixture(scope="module")
def validation() -> list[task.Item]:
    return [item for seed in SEEDS for item in task.unseen_items(seed, 240)]


@pytest.fixture(scope="module")
def training() -> list[task.Item]:
    return [
        item
        for seed in SEEDS
        for party in (*dialects.AGENTS, dialects.AUXILIARY)
        for item in islice(task.items(party, party, seed), 500)
    ]


def test_no_record_of_validation_is_in_anyones_training_data(validation: list[task.Item], training: list[task.Item]):
    assert {item.prompt for item in validation}.isdisjoint(item.prompt for item in training)
    assert {content(item.record) for item in validation}.isdisjoint(content(item.record) for item in training)


def test_no_record_of_a_party_or_of_validation_is_in_the_pretraining_data(
    validation: list[task.Item], training: list[task.Item]
):
    pretraining = [
        document
        for stage, (wordings, telling) in enumerate(pretrain.STAGES)
        for document in islice(task.documents(pretrain.SEED + stage, wordings, telling, pretrain.CHARACTERS), 2000)
    ]
    for items in (validation, training):
        assert {content(item.record) for item in items}.isdisjoint(content(each.record) for each in pretraining)
        assert not any(item.prompt in document.text for item in items[:50] for document in pretraining)


def test_owner_depends_on_content_alone():
    record = next(task.records_of(task.VALIDATION, task.Random(0)))
    assert task.owner(record[::-1]) == task.owner(record) == task.VALIDATION
    assert {task.owner(task.random_record(task.Random(seed), 4)) for seed in range(300)} == {
        *task.OWNERS,
        task.PRETRAINING,
    }


def test_answer_is_one_of_four_different_choices_and_stands_in_the_prompt(
    validation: list[task.Item], training: list[task.Item]
):
    for item in (*validation, *training):
        assert len(set(item.choices)) == 4
        assert item.answer in item.choices
        assert all(choice in item.prompt for choice in item.choices)
        assert item.prompt == item.prompt.strip()


@pytest.mark.parametrize("position", range(4))
def test_always_the_same_choice_scores_like_chance(validation: list[task.Item], position: int):
    assert sum(item.choices[position] == item.answer for item in validation) / len(validation) == pytest.approx(
        0.25, abs=0.06
    )


def test_length_and_frequency_of_an_answer_give_nothing_away(validation: list[task.Item], training: list[task.Item]):
    seen = Counter(item.answer for item in training)
    rules = {
        "longest": lambda item: max(item.choices, key=len),
        "shortest": lambda item: min(item.choices, key=len),
        "most frequent": lambda item: max(item.choices, key=lambda choice: seen[choice]),
    }
    for name, rule in rules.items():
        right = sum(rule(item) == item.answer for item in validation) / len(validation)
        assert right == pytest.approx(0.25, abs=0.06), name


def test_where_a_choice_stands_in_the_prompt_gives_little_away(validation: list[task.Item]):
    for rule in (min, max):
        right = sum(rule(item.choices, key=item.prompt.index) == item.answer for item in validation)
        assert right / len(validation) < 0.35


def test_answers_are_right():
    record = (
        dialects.Card("Ann", "Elm", "12", "Bob"),
        dialects.Card("Bob", "Oak", "30", "Cid"),
        dialects.Card("Cid", "Ash", "20", "Dan"),
        dialects.Card("Dan", "Fir", "40", "Ann"),
    )
    cards = {card.name: card for card in record}
    for seed in range(50):
        ask = {kind: task.random_question(record, kind, task.Random(seed)) for kind in dialects.KINDS}
        named = cards[ask["place"].values["x"]]
        assert (ask["place"].answer, ask["number"].answer, ask["partner"].answer) == (
            named.place,
            named.number,
            named.partner,
        )
        assert cards[ask["holder"].answer].place == ask["holder"].values["place"]
        assert ask["partner_place"].answer == cards[named.partner].place
        compared = [cards[ask["more"].values[key]] for key in "xy"]
        assert int(cards[ask["more"].answer].number) == max(int(card.number) for card in compared)


def test_the_five_dialects_differ_in_form_from_each_other_and_from_all_neutral_ones():
    private = list(dialects.DIALECTS.values())
    neutral = [dialects.PLAIN, *pretrain.NEUTRAL]
    assert len({form.card for form in private}) == len(private) == 5
    assert {form.card for form in private}.isdisjoint(form.card for form in neutral)
    asked = [question for form in private for question in form.questions.values()]
    assert len(set(asked)) == len(asked)
    assert set(asked).isdisjoint(question for form in neutral for question in form.questions.values())


def test_same_seed_same_bytes(tmp_path: Path):
    digests = []
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        task.write_demo_data(tmp_path / folder, seed=seed)
        files = sorted((tmp_path / folder).iterdir())
        assert [file.stem for file in files] == [*dialects.AGENTS, dialects.AUXILIARY, task.VALIDATION]
        digests.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert digests[0] == digests[1]
    assert set(digests[0]).isdisjoint(digests[2])


def test_validation_holds_all_dialects_and_kinds_alike(validation: list[task.Item]):
    assert Counter(item.wording for item in validation[:240]) == dict.fromkeys(dialects.DIALECTS, 48)
    assert Counter(item.kind for item in validation[:240]) == dict.fromkeys(dialects.KINDS, 40)
