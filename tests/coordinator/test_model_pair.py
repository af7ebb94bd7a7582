import json
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from services.coordinator.worker import model_pair
from services.coordinator.worker.model_pair import ModelPair
from shared.data.examples import read_examples
from shared.data.source import DataSource
from shared.devices import DtypeName
from shared.errors import (
    BaseModelMismatch,
    ContextTooShort,
    DataEmpty,
    ExampleTooLong,
    LeaseLost,
    MemoryTooSmall,
    TokenizerMismatch,
)
from shared.ml import memory
from shared.ml.adapters import adapter_layout, load_adapter
from shared.ml.cotune import cotune
from shared.ml.digests import base_model_digest, tokenizer_digest
from shared.ml.encoding import encode_choices
from shared.ml.evaluate import EVALUATION_BATCH, evaluate
from shared.ml.free_memory import free_bytes
from shared.ml.generate import go_on
from shared.ml.models import add_lora, load_base, load_with_lora
from shared.protocol.codec import decode, encode
from shared.protocol.digests import digest_of
from shared.protocol.messages import Score
from shared.protocol.questions import ModelName
from shared.protocol.terms import LoraTerms, RunTerms, TaskTerms
from shared.protocol.work import PreparedDigests
from tests.support.federations import terms_of
from tests.support.tiny_models import tiny_directory, tiny_tokenizer

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Machine:
    """A worker's disk: two base models, and the coordinator's data."""

    folder: Path

    def pair(self, *, dtype: DtypeName = "float32", gradient_checkpointing: bool = False) -> ModelPair:
        """Return a pair that has loaded nothing yet."""
        return ModelPair(
            auxiliary=DataSource(path=self.folder / "data.jsonl"),
            validation=DataSource(path=self.folder / "data.jsonl"),
            device="cpu",
            dtype=dtype,
            gradient_checkpointing=gradient_checkpointing,
            digest_cache=self.folder / "digests.json",
            checkpoint_seconds=0,
        )

    def terms(self, **changes: Any) -> RunTerms:  # noqa: ANN401 - fields differ in type
        """Return terms for the two models."""
        lora = {"slm_lora": LoraTerms(rank=2, alpha=4), "llm_lora": LoraTerms(rank=4, alpha=8)}
        return terms_of(llm=str(self.folder / "llm"), slm=str(self.folder / "slm"), **(lora | changes))

    def prepared(self, **changes: str) -> PreparedDigests:
        """Return the digests of the models that are here."""
        own = {
            "tokenizer": tokenizer_digest(tiny_tokenizer()),
            "slm": base_model_digest(self.folder / "slm"),
            "llm": base_model_digest(self.folder / "llm"),
        }
        return PreparedDigests(**(own | changes))

    def adapter(self, name: str, base: str, lora: LoraTerms, *, seed: int) -> Path:
        """Write an adapter that says something."""
        layout = adapter_layout(self.model(base, lora))
        random = np.random.default_rng(seed)
        file = self.folder / name
        file.write_bytes(
            encode({one: random.normal(0, 0.3, shape).astype(np.float32) for one, shape in layout.items()})
        )
        return file

    def model(self, base: str, lora: LoraTerms) -> Any:  # noqa: ANN401 - PEFT ships no types
        """Load a base model and give it LoRA, by hand."""
        loaded = load_base(self.folder / base, dtype="float32", device=CPU)
        return add_lora(loaded, rank=lora.rank, alpha=lora.alpha, dropout=0.0, targets=None, seed=0)

    def score(self, base: str, lora: LoraTerms, adapter: Path) -> Score:
        """Evaluate a model with an adapter, by hand."""
        model = self.model(base, lora)
        load_adapter(model, decode(adapter.read_bytes(), adapter_layout(model)))
        examples = read_examples(DataSource(path=self.folder / "data.jsonl"), TaskTerms())
        result = evaluate(
            model,
            encode_choices(tiny_tokenizer(), examples, max_tokens=64),
            batch_size=EVALUATION_BATCH,
            vocab_size=len(tiny_tokenizer()),
            on_batch=lambda: None,
        )
        return Score(
            accuracy=result.accuracy,
            loss=result.loss,
            examples=result.examples,
            chance=result.chance,
            interval=result.interval,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Two tiny models of one family and ten examples, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for seed, name in enumerate(("llm", "slm")):
        tiny_directory(tmp_path / name, seed=seed)
    colours = ["red", "tan", "blue"]
    rows = ({"question": f"{number} is", "choices": colours, "answer": colours[number % 3]} for number in range(10))
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield Machine(tmp_path)
    torch.set_num_threads(threads)


def test_each_adapter_is_evaluated_on_its_own_model(machine: Machine) -> None:
    """Three adapters have three scores, each as by hand: the gate compares no other numbers than these."""
    terms = machine.terms()
    aggregated = machine.adapter("aggregated", "slm", terms.slm_lora, seed=1)
    slm = machine.adapter("theta", "slm", terms.slm_lora, seed=2)
    llm = machine.adapter("omega", "llm", terms.llm_lora, seed=3)
    scores = machine.pair().evaluate(
        terms, prepared=machine.prepared(), slm_aggregated=aggregated, slm=slm, llm=llm, require_lease=lambda: None
    )
    assert scores.slm_aggregated == machine.score("slm", terms.slm_lora, aggregated)
    assert scores.slm == machine.score("slm", terms.slm_lora, slm)
    assert scores.llm == machine.score("llm", terms.llm_lora, llm)
    assert len({scores.slm_aggregated.loss, scores.slm.loss, scores.llm.loss}) == 3


def test_an_adapter_is_evaluated_once(machine: Machine) -> None:
    """Without passes the aggregate is the SLM's adapter, and round for round the LLM's is the same."""
    terms, pair = machine.terms(), machine.pair()
    first, second = (machine.adapter(name, "slm", terms.slm_lora, seed=seed) for name, seed in (("a", 1), ("b", 2)))
    files = {"prepared": machine.prepared(), "llm": machine.adapter("omega", "llm", terms.llm_lora, seed=3)}
    batches = []
    for theta in (first, second, first):
        evaluated: list[None] = []
        scores = pair.evaluate(
            terms, slm_aggregated=theta, slm=theta, **files, require_lease=lambda seen=evaluated: seen.append(None)
        )
        assert scores.slm == scores.slm_aggregated == machine.score("slm", terms.slm_lora, theta)
        batches.append(len(evaluated))
    assert batches == [2 * batches[1], batches[1], 0]


def test_completions_that_are_too_long_are_left_out_of_the_score(machine: Machine) -> None:
    """And of the auxiliary set; the score says how many examples it is of, and the log once for each set."""
    rows = ({"prompt": f"{number} is", "answer": "red" * (40 if number < 3 else 1)} for number in range(10))
    (machine.folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {name: machine.folder / name for name in ("slm_into", "llm_into")}
    task = TaskTerms(kind="completion", too_long="leave_out")
    with capture_logs() as logged:
        prepared = machine.pair().prepare(machine.terms(task=task), **files, require_lease=lambda: None)
    assert [entry["event"] for entry in logged] == ["examples.left_out"] * 2
    assert (prepared.scores.slm.examples, prepared.scores.slm.chance) == (7, 0.0)
    with pytest.raises(ExampleTooLong, match=r"data\.jsonl, line 1: "):
        machine.pair().prepare(machine.terms(task=TaskTerms(kind="completion")), **files, require_lease=lambda: None)


@pytest.mark.parametrize(
    ("what", "error", "told"),
    [
        ("tokenizer", TokenizerMismatch, "the tokenizer of .*slm is sha256:.* and was"),
        ("slm", BaseModelMismatch, "the base model .*slm is sha256:.* and was"),
        ("llm", BaseModelMismatch, "the base model .*llm is sha256:.* and was"),
    ],
)
def test_no_round_goes_on_with_other_models_than_the_run_was_prepared_with(
    machine: Machine, what: str, error: type[Exception], told: str
) -> None:
    """A worker whose folder holds other weights under the same name says which, and computes nothing."""
    other = digest_of(b"another machine's")
    terms = machine.terms()
    slm = machine.adapter("theta", "slm", terms.slm_lora, seed=2)
    llm = machine.adapter("omega", "llm", terms.llm_lora, seed=3)
    with pytest.raises(error, match=f"{told} {other} when the run was prepared"):
        machine.pair().evaluate(
            terms,
            prepared=machine.prepared(**{what: other}),
            slm_aggregated=slm,
            slm=slm,
            llm=llm,
            require_lease=lambda: None,
        )


def test_a_pair_that_does_not_fit_into_memory_is_refused_before_it_is_loaded(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what each model takes, evaluation included, and no weight was read."""
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1_000_000)
    monkeypatch.setattr(model_pair, "load_with_lora", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(
        MemoryTooSmall, match=r"0\.00 GB are free \(.* GB LLM base weights, .* GB LLM logits of evaluation"
    ):
        machine.pair().prepare(
            machine.terms(),
            slm_into=machine.folder / "theta",
            llm_into=machine.folder / "omega",
            require_lease=lambda: None,
        )


def test_both_models_are_held_and_estimated_as_the_workers_settings_say(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number format, and whether activations are computed again."""
    estimated: list[tuple[str, bool]] = []
    loaded: list[Any] = []

    def estimate(*args: Any, dtype: DtypeName, gradient_checkpointing: bool, **more: Any) -> Any:  # noqa: ANN401
        estimated.append((dtype, gradient_checkpointing))
        return memory.estimate_pair(*args, dtype=dtype, gradient_checkpointing=gradient_checkpointing, **more)

    def load(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        loaded.append(load_with_lora(*args, **kwargs))
        return loaded[-1]

    monkeypatch.setattr(model_pair, "estimate_pair", estimate)
    monkeypatch.setattr(model_pair, "load_with_lora", load)
    into = {"slm_into": machine.folder / "theta", "llm_into": machine.folder / "omega"}
    machine.pair(dtype="bfloat16", gradient_checkpointing=True).prepare(
        machine.terms(), **into, require_lease=lambda: None
    )
    assert estimated == [("bfloat16", True)]
    assert len(loaded) == 2
    for model in loaded:
        assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}
        assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_models_are_co_tuned_on_the_tokenizers_entries_alone(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their heads are wider, and may differ in that."""
    terms = machine.terms()
    slm = machine.adapter("theta", "slm", terms.slm_lora, seed=2)
    llm = machine.adapter("omega", "llm", terms.llm_lora, seed=3)
    cut: list[int] = []

    def tune(*args: Any, vocab_size: int, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        cut.append(vocab_size)
        return cotune(*args, vocab_size=vocab_size, **kwargs)

    monkeypatch.setattr(model_pair, "cotune", tune)
    machine.pair().cotune(
        terms,
        prepared=machine.prepared(),
        seed=1,
        slm=slm,
        llm=llm,
        slm_into=machine.folder / "slm.new",
        llm_into=machine.folder / "llm.new",
        checkpoint=machine.folder / "kept",
        require_lease=lambda: None,
    )
    assert cut == [len(tiny_tokenizer())] == [260]


@pytest.mark.parametrize("short", ["llm", "slm"])
def test_a_run_whose_texts_do_not_fit_into_a_model_is_not_prepared(machine: Machine, short: str) -> None:
    """The model with the shorter context is named, whichever it is."""
    config = machine.folder / short / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 32}))
    with pytest.raises(ContextTooShort, match=rf"may have 64 tokens, and the base model .*{short} takes 32"):
        machine.pair().prepare(
            machine.terms(),
            slm_into=machine.folder / "theta",
            llm_into=machine.folder / "omega",
            require_lease=lambda: None,
        )


def test_another_runs_models_are_let_go_before_new_ones_are_loaded(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pairs at once may be more than the machine has memory for; what is free is asked when the old one is gone."""
    terms, pair = machine.terms(), machine.pair()
    adapters = {
        "slm_aggregated": machine.adapter("aggregated", "slm", terms.slm_lora, seed=1),
        "slm": machine.adapter("theta", "slm", terms.slm_lora, seed=2),
        "llm": machine.adapter("omega", "llm", terms.llm_lora, seed=3),
    }
    loaded: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def count() -> None:
        alive.append(sum(model() is not None for model in loaded))

    def measure(device: torch.device) -> int:
        free = free_bytes(device)
        count()
        return free

    def load(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        count()
        tuned = load_with_lora(*args, **kwargs)
        loaded.append(weakref.ref(tuned.get_base_model()))
        return tuned

    monkeypatch.setattr(memory, "free_bytes", measure)
    monkeypatch.setattr(model_pair, "load_with_lora", load)
    pair.evaluate(terms, prepared=machine.prepared(), **adapters, require_lease=lambda: None)
    pair.evaluate(machine.terms(seed=2), prepared=machine.prepared(), **adapters, require_lease=lambda: None)
    assert alive == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize("other", ["nothing", "seed", "slm", "llm", "data", "dtype", "terms"])
def test_only_the_same_co_tuning_goes_on_from_a_checkpoint(machine: Machine, other: str) -> None:
    """A worker that was killed after its first step and starts anew, with something else or with nothing else."""
    terms = machine.terms()
    adapters = {
        "slm": machine.adapter("theta", "slm", terms.slm_lora, seed=2),
        "llm": machine.adapter("omega", "llm", terms.llm_lora, seed=3),
    }
    job = {"prepared": machine.prepared(), "seed": 1, **adapters, "checkpoint": machine.folder / "kept"}
    into = {"slm_into": machine.folder / "slm.new", "llm_into": machine.folder / "llm.new"}

    def die() -> None:
        raise LeaseLost("killed")

    with pytest.raises(LeaseLost):
        machine.pair().cotune(terms, **job, **into, require_lease=die)
    match other:
        case "seed":
            job["seed"] = 2
        case "slm" | "llm" as model:
            job[model] = machine.adapter("another", model, getattr(terms, f"{model}_lora"), seed=4)
        case "data":
            lines = (machine.folder / "data.jsonl").read_text().splitlines(keepends=True)
            (machine.folder / "data.jsonl").write_text("".join(reversed(lines)))
        case "terms":
            terms = machine.terms(cotuning=terms.cotuning.model_copy(update={"distillation_weight": 0.5}))
    pair = machine.pair(dtype="bfloat16" if other == "dtype" else "float32")
    steps: list[None] = []
    report = pair.cotune(terms, **job, **into, require_lease=lambda: steps.append(None))
    assert len(steps) == (report.steps - 1 if other == "nothing" else report.steps)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("task", ["prepare", "cotune", "evaluate"])
def test_every_task_stops_between_steps_when_its_lease_is_lost(machine: Machine, task: str, steps: int) -> None:
    """Whatever the models are at, nobody waits long for a machine whose work is not wanted; no candidate is written."""
    terms = machine.terms()
    slm = machine.adapter("theta", "slm", terms.slm_lora, seed=2)
    llm = machine.adapter("omega", "llm", terms.llm_lora, seed=3)
    into, kept = (
        {"slm_into": machine.folder / "slm.new", "llm_into": machine.folder / "llm.new"},
        machine.folder / "kept",
    )
    tasks: dict[str, dict[str, Any]] = {
        "prepare": into,
        "cotune": {"prepared": machine.prepared(), "seed": 1, "slm": slm, "llm": llm, "checkpoint": kept, **into},
        "evaluate": {"prepared": machine.prepared(), "slm_aggregated": slm, "slm": slm, "llm": llm},
    }
    asked = []

    def require_lease() -> None:
        asked.append(1)
        if len(asked) > steps:
            raise LeaseLost("lost")

    with pytest.raises(LeaseLost):
        getattr(machine.pair(), task)(terms, **tasks[task], require_lease=require_lease)
    assert len(asked) == steps + 1
    assert task == "prepare" or not into["slm_into"].exists()


def test_the_four_models_are_asked(machine: Machine) -> None:
    """Each with its adapter and without: base models say what they said before any tuning, and prompts stay out."""
    terms = machine.terms()
    slm = machine.adapter("theta", "slm", terms.slm_lora, seed=2)
    llm = machine.adapter("omega", "llm", terms.llm_lora, seed=3)
    question = {"prepared": machine.prepared(), "slm": slm, "llm": llm, "prompt": "3 is", "max_new_tokens": 8}
    pair = machine.pair()
    said = pair.ask(terms, **question)
    bases = {ModelName.LLM_BASE: "llm", ModelName.SLM_BASE: "slm"}
    for name, base in bases.items():
        untuned = machine.model(base, LoraTerms(rank=2))  # B is 0: this is the base model itself
        assert said[name] == go_on(untuned, tiny_tokenizer(), "3 is", max_new_tokens=8)
    assert len(set(said.values())) == 4
    assert not any(text.startswith("3 is") for text in said.values())
    assert pair.ask(terms, **question) == said


def test_a_prompt_that_is_too_long_is_refused_in_words(machine: Machine) -> None:
    """With how many tokens it has; and one without a token as well."""
    terms = machine.terms()
    adapters = {
        "slm": machine.adapter("theta", "slm", terms.slm_lora, seed=2),
        "llm": machine.adapter("omega", "llm", terms.llm_lora, seed=3),
    }
    pair = machine.pair()
    with pytest.raises(ContextTooShort, match="shorten one of them"):
        pair.ask(terms, prepared=machine.prepared(), **adapters, prompt="3 is " * 4000, max_new_tokens=8)
    with pytest.raises(DataEmpty, match="no token"):
        pair.ask(terms, prepared=machine.prepared(), **adapters, prompt="", max_new_tokens=8)
