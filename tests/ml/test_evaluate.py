import dataclasses
import math

import pytest
import torch
from peft import PeftModel
from tokenizers import models
from transformers import PreTrainedModel

from shared.data.examples import Example
from shared.errors import DataEmpty, ExampleTooLong, LossNotFinite
from shared.ml import likelihood
from shared.ml.encoding import encode_choices, encode_examples
from shared.ml.evaluate import Evaluation, evaluate
from shared.ml.train import train_local
from shared.protocol.terms import OptimiserTerms, TooLong
from tests.support.tiny_models import FAMILIES, tiny_base, tiny_lora, tiny_tokenizer, wrapped

TOKENIZER = tiny_tokenizer()
VOCAB = len(TOKENIZER)


def score(
    model: PeftModel | PreTrainedModel,
    examples: list[Example],
    *,
    batch_size: int = 8,
    max_tokens: int = 64,
    too_long: TooLong = "refuse",
) -> Evaluation:
    """Evaluation with the tiny tokenizer."""
    encoded = encode_choices(TOKENIZER, examples, max_tokens=max_tokens, too_long=too_long)
    return evaluate(model, encoded, batch_size=batch_size, vocab_size=VOCAB, on_batch=lambda: None)


def naive_score(model: PeftModel, prompt: str, choice: str) -> tuple[float, int]:
    """Summed log-likelihood of an answer's tokens, and their number, by hand."""
    start, ids = len(TOKENIZER(prompt)["input_ids"]), TOKENIZER(f"{prompt} {choice}")["input_ids"]
    with torch.no_grad():
        log_p = model(input_ids=torch.tensor([ids])).logits[0, :, :VOCAB].log_softmax(-1)
    return sum(log_p[i - 1, ids[i]].item() for i in range(start, len(ids))), len(ids) - start


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
def test_the_choice_with_the_largest_summed_log_likelihood_is_the_models(family: str, examples: list[Example]):
    """Against scores by hand, item by item; the loss is a mean per token of the right answers."""
    model = tiny_lora(family, spread=0.3)
    # Longer than the tiny models' sliding windows, for some; then the prompt's own keys begin to drop out.
    examples = [dataclasses.replace(one, prompt=one.prompt * (1 + i % 3)) for i, one in enumerate(examples)]
    result = score(model, examples)
    scores = [[naive_score(model, example.prompt, choice) for choice in example.choices] for example in examples]
    right = [of[example.answer] for of, example in zip(scores, examples, strict=True)]
    chosen = [max(range(4), key=lambda index, of=of: of[index][0]) for of in scores]
    assert result.correct == tuple(index == example.answer for index, example in zip(chosen, examples, strict=True))
    assert result.accuracy == sum(result.correct) / 10
    assert result.log_likelihoods == tuple(
        tuple(pytest.approx(likelihood, rel=1e-4) for likelihood, _ in of) for of in scores
    )
    assert result.loss == pytest.approx(-sum(one for one, _ in right) / sum(count for _, count in right), rel=1e-5)
    assert (result.examples, result.chance) == (10, 0.25)


def test_a_long_answer_is_not_blamed_for_its_length_where_accuracy_is_normalised():
    """lm-eval's acc_norm: by characters (not bytes, not tokens) of the text without its space; of equals the first."""
    examples = [
        Example("Which?", choices, answer)
        for choices, answer in ((("a", "ab ab ab"), 1), (("é", "z"), 1), (("no", "yes", "perhaps not"), 2))
    ]
    model = tiny_lora(spread=0.3)
    result = score(model, examples)
    by_hand = [[naive_score(model, one.prompt, choice)[0] / len(choice) for choice in one.choices] for one in examples]
    chosen = [max(range(len(of)), key=lambda index, of=of: of[index]) for of in by_hand]
    assert result.correct_norm == tuple(index == one.answer for index, one in zip(chosen, examples, strict=True))
    assert result.accuracy_norm == sum(result.correct_norm) / 3
    assert result.correct_norm[0] > result.correct[0]


@pytest.mark.parametrize("family", ["gpt2", "opt", *FAMILIES])
@pytest.mark.parametrize("trees", [True, False])
def test_what_choices_have_in_common_goes_through_the_model_once(
    *, family: str, trees: bool, monkeypatch: pytest.MonkeyPatch
):
    """Their prompt, and first tokens of some; in families that are not known to take a tree, each choice is alone."""
    if not trees:
        monkeypatch.setattr(likelihood, "_TREES", frozenset())
    model = tiny_lora(family, spread=0.3)
    examples = [Example("Q", ("a", "b a", "b c"), 1), Example("Qx", ("a", "no"), 0)]
    assert [len(TOKENIZER(f"Q {choice}")["input_ids"]) for choice in examples[0].choices] == [3, 4, 4]
    passed = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: passed.append(inputs[0].tolist()))
    result = score(model, examples)
    hook.remove()
    rows = [ids for one_pass in passed for ids in one_pass]
    assert (len(passed), len(rows)) == (1, 2 if trees else 5)
    decoded = sorted(TOKENIZER.decode([token for token in ids if token]) for ids in rows)
    assert decoded == (["Q  b ", "Qx n"] if trees else ["Q ", "Q b ", "Q b ", "Qx ", "Qx n"])
    for example, found in zip(examples, result.log_likelihoods, strict=True):
        by_hand = [naive_score(model, example.prompt, choice)[0] for choice in example.choices]
        assert found == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gemma3", "gemma3_text"])
def test_texts_beyond_a_sliding_window_are_scored_alike_in_any_company(family: str):
    """Beside a tree, whose mask is the whole pass's, a longer text still forgets what its window has passed."""
    model = tiny_lora(family, spread=0.3)
    short, long = Example("Q" * 3, ("aa", "bb", "cc"), 0), Example("R" * 16, ("abab", "cdcd"), 0)  # a window is 8
    together = score(model, [short, long]).log_likelihoods
    for found, one in zip(together, (short, long), strict=True):
        assert found == pytest.approx(score(model, [one]).log_likelihoods[0], rel=1e-5)
        by_hand = [naive_score(model, one.prompt, choice)[0] for choice in one.choices]
        assert found == pytest.approx(by_hand, rel=1e-4)


def test_the_batch_size_does_not_matter(examples: list[Example]):
    """Padding and company change speed alone."""
    model = tiny_lora(spread=0.3)
    results = [score(model, examples, batch_size=size) for size in (1, 3, 64)]
    assert results[0].correct == results[1].correct == results[2].correct
    assert results[0].loss == pytest.approx(results[1].loss, rel=1e-5) == pytest.approx(results[2].loss, rel=1e-5)


def test_the_order_of_choices_is_the_files(examples: list[Example]):
    """Sequences are sorted by length inside; the results come back to their examples."""
    model = tiny_lora(spread=0.3)
    whole = score(model, examples)
    assert whole.correct == tuple(score(model, [example]).correct[0] for example in examples)
    turned = [
        dataclasses.replace(one, choices=one.choices[::-1], answer=len(one.choices) - 1 - one.answer)
        for one in examples
    ]
    assert score(model, turned).correct == whole.correct


def test_choices_may_share_little_with_each_other():
    """A tokenizer may merge the prompt's end with one choice and not with another; a prompt may be a single token."""
    entries = {letter: index for index, letter in enumerate(["Q", ":", " ", "x", "y", ": ", ": x"])}
    tokenizer = wrapped(models.BPE(vocab=entries, merges=[(":", " "), (": ", "x")]), by_bytes=False)
    examples = [Example("Q:", ("x", "y"), 0), Example("Q", ("x", "y", "yy"), 1), Example("QQQ:", ("y", "x"), 1)]
    model = tiny_lora(spread=0.3)
    encoded = encode_choices(tokenizer, examples, max_tokens=8)
    result = evaluate(model, encoded, batch_size=8, vocab_size=7, on_batch=lambda: None)
    logs = []
    for example in examples:
        ids = tokenizer(f"{example.prompt} {example.choices[example.answer]}")["input_ids"]
        start = len(example.prompt) - example.prompt.count(":")
        log_p = model(input_ids=torch.tensor([ids])).logits[0, :, :7].log_softmax(-1)
        logs += [log_p[i - 1, ids[i]].item() for i in range(start, len(ids))]
    assert result.loss == pytest.approx(-sum(logs) / len(logs), rel=1e-5)


def test_chance_is_what_guessing_scores(examples: list[Example]):
    """With two and four choices it is the mean of 1/2 and 1/4."""
    mixed = [examples[0], Example("Which?", ("yes", "no"), 0)]
    assert score(tiny_lora(), mixed).chance == pytest.approx(0.375)


def test_a_base_model_without_lora_is_evaluated_too(examples: list[Example]):
    """Zero-shot: the same as with LoRA that was never trained."""
    assert score(tiny_base(), examples) == score(tiny_lora(), examples)


def test_training_is_seen_in_the_accuracy(examples: list[Example]):
    """A model that learnt the answers by heart scores 1, with dropout off; it is left in eval mode."""
    model = tiny_lora(dropout=0.05, hidden=64)
    train_local(
        model,
        encode_examples(TOKENIZER, examples[:4], max_tokens=64),
        epochs=30,
        batch_size=4,
        optimiser=OptimiserTerms(learning_rate=0.03),
        seed=0,
        vocab_size=VOCAB,
        on_step=lambda *_: None,
    )
    model.train()
    result = score(model, examples[:4])
    assert result.accuracy == 1.0
    assert result == score(model, examples[:4])
    assert not model.training


def test_nothing_to_evaluate_and_too_long_a_choice_are_errors(examples: list[Example]):
    """Neither is passed over silently, for the accuracy would be of something else."""
    with pytest.raises(DataEmpty):
        score(tiny_lora(), [])
    with pytest.raises(ExampleTooLong):
        score(tiny_lora(), examples, max_tokens=8)


def test_examples_of_which_a_choice_is_too_long_are_left_out_where_the_run_says_so(examples: list[Example]):
    """The score is of the others, and says how many they are."""
    model = tiny_lora(spread=0.3)
    long = dataclasses.replace(examples[0], choices=("red", "tan" * 30), answer=0)
    assert score(model, [long, *examples], too_long="leave_out") == score(model, examples)


@pytest.fixture
def completions() -> list[Example]:
    """Prompts and answers of different lengths, one answer each."""
    return [Example("p" * (1 + i * 5 % 7), ("so " * (1 + i * 3 % 5),), 0) for i in range(9)]


@pytest.fixture(scope="module")
def half_trained() -> PeftModel:
    """A model that knows some of the tokens of such answers."""
    model = tiny_lora(dropout=0.0, hidden=64)
    train_local(
        model,
        encode_examples(TOKENIZER, [Example("p", ("so ",), 0)], max_tokens=64),
        epochs=4,
        batch_size=1,
        optimiser=OptimiserTerms(learning_rate=0.03),
        seed=0,
        vocab_size=VOCAB,
        on_step=lambda *_: None,
    )
    return model


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_completions_are_scored_token_by_token(half_trained: PeftModel, completions: list[Example], batch_size: int):
    """Against scores by hand: how many answer tokens are the most likely ones, and their loss."""
    result = score(half_trained, completions, batch_size=batch_size)
    logs, predicted = [], []
    for example in completions:
        start = len(TOKENIZER(example.prompt)["input_ids"])
        ids = torch.tensor(TOKENIZER(f"{example.prompt} {example.choices[0]}")["input_ids"])
        with torch.no_grad():
            log_p = half_trained(input_ids=ids[None]).logits[0, start - 1 : -1, :VOCAB].log_softmax(-1)
        logs.append(log_p.gather(1, ids[start:, None]).flatten())
        predicted.append(log_p.argmax(-1) == ids[start:])
    assert 0 < result.accuracy < 1
    assert result.accuracy == pytest.approx(torch.cat(predicted).float().mean().item())
    assert result.loss == pytest.approx(-torch.cat(logs).mean().item(), rel=1e-5)
    assert result.correct == tuple(bool(of.all()) for of in predicted)
    assert result.predicted == tuple(int(of.sum()) for of in predicted)
    assert (result.examples, result.chance) == (9, 0.0)
    assert (result.accuracy_norm, result.correct_norm) == (result.accuracy, result.correct)


def test_long_answers_go_through_the_model_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, half_trained: PeftModel, completions: list[Example]
):
    """Each answer token costs as many floats as the tokenizer has entries; the scores stay the same."""
    whole = score(half_trained, completions, batch_size=64)
    monkeypatch.setattr(likelihood, "MOST_ANSWER_TOKENS", 20)
    batches = 0

    def count() -> None:
        nonlocal batches
        batches += 1

    encoded = encode_choices(TOKENIZER, completions, max_tokens=64)
    result = evaluate(half_trained, encoded, batch_size=64, vocab_size=VOCAB, on_batch=count)
    assert batches > 3
    assert (result.accuracy, result.correct) == (whole.accuracy, whole.correct)


def test_damaged_weights_are_told_and_not_scored(examples: list[Example]):
    """NaN compares false with everything: the first choice would win, and look like an answer."""
    model = tiny_lora()
    with torch.no_grad():
        next(weight for weight in model.parameters() if weight.requires_grad)[0, 0] = math.nan
    with pytest.raises(LossNotFinite, match="log-likelihood of an answer is nan"):
        score(model, examples)
