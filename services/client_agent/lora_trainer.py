"""Local training of the SLM's LoRA on the private data (Alg. 1, client loop; docs/protocol.md step 3)."""

from collections.abc import Callable
from pathlib import Path

import structlog
from peft import PeftModel

from services.client_agent.trainer import Progress, Trained, TrainingOrder
from shared.data.examples import read_examples
from shared.data.source import DataSource
from shared.devices import DtypeName
from shared.errors import BaseModelMismatch, LoraMismatch, TokenizerMismatch
from shared.ml.adapters import adapter_layout, adapter_tensors, load_adapter
from shared.ml.digests import SAME_FILES, base_model_digest, tokenizer_digest
from shared.ml.encoding import Encoded, encode_examples
from shared.ml.memory import estimate, largest_batch, require_memory
from shared.ml.models import load_tokenizer, load_with_lora, pick_device, require_dtype
from shared.ml.train import train_local
from shared.protocol.codec import encode, read_file
from shared.protocol.digests import digest_of
from shared.protocol.messages import Manifest

log = structlog.get_logger()


class LoraTrainer:
    """Keeps the base model and the encoded data between rounds."""

    def __init__(
        self,
        *,
        slm: str,
        data: DataSource,
        device: str,
        dtype: DtypeName,
        digest_cache: Path,
        gradient_checkpointing: bool = False,
    ) -> None:
        require_dtype(dtype)
        self._slm = slm
        self._data = data
        self._device = pick_device(device)
        self._dtype = dtype
        self._gradient_checkpointing = gradient_checkpointing
        self._digest_cache = digest_cache
        self._loaded: tuple[Manifest, PeftModel, list[Encoded], int] | None = None
        log.info("trainer.ready", device=str(self._device), dtype=dtype)

    def train(self, order: TrainingOrder, on_progress: Callable[[Progress], None]) -> Trained:
        """Train one update and write it to the order's file.

        Raises:
            BaseModelMismatch, TokenizerMismatch, LoraMismatch, ContextTooShort: this machine's model is not the run's.
            MemoryTooSmall: this machine has no room for it.
            DataError, LossNotFinite: what is wrong with the data or the training.
        """
        model, examples, vocab_size = self._load(order.manifest)
        load_adapter(model, read_file(order.adapter, order.manifest.layout))
        terms = order.manifest.training
        report = train_local(
            model,
            examples,
            epochs=terms.epochs,
            batch_size=terms.batch_size,
            optimiser=terms.optimiser,
            seed=order.seed,
            vocab_size=vocab_size,
            on_step=lambda step, steps, loss: on_progress(Progress(step=step, steps=steps, loss=loss)),
        )
        update = encode(adapter_tensors(model))
        order.into.write_bytes(update)
        return Trained(digest=digest_of(update), examples=len(examples), steps=report.steps, mean_loss=report.mean_loss)

    def _load(self, manifest: Manifest) -> tuple[PeftModel, list[Encoded], int]:
        """Return model, data and vocabulary for this manifest, after comparing everything that can be compared."""
        if self._loaded is None or self._loaded[0] != manifest:
            self._loaded = None  # before the next model is loaded: this machine may have no room for two
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
            examples = encode_examples(
                tokenizer,
                read_examples(self._data, manifest.task),
                max_tokens=manifest.training.max_tokens,
                too_long=manifest.task.too_long,
            )
            needed = estimate(
                self._slm,
                dtype=self._dtype,
                lora=manifest.slm_lora,
                training=largest_batch(examples, manifest.training.batch_size),
                gradient_checkpointing=self._gradient_checkpointing,
            )
            require_memory(needed, self._device)
            model = load_with_lora(
                self._slm,
                lora=manifest.slm_lora,
                seed=0,
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
            self._loaded = (manifest, model, examples, len(tokenizer))
        return self._loaded[1:]
