"""Local training of the SLM's LoRA on the private data (Alg. 1, client loop; docs/protocol.md step 3)."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from services.client_agent.trainer import (
    LocalEvaluation,
    Measured,
    MeasureOrder,
    Progress,
    StandaloneOrder,
    Trained,
    TrainingOrder,
)
from shared.data.examples import Example, read_examples
from shared.data.source import DataSource
from shared.devices import DtypeName
from shared.errors import (
    BaseModelMismatch,
    DataEmpty,
    LoraMismatch,
    TokenizerMismatch,
    TooFewExamples,
)
from shared.ml.adapters import adapter_layout, adapter_tensors, load_adapter
from shared.ml.digests import SAME_FILES, base_model_digest, tokenizer_digest
from shared.ml.encoding import Encoded, EncodedChoices, encode_choices, encode_examples
from shared.ml.evaluate import EVALUATION_BATCH, evaluate
from shared.ml.memory import estimate, evaluation_batches, largest_batch, require_memory, shape_of
from shared.ml.models import load_tokenizer, load_with_lora, pick_device, require_dtype
from shared.ml.train import train_local
from shared.protocol.codec import encode, read_file
from shared.protocol.digests import digest_of
from shared.protocol.manifest import Manifest
from shared.protocol.tensors import Tensors

log = structlog.get_logger()


@dataclass(frozen=True)
class _HoldOut:
    """What a hold-out report is made on: out of the file, ``left_out`` examples that are trained on."""

    examples: Sequence[EncodedChoices]
    left_out: int
    digest: str


@dataclass(frozen=True)
class _Loaded:
    """What is kept between the rounds of a run; for a hold-out also theta^0, and what is trained on."""

    manifest: Manifest
    tokenizer: PreTrainedTokenizerBase
    model: PeftModel
    examples: Sequence[Encoded]
    own: Sequence[EncodedChoices]
    first: Tensors
    learnt: frozenset[tuple[str, str]]

    @property
    def vocab_size(self) -> int:
        """The tokenizer's length."""
        return len(self.tokenizer)


class LoraTrainer:
    """Keeps the base model and the encoded data between rounds."""

    def __init__(
        self,
        *,
        slm: str,
        data: DataSource,
        evaluation: DataSource | None = None,
        holdout: DataSource | None = None,
        device: str,
        dtype: DtypeName,
        digest_cache: Path,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Keep ``evaluation`` and ``holdout`` out of training: for runs that evaluate on such, and to measure on."""
        require_dtype(dtype)
        self._slm = slm
        self._data = data
        self._evaluation = evaluation
        self._holdout = holdout
        self._device = pick_device(device)
        self._dtype = dtype
        self._gradient_checkpointing = gradient_checkpointing
        self._digest_cache = digest_cache
        self._loaded: _Loaded | None = None
        self._held_out: _HoldOut | None = None
        log.info("trainer.ready", device=str(self._device), dtype=dtype)

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train one update and write it to the order's file, after an evaluation of the adapter if the run asks for it.

        Raises:
            BaseModelMismatch, TokenizerMismatch, LoraMismatch, ContextTooShort: this machine's model is not the run's.
            MemoryTooSmall: this machine has no room for it.
            DataError, LossNotFinite: what is wrong with the data, the evaluation or the training.
        """
        loaded = self._load(order.manifest)
        _load_file(loaded, order.adapter)
        evaluation = _evaluated(loaded)
        trained = _train(loaded, order.into, order.seed, on_progress)
        return trained.model_copy(update={"evaluation": evaluation})

    def train_alone(self, order: StandaloneOrder, on_step: Callable[[], None]) -> Trained:
        """Train likewise, from an adapter of this data alone or from theta^0, for the hold-out report.

        Raises:
            Whatever ``train`` raises.
        """
        on_step()
        loaded = self._load(order.manifest)
        _load_file(loaded, order.adapter)
        return _train(loaded, order.into, order.seed, lambda _: on_step())

    def measure(self, order: MeasureOrder, on_batch: Callable[[], None]) -> Measured:
        """Measure an adapter on the hold-out.

        Raises:
            DataError, MemoryTooSmall: what is wrong with the hold-out, which stops nothing else.
            Others: what ``train`` raises.
        """
        on_batch()
        loaded = self._load(order.manifest)
        if self._held_out is None:
            self._held_out = self._read_holdout(loaded)
            on_batch()
        _load_file(loaded, order.adapter)
        examples = self._held_out.examples
        found = evaluate(
            loaded.model, examples, batch_size=EVALUATION_BATCH, vocab_size=loaded.vocab_size, on_batch=on_batch
        )
        completions = all(len(one.choices) == 1 for one in examples)
        right = [one.choices[one.answer] for one in examples]
        return Measured(
            examples=self._held_out.digest,
            left_out=self._held_out.left_out,
            completions=completions,
            chance=found.chance,
            right=found.predicted if completions else tuple(map(int, found.correct)),
            tokens=tuple(len(one.token_ids) - one.answer_start for one in right),
            losses=tuple(-of[one.answer] for one, of in zip(examples, found.log_likelihoods, strict=True)),
        )

    def _load(self, manifest: Manifest) -> _Loaded:
        """Return model and data for this manifest, after comparing everything that can be compared."""
        if self._loaded is None or self._loaded.manifest != manifest:
            self._loaded = self._held_out = None  # before the next model is loaded: there may be no room for two
            tokenizer = load_tokenizer(self._slm)
            if (actual := tokenizer_digest(tokenizer)) != manifest.tokenizer_digest:
                raise TokenizerMismatch(
                    f"the tokenizer of {self._slm} is {actual} and the run's is {manifest.tokenizer_digest}: "
                    f"install the base model that the operator names; {SAME_FILES}"
                )
            if (actual := base_model_digest(self._slm, cache=self._digest_cache)) != manifest.slm_digest:
                raise BaseModelMismatch(
                    f"the base model {self._slm} is {actual} and the run's is {manifest.slm_digest}: "
                    f"install the base model that the operator names; {SAME_FILES}"
                )
            private = read_examples(self._data, manifest.task)
            examples = encode_examples(
                tokenizer,
                private,
                max_tokens=manifest.training.max_tokens,
                too_long=manifest.task.too_long,
            )
            own = own_examples(self._evaluation, tokenizer, manifest)
            needed = estimate(
                self._slm,
                dtype=self._dtype,
                lora=manifest.slm_lora,
                training=largest_batch(examples, manifest.training.batch_size),
                evaluation=evaluation_batches(own, self._device),
                gradient_checkpointing=self._gradient_checkpointing,
            )
            require_memory(needed, self._device)
            model = load_with_lora(
                self._slm,
                lora=manifest.slm_lora,
                seed=manifest.seed,
                max_tokens=manifest.training.max_tokens,
                dtype=self._dtype,
                device=self._device,
                gradient_checkpointing=self._gradient_checkpointing,
            )
            if adapter_layout(model) != dict(manifest.layout):
                raise LoraMismatch(
                    f"LoRA on {self._slm} does not give the manifest's {len(manifest.layout)} tensors: "
                    "install the release that the coordinator runs"
                )
            holds_out = self._holdout is not None
            self._loaded = _Loaded(
                manifest,
                tokenizer,
                model,
                examples,
                own,
                first=adapter_tensors(model) if holds_out else {},
                learnt=frozenset(map(_content, private)) if holds_out else frozenset(),
            )
        return self._loaded

    def _read_holdout(self, loaded: _Loaded) -> _HoldOut:
        """Return the hold-out; it is read where it is first measured on, so that no round waits for it."""
        assert self._holdout is not None  # noqa: S101 - nobody asks an agent without one
        manifest = loaded.manifest
        there = read_examples(self._holdout, manifest.task)
        kept = [one for one in there if _content(one) not in loaded.learnt]
        if not kept:
            raise DataEmpty(f"all examples of {self._holdout.path} are trained on too: hold others out")
        encoded = encode_choices(
            loaded.tokenizer, kept, max_tokens=manifest.training.max_tokens, too_long=manifest.task.too_long
        )
        shape = shape_of(
            self._slm,
            dtype=self._dtype,
            lora=manifest.slm_lora,
            gradient_checkpointing=self._gradient_checkpointing,
        )
        require_memory(shape.evaluation(evaluation_batches(encoded, self._device)), self._device)
        return _HoldOut(encoded, len(there) - len(kept), digest_of(repr(encoded).encode()))


def own_examples(
    source: DataSource | None, tokenizer: PreTrainedTokenizerBase, manifest: Manifest
) -> list[EncodedChoices]:
    """Return what this agent evaluates a run's adapters on; nothing where the run asks for no evaluation.

    Raises:
        TooFewExamples: there are fewer than the run asks for. With a part of them, or with nothing, this agent's share
            in the sum would be another than everybody's, and others' easier to tell.
        DataError: what is wrong with them, as with the private examples.
    """
    wanted = manifest.evaluation_examples
    if not wanted:
        return []
    asks = f"run {manifest.run_id} has each agent evaluate on {wanted} examples of its own that it does not train on"
    if source is None:
        raise TooFewExamples(f"{asks}: to take part, set evaluation.path to a file of such examples")
    own = encode_choices(
        tokenizer,
        read_examples(source, manifest.task),
        max_tokens=manifest.training.max_tokens,
        too_long=manifest.task.too_long,
    )
    if len(own) < wanted:
        raise TooFewExamples(f"{asks}, and {source.path} has {len(own)} that fit: to take part, add examples")
    return own


def _content(example: Example) -> tuple[str, str]:
    """Return what is learnt of an example."""
    return example.prompt, example.choices[example.answer]


def _train(loaded: _Loaded, into: Path, seed: int, on_progress: Callable[[Progress], None]) -> Trained:
    """Train the adapter that is loaded, and write it to a file."""
    terms = loaded.manifest.training
    report = train_local(
        loaded.model,
        loaded.examples,
        epochs=terms.epochs,
        batch_size=terms.batch_size,
        optimiser=terms.optimiser,
        seed=seed,
        vocab_size=loaded.vocab_size,
        on_step=lambda step, steps, loss: on_progress(Progress(step=step, steps=steps, loss=loss)),
    )
    update = encode(adapter_tensors(loaded.model))
    into.write_bytes(update)
    return Trained(
        digest=digest_of(update), examples=len(loaded.examples), steps=report.steps, mean_loss=report.mean_loss
    )


def _load_file(loaded: _Loaded, adapter: Path | None) -> None:
    """Load an adapter, or theta^0, which changes nothing in the base model (B = 0), into the model."""
    load_adapter(loaded.model, loaded.first if adapter is None else read_file(adapter, loaded.manifest.layout))


def _evaluated(loaded: _Loaded) -> LocalEvaluation | None:
    """Evaluate the adapter that is loaded, if the run asks for it, on as many examples as it asks for.

    Others are drawn each time, and nobody can foresee which: two rounds that begin with the same adapter then differ
    by more than one agent's answers.
    """
    count = loaded.manifest.evaluation_examples
    if not count:
        return None
    drawn = random.SystemRandom().sample(loaded.own, count)
    found = evaluate(
        loaded.model, drawn, batch_size=EVALUATION_BATCH, vocab_size=loaded.vocab_size, on_batch=lambda: None
    )
    return LocalEvaluation(loss=found.loss * count, correct=round(found.accuracy * count), total=count)
