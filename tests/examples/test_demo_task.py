import hashlib
import json
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.demo import dialects, pretrain, task
from examples.demo.preset import AUXILIARY_ITEMS, EVALUATION_ITEMS, ITEMS_AN_AGENT, MODELS, VALIDATION_ITEMS, demo_terms
from shared.data.examples import read_examples
from shared.data.source import DataSource
from shared.ml.encoding import encode_examples

SIZES = {"llm": (4_000_000, 8_000_000), "slm": (1_000_000, 2_000_000)}
MOST_BYTES = 25_000_000
SEEDS = (0, 1, 2)
NEUTRAL = dialects.neutral_dialects(max(recipe.dialects for recipe in pretrain.RECIPES.values()))


def write_data(folder: Path, seed: int) -> list[Path]:
    task.write_demo_data(
        folder,
        seed=seed,
        items_per_agent=ITEMS_AN_AGENT,
        evaluation_items=EVALUATION_ITEMS,
        auxiliary_items=AUXILIARY_ITEMS,
        validation_items=VALIDATION_ITEMS,
    )
    return sorted(folder.iterdir())


def content(record: task.Record) -> frozenset[task.Entry]:
    """What a record says, whatever the dialect and the order of its entries."""
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
    """What is validated on was never trained on, neither as the same text nor as the same record retold."""
    assert {item.prompt for item in validation}.isdisjoint(item.prompt for item in training)
    assert {content(item.record) for item in validation}.isdisjoint(content(item.record) for item in training)


@pytest.mark.parametrize("seed", SEEDS)
def test_agents_evaluate_on_records_that_they_do_not_train_on(tmp_path: Path, seed: int):
    """Though in their own dialect; and there are several times as many as a run asks for."""
    write_data(tmp_path, seed)
    for agent in dialects.AGENTS:
        trained, own = (
            (tmp_path / f"{name}.jsonl").read_text().splitlines() for name in (agent, f"{agent}-evaluation")
        )
        assert set(trained).isdisjoint(own)
        assert len(set(own)) == EVALUATION_ITEMS >= 2 * demo_terms(seed).evaluation_examples


def test_no_record_of_a_party_or_of_validation_is_in_the_pretraining_data(
    validation: list[task.Item], training: list[task.Item]
):
    """Pretraining has records of its own: this looks at the first of them, `owner` decides for all."""
    pretraining = list(islice(task.documents(pretrain.SEED, NEUTRAL), 4000))
    assert {task.owner(document.record) for document in pretraining} == {task.PRETRAINING}
    for items in (validation, training):
        assert {content(item.record) for item in items}.isdisjoint(content(each.record) for each in pretraining)
        assert task.PRETRAINING not in {task.owner(item.record) for item in items}


def test_owner_depends_on_content_alone():
    """The order of the entries does not change who may use a record, and everybody has some."""
    record = next(task.records_of(task.VALIDATION, task.Random(0)))
    assert task.owner(record[::-1]) == task.owner(record) == task.VALIDATION
    owners = {task.owner(task.random_record(task.Random(seed))) for seed in range(300)}
    assert owners == {*task.OWNERS, task.PRETRAINING}


def test_answer_is_one_of_four_different_choices_and_stands_in_the_prompt(
    validation: list[task.Item], training: list[task.Item]
):
    """A model that knows nothing has one chance in four, and one that reads needs nothing but the prompt."""
    for item in (*validation, *training):
        assert len(set(item.choices)) == task.CHOICES
        assert item.answer in item.choices
        assert all(choice in item.prompt for choice in item.choices)
        assert item.prompt == item.prompt.strip()


def test_answers_are_right():
    """Who holds a role is answered with the name beside it, and what somebody is with the role."""
    record = tuple(task.Entry(role, name) for role, name in enumerate(("Ann", "Bob", "Cid", "Dan", "Eve", "Fay")))
    port = dialects.DIALECTS["agent-2"]
    who, what = (task.ask(record, record[3], kind, port) for kind in task.KINDS)
    assert (who.text, who.answer) == ("docker / who", "Dan")
    assert (what.text, what.answer) == ("Dan / what", "docker")
    assert set(who.others) == {"Ann", "Bob", "Cid", "Eve", "Fay"}
    assert set(what.others) == {"captain", "pilot", "stoker", "diver", "clerk"}


@pytest.mark.parametrize("position", range(task.CHOICES))
def test_always_the_same_choice_scores_like_chance(validation: list[task.Item], position: int):
    """The order of the choices gives nothing away."""
    right = sum(item.choices[position] == item.answer for item in validation)
    assert right / len(validation) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("longest", lambda item, _: max(item.choices, key=len)),
        ("shortest", lambda item, _: min(item.choices, key=len)),
        ("most frequent", lambda item, seen: max(item.choices, key=lambda choice: seen[choice])),
        ("first in the prompt", lambda item, _: min(item.choices, key=item.prompt.index)),
        ("last in the prompt", lambda item, _: max(item.choices, key=item.prompt.index)),
    ],
)
def test_no_simple_rule_beats_chance(
    validation: list[task.Item],
    training: list[task.Item],
    name: str,
    rule: Callable[[task.Item, Counter[str]], str],
):
    """An accuracy above chance means that something was read."""
    seen = Counter(item.answer for item in training)
    right = sum(rule(item, seen) == item.answer for item in validation)
    assert right / len(validation) < 0.33, name


def test_the_five_dialects_differ_in_form_from_each_other_and_from_all_neutral_ones():
    """Pretraining shows no layout and no question of a party."""
    private = dialects.DIALECTS.values()
    for part in ("entry", "who", "what"):
        forms = {getattr(dialect, part) for dialect in private}
        assert len(forms) == len(private)
        assert forms.isdisjoint(getattr(dialect, part) for dialect in NEUTRAL)
    assert len({role for dialect in private for role in dialect.roles}) == 30


def test_same_seed_same_bytes(tmp_path: Path):
    """A demo can be made again from its seed."""
    once, again, other = (
        [hashlib.sha256(file.read_bytes()).hexdigest() for file in write_data(tmp_path / folder, seed)]
        for folder, seed in (("once", 1), ("again", 1), ("other", 2))
    )
    assert once == again
    assert set(once).isdisjoint(other)


def test_validation_holds_all_dialects_and_kinds_alike(validation: list[task.Item]):
    """No dialect and no kind of question weighs more than another in an accuracy."""
    assert Counter((item.wording, item.kind) for item in validation[:240]) == {
        (wording, kind): 24 for wording in dialects.DIALECTS for kind in task.KINDS
    }


def test_rows_are_read_by_the_product_and_answers_are_one_token(tmp_path: Path):
    """The demo's data is data like any other, and fits the preset's `max_tokens`."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "slm")
    files = write_data(tmp_path, seed=0)
    own = [name for agent in dialects.AGENTS for name in (f"{agent}-evaluation", agent)]
    assert [file.stem for file in files] == [*own, dialects.AUXILIARY, task.VALIDATION]
    for file in files:
        rows = encode_examples(
            tokenizer,
            read_examples(DataSource(path=file), demo_terms(0).task),
            max_tokens=demo_terms(0).training.max_tokens,
        )
        assert all(len(row.token_ids) - row.answer_start == 1 for row in rows)


@pytest.mark.parametrize("name", SIZES)
def test_shipped_model_is_what_it_is_said_to_be(name: str):
    """An ordinary Llama directory of the size that was asked for: bf16, tied embeddings, its recipe beside it."""
    model, report = AutoModelForCausalLM.from_pretrained(MODELS / name, output_loading_info=True)
    assert not report["missing_keys"]
    assert type(model).__name__ == "LlamaForCausalLM"
    assert SIZES[name][0] <= model.num_parameters() <= SIZES[name][1]
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(MODELS / name))
    recipe = json.loads((MODELS / name / "recipe.json").read_text())
    assert recipe["seed"] == pretrain.SEED
    assert recipe["parameters"] == model.num_parameters()
    assert recipe["seconds"] <= 3600


def test_shipped_models_share_a_tokenizer_and_are_small():
    """A pair is a pair because of its tokenizer, and everybody who clones has to fetch it."""
    tokenizers = [(MODELS / name / "tokenizer.json").read_bytes() for name in SIZES]
    assert tokenizers[0] == tokenizers[1]
    assert sum(file.stat().st_size for file in MODELS.rglob("*") if file.is_file()) <= MOST_BYTES


def test_tokenizer_can_be_made_again():
    """The shipped tokenizer is the one that the script makes."""
    made = pretrain.train_tokenizer().backend_tokenizer.to_str()
    shipped = AutoTokenizer.from_pretrained(MODELS / "slm").backend_tokenizer.to_str()
    assert json.loads(made)["model"] == json.loads(shipped)["model"]
