"""Errors of one machine: its settings, data, models, training, storage and output."""

from typing import Self

from shared.errors.root import FedCoLLMError


class ConfigurationError(FedCoLLMError):
    """A setting cannot be used as it is."""

    code = "configuration_invalid"


class PartMissing(ConfigurationError):
    """A part of FedCoLLM, an extra of its package, is not installed here."""

    code = "part_missing"

    @classmethod
    def of(cls, extra: str, module: str | None) -> Self:
        """Return the error of a part, by the name of its extra, that a missing module belongs to."""
        return cls(f"the {extra} is not installed here ({module} is missing): in the clone, pip install '.[{extra}]'")


class DataError(FedCoLLMError):
    """A data file cannot be used."""


class DataEmpty(DataError):
    """The file holds no example."""

    code = "data_empty"


class DataColumnMissing(DataError):
    """A row lacks a column that the task needs."""

    code = "data_column_missing"


class DataUnreadable(DataError):
    """The file is not there or not readable, or a row of it is not what its format or the task says."""

    code = "data_unreadable"


class DataChanged(DataError):
    """The file was written to while it was read."""

    code = "data_changed"


class AnswersMixed(DataError):
    """Some rows have answers of one type, and some of another."""

    code = "data_answers_mixed"


class AnswerNotAmongChoices(DataError):
    """The answer of a row is none of its choices."""

    code = "data_answer_not_in_choices"


class ExampleTooLong(DataError):
    """Prompt and answer together exceed the context that the run trains with."""

    code = "data_example_too_long"


class TooFewExamples(DataError):
    """A run has agents evaluate on more examples than this one has for that."""

    code = "data_too_few"


class ModelError(FedCoLLMError):
    """Base model, tokenizer or LoRA do not fit together."""


class ModelUnreadable(ModelError):
    """The base model or its tokenizer cannot be loaded from where it was said to be."""

    code = "model_unreadable"


class MemoryTooSmall(ModelError):
    """The models and what tuning them takes do not fit into this machine's free memory."""

    code = "memory_too_small"


class ContextTooShort(ModelError):
    """A run's texts may be longer than what a base model takes in."""

    code = "context_too_short"


class LoraTargetMissing(ModelError):
    """A LoRA target names no module of the base model."""

    code = "lora_target_missing"


class TokenizerMismatch(ModelError):
    """LLM and SLM do not share a tokenizer."""

    code = "tokenizer_mismatch"


class BaseModelMismatch(ModelError):
    """The base model of an agent or worker is not the one that the run was prepared with."""

    code = "base_model_mismatch"


class LoraMismatch(ModelError):
    """An adapter has other tensors than the model it is meant for, or its configuration says another LoRA."""

    code = "lora_mismatch"


class TrainingError(FedCoLLMError):
    """Training cannot go on."""


class LossNotFinite(TrainingError):
    """A loss became NaN or infinite."""

    code = "loss_not_finite"


class TrainerStopped(TrainingError):
    """The training process ended without an answer."""

    code = "trainer_stopped"


class StorageError(FedCoLLMError):
    """This machine's disk or database says no."""


class StorageFull(StorageError):
    """The disk has no room; nothing was kept of what was being written."""

    code = "storage_full"


class BlobMissing(StorageError):
    """A blob that a row names is not in the folder."""

    code = "blob_missing"


class BlobCorrupt(StorageError):
    """A stored blob no longer has the bytes that were stored."""

    code = "blob_corrupt"


class StoreBusy(StorageError):
    """Another process owns the folder."""

    code = "store_busy"


class VersionConflict(StorageError):
    """A row changed between reading and writing it; read again and decide again."""

    code = "version_conflict"


class OutputError(FedCoLLMError):
    """A command's result cannot go where it should."""


class OutputExists(OutputError):
    """There is something already."""

    code = "output_exists"


class OutputUnwritable(OutputError):
    """The disk says no."""

    code = "output_unwritable"


class EgressError(FedCoLLMError):
    """A request may not leave this machine."""


class EgressUnexplained(EgressError):
    """Nobody could say of a request what it is for, so it was not sent."""

    code = "egress_unexplained"


class EgressUnrecorded(EgressError):
    """A request left that the ledger was not told of."""

    code = "egress_unrecorded"


class LedgerUnwritable(EgressError):
    """The ledger of what leaves this machine cannot be written, so nothing was sent."""

    code = "ledger_unwritable"
