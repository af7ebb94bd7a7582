from collections.abc import Callable

import pytest
import torch
from peft import PeftModel
from structlog.testing import capture_logs

from shared.data.examples import Example
from shared.errors import MemoryTooSmall
from shared.ml.adapters import adapter_tensors
from shared.ml.cotune import CotuneReport, cotune
from shared.ml.encoding import Encoded, EncodedChoices, encode_choices
from shared.ml.evaluate import Evaluation, evaluate
from shared.ml.out_of_memory import is_out_of_memory, memory_suffices
from shared.ml.train import TrainReport, train_local
from shared.protocol.terms import CotuningTerms, OptimiserTerms
from tests.support.small_memory import SAID, with_room_for
from tests.support.tiny_models import tiny_lora, tiny_tokenizer

VOCAB = len(tiny_tokenizer())
TERMS = CotuningTerms(
    passes=2,
    batch_size=4,
    distillation_weight=1.0,
    llm_optimiser=OptimiserTerms(learning_rate=0.01),
    slm_optimiser=OptimiserTerms(learning_rate=0.02),
)
SCHEDULES = pytest.mark.parametrize("schedule", ["simultaneous", "sequential"])


def pair(dropout: float = 0.0) -> tuple[PeftModel, PeftModel]:
    """An LLM and an SLM."""
    llm = tiny_lora("qwen2", seed=1, hidden=48, vocab_size=304, dropout=dropout, spread=0.3)
    return llm, tiny_lora("qwen2", seed=2, dropout=dropout, spread=0.3)


def tuned(llm: PeftModel, slm: PeftModel, examples: list[Encoded], schedule: str) -> CotuneReport:
    """Co-tune by a schedule."""
    terms = TERMS.model_copy(update={"schedule": schedule})
    return cotune(llm, slm, examples, terms=terms, seed=5, vocab_size=VOCAB, on_step=lambda *_: None)


def trained(model: PeftModel, examples: list[Encoded]) -> TrainReport:
    """Train locally."""
    return train_local(
        model,
        examples,
        epochs=2,
        batch_size=4,
        optimiser=OptimiserTerms(learning_rate=0.01),
        seed=5,
        vocab_size=VOCAB,
        on_step=lambda *_: None,
    )


def evaluated(model: PeftModel, examples: list[EncodedChoices]) -> Evaluation:
    """Evaluate with up to eight sequences at once."""
    return evaluate(model, examples, batch_size=8, vocab_size=VOCAB, on_batch=lambda: None)


def assert_close(model: PeftModel, other: PeftModel) -> None:
    """AdamW divides by the gradient's size, so that rounding shows where it is nearly zero."""
    for weight, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, atol=2e-4, rtol=0)


def lora_bytes(model: PeftModel) -> bytes:
    return b"".join(tensor.tobytes() for tensor in adapter_tensors(model).values())


@SCHEDULES
@pytest.mark.parametrize("room", [1, 2, 3])
def test_co_tuning_in_pieces_is_co_tuning_at_once(schedule: str, room: int, encoded: list[Encoded]) -> None:
    """Batches of four on a machine with room for fewer: the same gradients, weighted by tokens, and the same losses."""
    small, large = pair(), pair()
    passed: list[int] = []
    with_room_for(room, small[0], when=lambda: True, passed=passed)
    report, expected = tuned(*small, encoded, schedule), tuned(*large, encoded, schedule)
    for model, other in zip(small, large, strict=True):
        assert_close(model, other)
    assert report.slm_loss == pytest.approx(expected.slm_loss, rel=1e-4)
    assert report.llm_distillation == pytest.approx(expected.llm_distillation, rel=1e-3)
    assert (report.micro_batch, expected.micro_batch) == (min(room, 2), None)
    assert max(passed) <= room


@SCHEDULES
def test_what_went_before_memory_ran_out_has_not_been(schedule: str, encoded: list[Encoded]) -> None:
    """With dropout: a step that failed half-way leaves the bytes of one that began in small pieces at once."""
    failed, small = pair(dropout=0.3), pair(dropout=0.3)
    with_room_for(2, failed[1])  # the LLM has drawn its dropout by then
    with_room_for(2, small[0])  # nothing but the LLM's has been drawn
    for models in (failed, small):
        assert tuned(*models, encoded, schedule).micro_batch == 2
    assert [lora_bytes(model) for model in failed] == [lora_bytes(model) for model in small]


def test_the_first_half_of_a_step_is_not_made_again(encoded: list[Encoded]) -> None:
    """Memory runs out where the updated SLM teaches: its update, with the dropout that it had, stays as it was made."""
    one_step = encoded[:4]
    failed, whole = pair(dropout=0.3), pair(dropout=0.3)
    with_room_for(2, failed[1], when=lambda: not torch.is_grad_enabled())
    terms = TERMS.model_copy(update={"schedule": "sequential", "passes": 1})
    for models in (failed, whole):
        cotune(*models, one_step, terms=terms, seed=5, vocab_size=VOCAB, on_step=lambda *_: None)
    assert lora_bytes(failed[1]) == lora_bytes(whole[1])
    assert lora_bytes(failed[0]) != lora_bytes(whole[0])


def test_local_training_goes_on_in_pieces(encoded: list[Encoded]) -> None:
    """An agent's as a worker's, and the log says so once."""
    small, large = tiny_lora(spread=0.3), tiny_lora(spread=0.3)
    with_room_for(2, small)
    with capture_logs() as logged:
        report = trained(small, encoded)
    assert report.mean_loss == pytest.approx(trained(large, encoded).mean_loss, rel=1e-4)
    assert_close(small, large)
    assert logged == [{"event": "memory.ran_out", "log_level": "warning", "examples": 4, "retried_with": 2}]


def test_a_half_made_gradient_is_not_added_to(encoded: list[Encoded]) -> None:
    """Memory runs out at once, and again after the first of two pieces: the step is that of a machine with room."""
    small, large = tiny_lora(spread=0.3), tiny_lora(spread=0.3)
    runs_out = iter([True, False, True])
    with_room_for(0, small, when=lambda: next(runs_out, False))
    for model in (small, large):
        trained(model, encoded[:4])
    assert_close(small, large)


def test_evaluation_goes_on_in_pieces(examples: list[Example]) -> None:
    """With the same scores; what was too many once is not tried again."""
    choices = encode_choices(tiny_tokenizer(), examples, max_tokens=64)
    model = tiny_lora(spread=0.3)
    expected = evaluated(model, choices)
    passed: list[int] = []
    with_room_for(2, model, when=lambda: True, passed=passed)
    with capture_logs() as logged:
        found = evaluated(model, choices)
    for likelihoods, others in zip(found.log_likelihoods, expected.log_likelihoods, strict=True):
        assert likelihoods == pytest.approx(others)
    assert found.correct == expected.correct
    assert max(passed) == 2
    assert [line["retried_with"] for line in logged] == [4, 2]


@pytest.mark.parametrize("work", [trained, evaluated])
def test_a_machine_without_room_for_one_example_says_so(
    work: Callable[..., object], encoded: list[Encoded], examples: list[Example]
) -> None:
    """It ends, and is told as what it is; another machine may do better."""
    model = tiny_lora()
    with_room_for(0, model, when=lambda: True)
    data = encoded if work is trained else encode_choices(tiny_tokenizer(), examples, max_tokens=64)
    with pytest.raises(MemoryTooSmall, match="memory ran out with one example at once"):
        work(model, data)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (RuntimeError(f"{SAID} 4503599627370496 bytes. Error code 12 (Cannot allocate memory)"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError("can't allocate memory"), False),
    ],
)
def test_memory_is_what_ran_out_or_the_error_goes_through(error: Exception, *, memory: bool) -> None:
    """Another error is nobody's reason to try again."""

    def fail() -> None:
        raise error

    if memory:
        assert not memory_suffices(fail)
    else:
        with pytest.raises(type(error)):
            memory_suffices(fail)


def test_pytorch_still_says_it_so() -> None:
    """The words of a CPU's allocator, asked for more than there can be."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
