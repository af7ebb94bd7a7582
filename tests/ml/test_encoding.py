import pytest
import torch
from structlog.testing import capture_logs
from tokenizers import models
from tokenizers.processors import TemplateProcessing

from shared.data.examples import Example
from shared.errors import DataUnreadable, ExampleTooLong
from shared.ml.encoding import Encoded, batches, collate, encode, encode_examples
from tests.support.tiny_models import tiny_tokenizer, wrapped

CPU = torch.device("cpu")


def test_prompt_and_answer_are_tokenised_together_with_a_space_between():
    """The tokens are those of the whole text, and the answer's begin with its leading space."""
    tokenizer = tiny_tokenizer()
    one = encode(tokenizer, "The colour is", "red", max_tokens=64)
    assert list(one.token_ids) == tokenizer("The colour is red")["input_ids"]
    assert tokenizer.decode(one.token_ids[one.answer_start :]) == " red"


def test_a_token_across_the_seam_belongs_to_the_answer():
    """Where the tokenizer merges the prompt's end with the answer's start, that token is to be predicted."""
    entries = {"Q": 0, ":": 1, " ": 2, "x": 3, ": ": 4}
    tokenizer = wrapped(models.BPE(vocab=entries, merges=[(":", " ")]), by_bytes=False)
    assert encode(tokenizer, "Q:", "x", max_tokens=64) == Encoded(token_ids=(0, 4, 3), answer_start=1)
    assert tokenizer("Q:")["input_ids"] + tokenizer(" x")["input_ids"] == [0, 1, 2, 3]


def test_the_bytes_of_the_prompts_last_letter_are_not_the_answers():
    """A letter of several byte tokens ends where the prompt ends, with each of them."""
    tokenizer = tiny_tokenizer()
    one = encode(tokenizer, "coffee ☕", "no", max_tokens=64)
    assert tokenizer.decode(one.token_ids[one.answer_start :]) == " no"


def test_begin_of_text_stays_and_end_of_text_is_cut():
    """What the tokenizer adds in front is what models expect; the answer ends with its own text."""
    tokenizer = wrapped(models.BPE(vocab={"<s>": 0, "</s>": 1, "a": 2, " ": 3, "b": 4}, merges=[]), by_bytes=False)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert tokenizer("a b")["input_ids"] == [0, 2, 3, 4, 1]
    assert encode(tokenizer, "a", "b", max_tokens=4) == Encoded(token_ids=(0, 2, 3, 4), answer_start=2)


def test_too_long_an_example_is_refused_and_never_cut():
    """The message has the length, the limit and what to do; the longest allowed passes."""
    tokenizer = tiny_tokenizer()
    length = len(tokenizer("prompt answer")["input_ids"])
    assert len(encode(tokenizer, "prompt", "answer", max_tokens=length).token_ids) == length
    with pytest.raises(ExampleTooLong, match=rf"are {length} tokens long and at most {length - 1} .*max_tokens"):
        encode(tokenizer, "prompt", "answer", max_tokens=length - 1)


FITS = Example("p", ("a", "b" * 99), 0, where="line 1")
TOO_LONG = Example("p" * 99, ("a", "b"), 0, where="line 2")


def test_an_example_that_is_too_long_is_named_with_what_to_do():
    """Among many examples the message says which; choices that are not the answer are not trained on."""
    with pytest.raises(ExampleTooLong, match=r'line 2: .*max_tokens.*too_long = "leave_out"'):
        encode_examples(tiny_tokenizer(), [FITS, TOO_LONG], max_tokens=32)


def test_examples_that_are_too_long_are_left_out_where_the_run_says_so():
    """How many is told in the log; the others are encoded as ever."""
    with capture_logs() as logs:
        encoded = encode_examples(tiny_tokenizer(), [TOO_LONG, FITS, TOO_LONG], max_tokens=32, too_long="leave_out")
    assert encoded == encode_examples(tiny_tokenizer(), [FITS], max_tokens=32)
    assert [(entry["event"], entry["too_long"], entry["of"]) for entry in logs] == [("examples.left_out", 2, 3)]


def test_where_all_examples_are_too_long_nothing_goes_on():
    """Else a run would train on nothing."""
    with pytest.raises(ExampleTooLong, match="each of the 2 examples has more than 32 tokens"):
        encode_examples(tiny_tokenizer(), [TOO_LONG, TOO_LONG], max_tokens=32, too_long="leave_out")


def test_text_that_leaves_no_token_for_prompt_or_answer_is_refused():
    """Without a token before the answer, or in it, there would be no loss and no score."""
    tokenizer = wrapped(models.BPE(vocab={":": 0, " ": 1, "a": 2, ": ": 3}, merges=[(":", " ")]), by_bytes=False)
    with pytest.raises(DataUnreadable, match="no token for the prompt"):
        encode(tokenizer, ":", "a", max_tokens=8)
    tokenizer = wrapped(models.BPE(vocab={"a": 0}, merges=[]), by_bytes=False)
    with pytest.raises(DataUnreadable, match="no token for the answer"):
        encode(tokenizer, "a", "é", max_tokens=8)


def test_padding_is_known_by_position_and_needs_no_pad_token():
    """Id 0 may be a real token: the mask tells it from padding in the answer."""
    assert tiny_tokenizer().pad_token is None
    batch = collate([Encoded((0, 5, 0), 2), Encoded((7, 0), 1)], CPU)
    assert batch.token_ids_BT.tolist() == [[0, 5, 0], [7, 0, 0]]
    assert batch.answer_mask_BT.tolist() == [[False, False, True], [False, True, False]]


def test_an_epoch_has_every_example_once_in_an_order_of_its_seed():
    """Nothing is dropped, one batch may be short, and only the seed decides the order."""
    many = [Encoded((i, i), 1) for i in range(10)]
    first = list(batches(many, batch_size=4, seed=5))
    assert sorted(len(batch) for batch in first) == [2, 4, 4]
    assert sorted(one.token_ids[0] for batch in first for one in batch) == list(range(10))
    torch.rand(1)
    assert list(batches(many, batch_size=4, seed=5)) == first
    assert list(batches(many, batch_size=4, seed=6)) != first


def test_any_example_may_be_in_the_short_batch():
    """An example of it weighs more than one of a whole batch, and those are not always the longest."""
    many = [Encoded((i,) * (i + 2), 1) for i in range(10)]
    short = [batch for seed in range(100) for batch in batches(many, batch_size=4, seed=seed) if len(batch) == 2]
    assert len(short) == 100
    assert {one.token_ids[0] for batch in short for one in batch} == set(range(10))


def test_examples_of_a_batch_are_of_like_length():
    """Little is padding, and yet who is with whom, and which batch comes when, depend on the seed."""
    lengths = [2 + i * i % 97 for i in range(1000)]
    many = [Encoded((i,) * length, 1) for i, length in enumerate(lengths)]

    def company(seed: int) -> list[frozenset[int]]:
        return [frozenset(one.token_ids[0] for one in batch) for batch in batches(many, batch_size=8, seed=seed)]

    first, second = company(0), company(1)
    for epoch in (first, second):
        padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in epoch)
        assert padded < 1.2 * sum(lengths)
        widths = [max(lengths[i] for i in batch) for batch in epoch]
        assert widths[:32] != sorted(widths[:32])
    assert len(set(first) & set(second)) < 0.1 * len(first)
