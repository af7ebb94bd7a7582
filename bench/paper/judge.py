"""Item by item: what a model answers with an adapter, so that methods can be compared on the same questions."""

from pathlib import Path

from pydantic import BaseModel

from bench.paper.methods import ModelRole
from shared.data.examples import read_examples
from shared.data.source import DataSource
from shared.devices import DeviceName, DtypeName
from shared.ml.adapters import adapter_layout, load_adapter
from shared.ml.encoding import encode_choices
from shared.ml.evaluate import EVALUATION_BATCH, evaluate
from shared.ml.models import load_tokenizer, load_with_lora, pick_device
from shared.protocol.codec import read_file
from shared.protocol.terms import FROZEN, RunTerms


class Measured(BaseModel):
    """What a model scored (``shared.ml.evaluate``); ``correct`` has a 1 or 0 for each item, in the order of the file.

    base_parameters: of the model without its adapter.
    """

    base_parameters: int
    accuracy: float
    accuracy_norm: float
    loss: float
    chance: float
    correct: str
    model_config = FROZEN


class Judge:
    """Scores one base model with one adapter after the other, on the same examples."""

    def __init__(
        self, terms: RunTerms, role: ModelRole, source: DataSource, *, device: DeviceName, dtype: DtypeName
    ) -> None:
        path, lora = (terms.slm, terms.slm_lora) if role == "slm" else (terms.llm, terms.llm_lora)
        tokenizer = load_tokenizer(path)
        self._vocab_size = len(tokenizer)
        self._model = load_with_lora(
            path,
            lora=lora,
            seed=terms.seed,
            max_tokens=terms.training.max_tokens,
            dtype=dtype,
            device=pick_device(device),
            gradient_checkpointing=False,
        )
        self._examples = encode_choices(
            tokenizer,
            read_examples(source, terms.task),
            max_tokens=terms.training.max_tokens,
            too_long=terms.task.too_long,
        )

    def measure(self, adapter: Path | None) -> Measured:
        """Score the model with the adapter in a file, or, first of all, as it came (LoRA begins with B = 0)."""
        if adapter is not None:
            load_adapter(self._model, read_file(adapter, adapter_layout(self._model)))
        found = evaluate(
            self._model,
            self._examples,
            batch_size=EVALUATION_BATCH,
            vocab_size=self._vocab_size,
            on_batch=lambda: None,
        )
        return Measured(
            base_parameters=sum(weight.numel() for weight in self._model.parameters() if not weight.requires_grad),
            accuracy=found.accuracy,
            accuracy_norm=found.accuracy_norm,
            loss=found.loss,
            chance=found.chance,
            correct="".join("1" if right else "0" for right in found.correct),
        )
