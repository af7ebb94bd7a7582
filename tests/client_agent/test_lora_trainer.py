import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from services.client_agent import lora_trainer
from services.client_agent.trainer import LocalEvaluation, Progress
from shared.data.examples import read_examples
from shared.data.source import DataSource
from shared.errors import (
    BaseModelMismatch,
    ContextTooShort,
    DataUnreadable,
    ExampleTooLong,
    LoraMismatch,
    MemoryTooSmall,
    TokenizerMismatch,
    TooFewExamples,
)
from shared.ml import memory
from shared.ml.encoding import EncodedChoices, encode_choices
from shared.ml.evaluate import Evaluation, evaluate
from shared.ml.free_memory import free_bytes
from shared.ml.models import add_lora, load_with_lora
from shared.protocol.digests import digest_of
from shared.protocol.terms import TaskTerms
from tests.support.tiny_models import tiny_base, tiny_tokenizer
from tests.support.training_sites import LORA, Site, site_in, trainer_of

OTHER = digest_of(b"another model")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A machine on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield site_in(tmp_path)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_training_takes_the_manifests_epochs(site: Site, epochs: int) -> None:
    """Ten examples in fours are three steps an epoch, each of them told; the update is another adapter."""
    seen: list[Progress] = []
    trained = site.train(seen.append, training=site.manifest.training.model_copy(update={"epochs": epochs}))
    assert [(progress.step, progress.steps) for progress in seen] == [
        (step, 3 * epochs) for step in range(1, 3 * epochs + 1)
    ]
    assert (trained.steps, trained.examples) == (3 * epochs, 10)
    update = (site.folder / "update").read_bytes()
    assert digest_of(update) == trained.digest != digest_of((site.folder / "theta").read_bytes())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tokenizer_digest": OTHER}, TokenizerMismatch, f"the tokenizer of .* and the run's is {OTHER}"),
        ({"slm_digest": OTHER}, BaseModelMismatch, f"the base model .* and the run's is {OTHER}"),
        ({"slm_lora": LORA.model_copy(update={"rank": 4})}, LoraMismatch, "does not give the manifest's 16 tensors"),
        ({"slm_lora": LORA.model_copy(update={"targets": ("q_proj",)})}, LoraMismatch, "the manifest's 16 tensors"),
    ],
)
def test_nothing_is_trained_on_a_machine_that_is_not_the_runs(
    site: Site, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    """What differs is named, and there is no update; the same machine trains for a manifest that fits."""
    with pytest.raises(error, match=message):
        site.train(**changes)
    assert not (site.folder / "update").exists()
    site.train()
    assert (site.folder / "update").exists()


def test_nothing_is_trained_beyond_the_models_context(site: Site) -> None:
    """A run whose texts may be longer than what the SLM takes in is refused before the first step."""
    with pytest.raises(ContextTooShort, match=r"may have 129 tokens, and the base model .*slm takes 128"):
        site.train(training=site.manifest.training.model_copy(update={"max_tokens": 129}))


def test_activations_that_are_computed_again_change_no_byte(site: Site) -> None:
    """The setting is this machine's own: nobody can tell from its update, dropout included."""
    kept = site.train().digest
    saving = trainer_of(site.folder, gradient_checkpointing=True)
    assert Site(site.folder, saving, site.manifest).train().digest == kept


def test_the_model_is_held_and_estimated_as_the_agents_settings_say(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number format, and whether activations are computed again; it learns the tokenizer's entries alone."""
    asked: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def recorded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
            asked[name] = args, kwargs
            return real(*args, **kwargs)

        return call

    for name in ("estimate", "train_local"):
        monkeypatch.setattr(lora_trainer, name, recorded(name, getattr(lora_trainer, name)))
    saving = trainer_of(site.folder, dtype="bfloat16", gradient_checkpointing=True)
    Site(site.folder, saving, site.manifest).train()
    _, estimated = asked["estimate"]
    assert (estimated["dtype"], estimated["gradient_checkpointing"]) == ("bfloat16", True)
    (model, _), training = asked["train_local"]
    assert training["vocab_size"] == len(tiny_tokenizer()) == 260
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_loaded(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run's own batch and the texts that are here; no weight was read."""
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1_000_000)
    monkeypatch.setattr(lora_trainer, "load_with_lora", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(MemoryTooSmall, match=r"and 0\.00 GB are free \(.* GB base weights, .* GB activations"):
        site.train()


def test_another_runs_model_is_let_go_before_the_next_is_loaded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models at once may be more than the machine has memory for; rounds of one run load nothing.

    Memory is asked for when the old model is gone: else a machine that is large enough would refuse the second run.
    """
    loaded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def measure(device: torch.device) -> int:
        free = free_bytes(device)
        alive.append(sum(model() is not None for model in loaded))
        return free

    def load(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        tuned = load_with_lora(*args, **kwargs)
        loaded.append(weakref.ref(tuned.get_base_model()))
        return tuned

    monkeypatch.setattr(memory, "free_bytes", measure)
    monkeypatch.setattr(lora_trainer, "load_with_lora", load)
    for run in ("one", "one", "other"):
        site.train(run_id=run)
    assert (alive, len(loaded)) == ([0, 0], 2)


def test_a_run_says_what_becomes_of_completions_that_are_too_long(site: Site) -> None:
    """They are left out, and the weight that an agent may have is of those that it trained on; or it stops."""
    rows = ({"prompt": f"{number} is", "answer": "red" * (40 if number < 3 else 1)} for number in range(10))
    (site.folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskTerms(kind="completion", template="{question}")
    with pytest.raises(ExampleTooLong, match=r"data\.jsonl, line 1: "):
        site.train(task=task)
    trained = site.train(task=task.model_copy(update={"too_long": "leave_out"}))
    assert (trained.examples, trained.steps) == (7, 2)


@pytest.fixture
def evaluating(site: Site) -> Site:
    """The same machine, with four examples that are not trained on."""
    return replace(site, trainer=trainer_of(site.folder, evaluation=DataSource(path=site.folder / "own.jsonl")))


def test_a_rounds_adapter_is_evaluated_before_it_is_trained(evaluating: Site) -> None:
    """As it came, on as many examples as the run asks for; the update is the same, to the byte, as without."""
    trained = evaluating.train(evaluation_examples=4)
    model = add_lora(tiny_base(), rank=2, alpha=4, dropout=0.1, targets=None, seed=0)
    examples = read_examples(DataSource(path=evaluating.folder / "own.jsonl"), TaskTerms())
    encoded = encode_choices(tiny_tokenizer(), examples, max_tokens=64)
    expected = evaluate(model, encoded, batch_size=32, vocab_size=260, on_batch=lambda: None)
    assert trained.evaluation is not None
    assert (trained.evaluation.correct, trained.evaluation.total) == (sum(expected.correct), 4)
    assert trained.evaluation.loss == pytest.approx(4 * expected.loss, rel=1e-6)
    assert (trained.examples, trained.digest) == (10, evaluating.train().digest)


def test_of_completions_it_is_the_share_of_tokens_that_counts(
    evaluating: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the coordinator's scores, where no completion must be right as a whole: 61 % of four are 2.44."""
    found = Evaluation(
        accuracy=0.61,
        accuracy_norm=0.61,
        loss=2.0,
        examples=4,
        chance=0.0,
        interval=None,
        correct=(False,) * 4,
        correct_norm=(False,) * 4,
        log_likelihoods=((-2.0,),) * 4,
        predicted=(1,) * 4,
    )
    monkeypatch.setattr(lora_trainer, "evaluate", lambda *_, **__: found)
    told = evaluating.train(evaluation_examples=4).evaluation
    assert told == LocalEvaluation(loss=8.0, correct=2, total=4)


def test_nothing_is_evaluated_where_the_run_does_not_ask_for_it(evaluating: Site) -> None:
    """Nor is the file read, so that what is wrong with it stops nobody."""
    (evaluating.folder / "own.jsonl").unlink()
    assert evaluating.train().evaluation is None
    with pytest.raises(DataUnreadable, match=r"own\.jsonl"):
        evaluating.train(evaluation_examples=4)


def test_as_many_examples_as_the_run_asks_for_are_drawn_anew_each_round(
    evaluating: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of those that are here, none twice, and whatever the seed of the round, which others know."""
    seen: list[frozenset[EncodedChoices]] = []

    def recorded(model: Any, examples: Sequence[EncodedChoices], **settings: Any) -> Any:  # noqa: ANN401 - passed on
        seen.append(frozenset(examples))
        return evaluate(model, examples, **settings)

    monkeypatch.setattr(lora_trainer, "evaluate", recorded)
    for _ in range(20):  # with six pairs to draw, all alike once in 6^19 times
        evaluating.train(evaluation_examples=2)
    assert {len(drawn) for drawn in seen} == {2}
    assert len(set(seen)) > 1


def test_an_agent_without_enough_examples_of_its_own_takes_no_part(site: Site, evaluating: Site) -> None:
    """Its part in the sum would be smaller than the others', who could be told apart the more easily."""
    with pytest.raises(TooFewExamples, match=r"evaluate on 4 examples .*: to take part, set evaluation\.path"):
        site.train(evaluation_examples=4)
    with pytest.raises(TooFewExamples, match=r"evaluate on 5 examples .*own\.jsonl has 4 that fit: .* add examples"):
        evaluating.train(evaluation_examples=5)
    (site.folder / "own.jsonl").write_text(
        "".join(json.dumps({"prompt": "x" * (100 * (number < 1)) + "y", "answer": "z"}) + "\n" for number in range(4))
    )
    task = TaskTerms(kind="completion", template="{question}", too_long="leave_out")
    (site.folder / "data.jsonl").write_text(json.dumps({"prompt": "x", "answer": "y"}))
    with pytest.raises(TooFewExamples, match=r"has 3 that fit"):
        evaluating.train(evaluation_examples=4, task=task)


def test_what_evaluation_takes_is_estimated_before_a_model_is_loaded(
    evaluating: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is more than a step of the training."""
    rows = [{"question": "why " * 5, "choices": [f"{word} red" for word in "abcdefgh"], "answer": "a red"}] * 4
    (evaluating.folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1_000_000)
    with pytest.raises(MemoryTooSmall, match=r"GB activations of evaluation, .* GB logits of evaluation"):
        evaluating.train(evaluation_examples=4)
