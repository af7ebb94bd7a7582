"""The real ``CoTuner``: LLM and SLM in this process (Alg. 1, server side; docs/protocol.md, steps 1, 7 and 8)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import peft
import torch
import transformers
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from services.coordinator.worker.cotuner import Cotuned, PreparedBase, PreparedPair
from shared.data.examples import read_examples
from shared.data.source import DataSource
from shared.devices import DtypeName
from shared.errors import BaseModelMismatch, ConfigurationError, TokenizerMismatch
from shared.folders import file_digest
from shared.ml.adapters import adapter_config, adapter_layout, adapter_tensors, load_adapter
from shared.ml.checkpoint import licence
from shared.ml.cotune import cotune
from shared.ml.cotuning_checkpoint import CotuningCheckpoint
from shared.ml.digests import SAME_FILES, base_model_digest, tokenizer_digest
from shared.ml.encoding import Encoded, EncodedChoices, encode_choices, encode_examples
from shared.ml.evaluate import EVALUATION_BATCH, evaluate
from shared.ml.generate import go_on
from shared.ml.hub import model_directory
from shared.ml.memory import estimate_pair, require_memory
from shared.ml.models import load_tokenizer, load_with_lora, pick_device, require_dtype
from shared.ml.process_group import ALONE, ProcessGroup, together
from shared.protocol.codec import decode, encode
from shared.protocol.digests import digest_of
from shared.protocol.messages import BaseScores, RoundScores, Score
from shared.protocol.questions import Answers, ModelName
from shared.protocol.terms import LoraTerms, RunTerms
from shared.protocol.work import PreparedDigests
from shared.release import release


@dataclass(frozen=True)
class _Loaded:
    """What is kept between the tasks of a run."""

    terms: RunTerms
    digests: PreparedDigests
    tokenizer: PreTrainedTokenizerBase
    slm: PeftModel
    llm: PeftModel
    auxiliary: Sequence[Encoded]
    validation: Sequence[EncodedChoices]
    data: str
    scores: dict[tuple[str, bytes], Score] = field(default_factory=dict)
    """What a model scored, by its name and its adapter's digest: without passes one is asked for again and again."""


class ModelPair:
    """Loads the models of a run once, and exchanges their adapters."""

    def __init__(
        self,
        *,
        auxiliary: DataSource,
        validation: DataSource,
        device: str,
        dtype: DtypeName,
        digest_cache: Path,
        gradient_checkpointing: bool = False,
        checkpoint_seconds: float = 60.0,
        group: ProcessGroup = ALONE,
    ) -> None:
        require_dtype(dtype)
        if group.sharded and dtype == "nf4":
            raise ConfigurationError("sharding is full and dtype is nf4: set one of them to something else")
        self._auxiliary = auxiliary
        self._validation = validation
        self._device = pick_device(device)
        self._dtype = dtype
        self._gradient_checkpointing = gradient_checkpointing
        self._digest_cache = digest_cache
        self._checkpoint_seconds = checkpoint_seconds
        self._group = group
        self._loaded: _Loaded | None = None

    def prepare(
        self, terms: RunTerms, *, slm_into: Path, llm_into: Path, require_lease: Callable[[], None]
    ) -> PreparedPair:
        """Write theta^0 and omega^0, which change nothing yet (B = 0), and evaluate the base models."""
        self._loaded = None
        pair = self._load(terms)
        self._write(pair, slm_into=slm_into, llm_into=llm_into)
        return PreparedPair(
            tokenizer_digest=pair.digests.tokenizer,
            slm=_base(terms.slm, pair.digests.slm, pair.slm),
            llm=_base(terms.llm, pair.digests.llm, pair.llm),
            scores=BaseScores(
                slm=self._score(pair, pair.slm, require_lease), llm=self._score(pair, pair.llm, require_lease)
            ),
        )

    def cotune(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        seed: int,
        slm: Path,
        llm: Path,
        slm_into: Path,
        llm_into: Path,
        checkpoint: Path,
        require_lease: Callable[[], None],
    ) -> Cotuned:
        """Co-tune on the auxiliary set (Eq. 4 to 6)."""
        pair = self._load(terms, prepared)
        self._load_file(pair.slm, slm)
        self._load_file(pair.llm, llm)
        report = cotune(
            pair.llm,
            pair.slm,
            pair.auxiliary,
            terms=terms.cotuning,
            seed=seed,
            vocab_size=len(pair.tokenizer),
            on_step=lambda _step, _steps, _loss: require_lease(),
            group=self._group,
            checkpoint=CotuningCheckpoint(
                checkpoint,
                inputs=self._inputs(pair, seed),
                seconds=self._checkpoint_seconds,
                group=self._group,
            ),
        )
        self._write(pair, slm_into=slm_into, llm_into=llm_into)
        losses: Mapping[str, float] = {
            "llm_loss": report.llm_loss,
            "slm_loss": report.slm_loss,
            "llm_distillation": report.llm_distillation,
            "slm_distillation": report.slm_distillation,
        }
        return Cotuned(steps=report.steps, losses=losses, micro_batch=report.micro_batch)

    def evaluate(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        slm_aggregated: Path,
        slm: Path,
        llm: Path,
        require_lease: Callable[[], None],
    ) -> RoundScores:
        """Evaluate on the validation set."""
        pair = self._load(terms, prepared)

        def score(model: PeftModel, name: str, adapter: Path) -> Score:
            known = (name, self._group.from_first(lambda: file_digest(adapter).encode()))
            if known not in pair.scores:
                self._load_file(model, adapter)
                pair.scores[known] = self._score(pair, model, require_lease)
            return pair.scores[known]

        return RoundScores(
            slm_aggregated=score(pair.slm, "slm", slm_aggregated),
            slm=score(pair.slm, "slm", slm),
            llm=score(pair.llm, "llm", llm),
        )

    def ask(
        self,
        terms: RunTerms,
        *,
        prepared: PreparedDigests,
        slm: Path,
        llm: Path,
        prompt: str,
        max_new_tokens: int,
    ) -> Answers:
        """Let both models go on from a prompt, each with its adapter and as it was."""
        pair = self._load(terms, prepared)
        self._load_file(pair.slm, slm)
        self._load_file(pair.llm, llm)
        answers = {}
        for model, tuned, base in (
            (pair.llm, ModelName.LLM, ModelName.LLM_BASE),
            (pair.slm, ModelName.SLM, ModelName.SLM_BASE),
        ):
            answers[tuned] = go_on(model, pair.tokenizer, prompt, max_new_tokens=max_new_tokens)
            with model.disable_adapter():
                answers[base] = go_on(model, pair.tokenizer, prompt, max_new_tokens=max_new_tokens)
        return answers

    def _load(self, terms: RunTerms, prepared: PreparedDigests | None = None) -> _Loaded:
        """Return the models of a run, loaded if the last task was of another run.

        Raises:
            BaseModelMismatch, TokenizerMismatch: they are not those that the run was prepared with.
            MemoryTooSmall: this machine has no room for them.
            ConfigurationError: another process has loaded something else.
        """
        if self._loaded is None or self._loaded.terms != terms:
            self._loaded = None  # before the next pair is loaded: this machine may have no room for two
            with together(self._group):
                loaded = self._read(terms, prepared)
            if len({*self._group.from_all(f"{loaded.digests} {loaded.data}".encode())}) > 1:
                raise ConfigurationError(
                    "the processes of this worker have not the same models, auxiliary and validation sets: copy them "
                    "to each of its machines"
                )
            self._loaded = loaded
        _require_prepared(terms, self._loaded.digests, prepared or self._loaded.digests)
        return self._loaded

    def _read(self, terms: RunTerms, prepared: PreparedDigests | None) -> _Loaded:
        """Load the models of a run, and its data."""
        tokenizer = load_tokenizer(terms.slm)
        if tokenizer_digest(tokenizer) != tokenizer_digest(load_tokenizer(terms.llm)):
            raise TokenizerMismatch(
                f"{terms.llm} and {terms.slm} do not share a tokenizer, so their distributions cannot be compared: "
                "choose a pair of one family"
            )
        digests = PreparedDigests(
            tokenizer=tokenizer_digest(tokenizer),
            slm=base_model_digest(terms.slm, cache=self._digest_cache),
            llm=base_model_digest(terms.llm, cache=self._digest_cache),
        )
        _require_prepared(terms, digests, prepared or digests)
        longest, too_long = terms.training.max_tokens, terms.task.too_long
        auxiliary = encode_examples(
            tokenizer, read_examples(self._auxiliary, terms.task), max_tokens=longest, too_long=too_long
        )
        validation = encode_choices(
            tokenizer, read_examples(self._validation, terms.task), max_tokens=longest, too_long=too_long
        )
        needed = estimate_pair(
            terms,
            auxiliary,
            validation,
            dtype=self._dtype,
            gradient_checkpointing=self._gradient_checkpointing,
            device=self._device,
            group=self._group,
        )
        require_memory(needed, self._device)
        return _Loaded(
            terms=terms,
            digests=digests,
            tokenizer=tokenizer,
            slm=self._with_lora(terms.slm, terms.slm_lora, terms),
            llm=self._with_lora(terms.llm, terms.llm_lora, terms),
            auxiliary=auxiliary,
            validation=validation,
            data=digest_of(repr((auxiliary, validation)).encode()),
        )

    def _with_lora(self, path: str, lora: LoraTerms, terms: RunTerms) -> PeftModel:
        return load_with_lora(
            path,
            lora=lora,
            seed=terms.seed,
            max_tokens=terms.training.max_tokens,
            dtype=self._dtype,
            device=self._device,
            gradient_checkpointing=self._gradient_checkpointing,
            group=self._group,
        )

    def _load_file(self, model: PeftModel, file: Path) -> None:
        """Load an adapter of which the first process has the file."""
        layout = adapter_layout(model)
        load_adapter(model, decode(self._group.from_first(file.read_bytes), layout))

    def _write(self, pair: _Loaded, *, slm_into: Path, llm_into: Path) -> None:
        """Write the adapters as they are, which are the same in each process."""
        if self._group.rank == 0:
            slm_into.write_bytes(encode(adapter_tensors(pair.slm)))
            llm_into.write_bytes(encode(adapter_tensors(pair.llm)))

    def _inputs(self, pair: _Loaded, seed: int) -> str:
        """Return a digest of all that decides how a co-tuning with the adapters that are loaded ends."""
        inputs = {
            "terms": pair.terms.model_dump(mode="json"),
            "models": pair.digests.model_dump(mode="json"),
            "adapters": [digest_of(encode(adapter_tensors(model))) for model in (pair.slm, pair.llm)],
            "data": pair.data,
            "seed": seed,
            "held": [self._dtype, self._device.type, self._gradient_checkpointing],
            "processes": [self._group.size, self._group.sharded],
            "releases": [release(), torch.__version__, transformers.__version__, peft.__version__],
        }
        return digest_of(json.dumps(inputs, sort_keys=True).encode())

    def _score(self, pair: _Loaded, model: PeftModel, require_lease: Callable[[], None]) -> Score:
        result = evaluate(
            model,
            pair.validation,
            batch_size=EVALUATION_BATCH,
            vocab_size=len(pair.tokenizer),
            on_batch=require_lease,
            group=self._group,
        )
        return Score(
            accuracy=result.accuracy,
            loss=result.loss,
            examples=result.examples,
            chance=result.chance,
            interval=result.interval,
        )


def _require_prepared(terms: RunTerms, here: PreparedDigests, prepared: PreparedDigests) -> None:
    """Check that the models of this machine are those that the run was prepared with, perhaps on another one."""
    if here.tokenizer != prepared.tokenizer:
        raise TokenizerMismatch(
            f"the tokenizer of {terms.slm} is {here.tokenizer} here and was {prepared.tokenizer} when the run was "
            f"prepared: {SAME_FILES}"
        )
    for path, digest, expected in ((terms.slm, here.slm, prepared.slm), (terms.llm, here.llm, prepared.llm)):
        if digest != expected:
            raise BaseModelMismatch(
                f"the base model {path} is {digest} here and was {expected} when the run was prepared: {SAME_FILES}"
            )


def _base(path: str, digest: str, model: PeftModel) -> PreparedBase:
    return PreparedBase(
        base_digest=digest,
        layout=adapter_layout(model),
        adapter_config=adapter_config(model, base_model=path),
        licence=licence(model_directory(path)),
    )
