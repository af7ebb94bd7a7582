import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from bench.cotuning_plain import PlainLoop, random_batches
from bench.flops import Epoch, Machine, Shape, operations_of, shape_of, utilisation
from bench.other_side import OtherSide, same_versions
from bench.resident import grown
from bench.scoring import Compared, Theirs, compared
from bench.scoring_tasks import NAMES, question_set
from bench.side_by_side import Taken, apart, options_of, print_report, ratio_lines
from shared.data.examples import Example
from shared.errors import DataUnreadable
from shared.ml.adapters import adapter_tensors
from shared.ml.cotune import cotune
from shared.ml.encoding import batches, encode_examples
from shared.ml.evaluate import Evaluation
from shared.ml.seeding import derive_seed
from shared.ml.train import train_local
from shared.protocol.terms import CotuningTerms, OptimiserTerms
from tests.support.tiny_models import tiny_base, tiny_lora, tiny_tokenizer


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors gain nothing from more
    yield
    torch.set_num_threads(before)


def test_another_program_is_asked_and_ended():
    """It answers until the block ends; where it ends before, what it complained of is told."""
    with OtherSide(Path(sys.executable), "tests.support.echo", [], changes={}) as side:
        assert side.ask(one=1, two=["zwei"]) == {"one": 1, "two": ["zwei"]}
        assert side.ask() == {}
        with pytest.raises(RuntimeError, match="that is enough"):
            side.ask(end=True)
        with pytest.raises(RuntimeError, match="that is enough"):
            side.ask()


def test_versions_are_asked_for_as_they_are_here():
    """Without what tells builds for a CPU from others: pip's index need not have it."""
    assert same_versions("numpy", "torch") == [f"numpy=={np.__version__}", f"torch=={torch.__version__.split('+')[0]}"]


def test_ratios_are_of_turns_and_not_of_sums():
    """The median of each turn's own ratio, with the least and the most."""
    ours = [Taken(1.0, 1.0), Taken(2.0, 1.0), Taken(4.0, 1.0)]
    theirs = [Taken(3.0, 2.0), Taken(4.0, 2.0), Taken(10.0, 2.0)]
    assert ratio_lines("peer", ours, theirs, wanted=2.5) == [
        "  seconds: ours 2.0, peer 4.0; ratio 2.50 (2.00 to 3.00); wanted: 2.5 or more",
        "  of a processor: ours 1.0, peer 2.0; ratio 2.00 (2.00 to 2.00); wanted: 2.5 or more",
    ]
    assert not any("wanted" in line for line in ratio_lines("peer", ours, theirs, wanted=None))


def test_adapters_are_as_far_apart_as_what_training_changed():
    """0 for equal ones, 1 for one that was not trained at all."""
    begin, trained = {"a": np.zeros(2, np.float32)}, {"a": np.array([3, 4], np.float32)}
    assert apart(trained, trained, begin) == 0
    assert apart(trained, begin, begin) == 1
    assert apart(trained, {"a": np.array([3, 3], np.float32)}, begin) == pytest.approx(0.2)


def test_a_report_says_what_its_figures_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Command and machine first, then the lines; the same in the file."""
    monkeypatch.setattr(sys, "argv", ["x", "--data", "/some/where", "--out", str(tmp_path / "lines.txt")])
    parser = options_of("scoring", None)
    print_report(parser, parser.parse_args(), iter(["one", "two"]))
    printed = capsys.readouterr().out
    assert "python -m bench.scoring --data where" in printed.splitlines()[0]
    assert printed.endswith("one\ntwo\n")
    assert (tmp_path / "lines.txt").read_text() == printed


QUESTION = {
    "question": {
        "stem": "Red is",
        "choices": [{"label": label, "text": text} for label, text in zip("ABC", "xyx", strict=True)],
    },
    "answerKey": "C",
}


def test_both_sides_are_given_the_same_questions(tmp_path: Path):
    """One file each, whatever folder it is in; the template and the answer's text are the configuration's."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "dev_rand_split.jsonl").write_text(json.dumps(QUESTION))
    found = question_set("commonsenseqa", tmp_path)
    assert found.examples() == [Example("Question: Red is\nAnswer:", ("x", "y"), 0)]
    task = json.loads(found.lm_eval_task())
    assert task["doc_to_text"] == "Question: {{question.stem}}\nAnswer:"
    assert task["dataset_kwargs"]["data_files"]["validation"] == str(tmp_path / "deep" / "dev_rand_split.jsonl")
    assert "arc_easy_train" not in NAMES
    with pytest.raises(DataUnreadable, match=r"there are 0 files ARC-Easy-Dev\.jsonl"):
        question_set("arc_easy", tmp_path)


def test_items_are_compared_one_by_one():
    """By their place; likelihoods by the answer's text, and a text listed twice is one choice of ours."""
    ours = Evaluation(
        accuracy=0.5,
        accuracy_norm=1.0,
        loss=1.0,
        examples=2,
        chance=0.5,
        interval=None,
        correct=(True, False),
        correct_norm=(True, True),
        predicted=(),
        log_likelihoods=((-1.0, -2.0), (-3.0, -4.0)),
    )
    theirs = Theirs(
        seconds=1.0,
        cpu_seconds=1.0,
        all_seconds=2.0,
        correct=[True, True],
        correct_norm=[False, True],
        answers=[[" x", " y", " x"], [" x", " y"]],
        log_likelihoods=[[-1.0, -2.0, -1.25], [-3.0, -4.0]],
    )
    examples = [Example("p", ("x", "y"), 0), Example("q", ("x", "y"), 1)]
    assert compared(examples, ours, theirs) == Compared(acc=[1], acc_norm=[0], log_likelihood=0.25)


def test_the_plain_loop_is_co_tuning():
    """Both ways of writing it give ours on the same batches: losses, and both adapters."""
    tokenizer = tiny_tokenizer()
    examples = [Example("x" * (1 + i % 3), ("red" if i % 2 else "tan",), 0) for i in range(8)]
    encoded = encode_examples(tokenizer, examples, max_tokens=32)
    optimiser = OptimiserTerms(learning_rate=0.01)

    def pair() -> tuple[PeftModel, PeftModel]:
        return tiny_lora(seed=1, vocab_size=260, spread=0.3), tiny_lora(seed=2, vocab_size=260, spread=0.3)

    ours, losses = pair(), []
    begin = [adapter_tensors(model) for model in ours]
    terms = CotuningTerms(batch_size=4, llm_optimiser=optimiser, slm_optimiser=optimiser)
    cotune(*ours, encoded, terms=terms, seed=3, vocab_size=260, on_step=lambda *step: losses.append(step[2]))
    for picked in (False, True):
        plain = pair()
        loop = PlainLoop(*plain, optimiser, picked=picked)
        assert loop.run(list(batches(encoded, batch_size=4, seed=derive_seed(3, 0)))) == pytest.approx(losses, rel=1e-4)
        for one, other, before in zip(ours, plain, begin, strict=True):
            assert apart(adapter_tensors(one), adapter_tensors(other), before) < 0.01


def test_both_loops_take_their_steps_with_the_same_adamw(monkeypatch: pytest.MonkeyPatch):
    """Else a ratio of seconds would be one of optimisers too."""
    made = []

    class Recorded(torch.optim.AdamW):
        def __init__(self, weights: Iterable[torch.Tensor], **settings: object) -> None:
            made.append(settings)
            super().__init__(weights, **settings)

    monkeypatch.setattr(torch.optim, "AdamW", Recorded)
    encoded = encode_examples(tiny_tokenizer(), [Example("x", ("a",), 0)], max_tokens=32)
    optimiser = OptimiserTerms(learning_rate=0.01, weight_decay=0.1)
    terms = CotuningTerms(batch_size=1, llm_optimiser=optimiser, slm_optimiser=optimiser)
    pair = tiny_lora(seed=1), tiny_lora(seed=2)
    cotune(*pair, encoded, terms=terms, seed=3, vocab_size=260, on_step=lambda *_: None)
    PlainLoop(*pair, optimiser).run([encoded])
    assert len(made) == 4
    assert all(settings == made[0] for settings in made)


def test_random_batches_have_each_example_once():
    """In an order of the seed."""
    encoded = encode_examples(tiny_tokenizer(), [Example("x" * i, ("a",), 0) for i in range(1, 8)], max_tokens=32)
    found = random_batches(encoded, 3, seed=0)
    assert [len(batch) for batch in found] == [3, 3, 1]
    assert sorted(len(one.token_ids) for batch in found for one in batch) == [len(one.token_ids) for one in encoded]
    assert random_batches(encoded, 3, seed=1) != found


@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("qwen2", True)])
def test_operations_are_those_of_the_matrix_products(family: str, tied: bool):  # noqa: FBT001 - a parameter
    """A head that is the embedding counts as a head; an embedding that is looked up counts nowhere; LoRA neither."""
    model = tiny_base(family)
    layers = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    )
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    found = shape_of(model)
    assert found == Shape(body=layers, head=264 * 32, bytes_a_weight=4) == shape_of(tiny_lora(family))
    assert found.operations(tokens=10, head_tokens=3) == 2 * 2 * (10 * layers + 3 * 264 * 32)
    assert found.bytes_read(steps=5) == 2 * 5 * 4 * (layers + 264 * 32)


def test_operations_are_counted_under_each_of_their_names():
    """Of a product, one that is added in place, and attention on a CPU; in both directions."""
    a, b, c = torch.ones(2, 3, requires_grad=True), torch.ones(3, 5), torch.zeros(2, 5)
    product = 2 * 2 * 3 * 5
    assert operations_of(lambda: (a @ b).sum().backward()) == 2 * product
    with torch.no_grad():
        assert operations_of(lambda: c.addmm_(a, b)) == product
    query = torch.ones(1, 2, 16, 8, requires_grad=True)
    scores = 2 * 2 * 16 * 16 * 8

    def attend() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, query, query)

    assert operations_of(attend) == 2 * scores
    assert operations_of(lambda: attend().sum().backward()) == 7 * scores


def test_a_training_computes_little_more_than_it_needs():
    """What is counted is what a step was said to need, with LoRA, attention and a little padding."""
    model = tiny_lora(hidden=64)
    encoded = encode_examples(tiny_tokenizer(), [Example("x" * 20, ("red",), 0)] * 4, max_tokens=32)
    count = operations_of(
        lambda: train_local(
            model,
            encoded,
            epochs=1,
            batch_size=2,
            optimiser=OptimiserTerms(learning_rate=0.01),
            seed=0,
            vocab_size=260,
            on_step=lambda *_: None,
        )
    )
    tokens = sum(len(one.token_ids) - 1 for one in encoded)
    answers = sum(len(one.token_ids) - one.answer_start for one in encoded)
    assert 1 < count / shape_of(model).operations(tokens, answers) < 1.5


def test_loops_are_told_by_what_they_need_and_what_they_compute():
    """The least time first; then how near each comes to it, and at what rate it computes what else it does."""
    lines = utilisation(
        Machine(operations=1e12, bytes_read=1e9),
        [Shape(body=10**8, head=10**8, bytes_a_weight=4)] * 2,
        {"ours": Epoch(operations=2 * 10**11, seconds=0.5), "theirs": Epoch(operations=3 * 10**11, seconds=1.0)},
        tokens=100,
        answers=25,
        steps=2,
    )
    floor, ours, theirs = lines
    assert floor.startswith("an epoch needs 0.10 T operations in matrix products and reads 6 GB of weights")
    assert floor.endswith("that is 6.4 seconds")
    assert ours.startswith("  ours: 20 % of these operations a second")
    assert "computes 2.00 times as many, at 40 % of a large product's rate" in ours
    assert theirs.startswith("  theirs: 10 % ")
    assert "computes 3.00 times as many, at 30 % of" in theirs


def test_the_least_time_is_what_takes_longer():
    """Operations or bytes."""
    assert Machine(operations=10, bytes_read=2).least_seconds(operations=50, bytes_read=4) == 5
    assert Machine(operations=10, bytes_read=2).least_seconds(operations=50, bytes_read=40) == 20


def test_memory_is_what_is_resident_at_the_peak():
    """Also what is given back before the end."""
    assert grown(lambda: np.ones(20_000_000).sum()) > 100_000_000
