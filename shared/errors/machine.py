"""Errors of one machine: its settings, data, models, training, storage and output."""

from typing import Self

from shared.errors.root import FedCoLLMError


class ConfigurationError(FedCoLLMError):
    """A setting cannot be used as it is.

    Do: correct the setting that it names; a name that is no setting is told with what was meant
    (docs/configuration.md).
    """

    code = "configuration_invalid"


class PartMissing(ConfigurationError):
    """A part of FedCoLLM, an extra of its package, is not installed here.

    Do: install the part that it names, by the command that it shows.
    """

    code = "part_missing"

    @classmethod
    def of(cls, extra: str, module: str | None) -> Self:
        """Return the error of a part, by the name of its extra, that a missing module belongs to."""
        return cls(f"the {extra} is not installed here ({module} is missing): in the clone, pip install '.[{extra}]'")


class DataError(FedCoLLMError):
    """A data file cannot be used."""


class DataEmpty(DataError):
    """The file holds no example.

    Do: name the right file, or put examples into it.
    """

    code = "data_empty"


class DataColumnMissing(DataError):
    """A row lacks a column that the task needs.

    Do: correct the row that it names, or say what your columns are called (docs/data.md#columns).
    """

    code = "data_column_missing"


class DataUnreadable(DataError):
    """The file is not there or not readable, or a row of it is not what its format or the task says.

    Do: correct the path, who may read it, or the row that it names (docs/data.md#what-is-checked).
    """

    code = "data_unreadable"


class DataChanged(DataError):
    """The file was written to while it was read.

    Do: let nothing write to the file while it is read; it is read again.
    """

    code = "data_changed"


class AnswersMixed(DataError):
    """Some rows have answers of one type, and some of another.

    Do: make the answers of the two rows that it names alike, all of them numbers or all of them texts.
    """

    code = "data_answers_mixed"


class AnswerNotAmongChoices(DataError):
    """The answer of a row is none of its choices.

    Do: correct the row, or say by ``answer_is`` what the column holds (docs/data.md#columns).
    """

    code = "data_answer_not_in_choices"


class ExampleTooLong(DataError):
    """Prompt and answer together exceed the context that the run trains with.

    Do: shorten the text, raise the run's ``training.max_tokens``, or let the run leave out what is too long
    (docs/data.md#the-template).
    """

    code = "data_example_too_long"


class TooFewExamples(DataError):
    """A run has agents evaluate on more examples than this one has for that.

    Do: keep some back and name them in ``[evaluation]`` (docs/data.md#examples-to-evaluate-on); until then this
    agent takes part in other runs alone.
    """

    code = "data_too_few"


class ModelError(FedCoLLMError):
    """Base model, tokenizer or LoRA do not fit together."""


class ModelUnreadable(ModelError):
    """The base model or its tokenizer cannot be loaded from where it was said to be.

    Do: what it says; all that is said of models is in docs/models.md#hub-and-cache.
    """

    code = "model_unreadable"


class MemoryTooSmall(ModelError):
    """The models and what tuning them takes do not fit into this machine's free memory.

    Do: what it lists: smaller number formats, ``gradient_checkpointing``, smaller batches, shorter texts
    (docs/models.md#memory).
    """

    code = "memory_too_small"


class ContextTooShort(ModelError):
    """A run's texts may be longer than what a base model takes in.

    Do: lower the run's ``training.max_tokens``, or choose a base model that takes more.
    """

    code = "context_too_short"


class LoraTargetMissing(ModelError):
    """A LoRA target names no module of the base model.

    Do: name linear modules that the model has, in the run's ``targets`` (docs/models.md#lora).
    """

    code = "lora_target_missing"


class TokenizerMismatch(ModelError):
    """LLM and SLM do not share a tokenizer.

    Do: choose a pair of one family, or derive an SLM from the LLM (docs/deriving.md).
    """

    code = "tokenizer_mismatch"


class BaseModelMismatch(ModelError):
    """The base model of an agent or worker is not the one that the run was prepared with.

    Do: install the base model that the operator names: the same files give the same digest, and a model that was
    saved again may not (docs/models.md#what-is-accepted).
    """

    code = "base_model_mismatch"


class LoraMismatch(ModelError):
    """An adapter has other tensors than the model it is meant for, or its configuration says another LoRA.

    Do: use the adapter with the model that it was made for. Where an agent says so of a run, tell the operator.
    """

    code = "lora_mismatch"


class TrainingError(FedCoLLMError):
    """Training cannot go on."""


class LossNotFinite(TrainingError):
    """A loss became NaN or infinite.

    Do: lower the learning rate of the run.
    """

    code = "loss_not_finite"


class TrainerStopped(TrainingError):
    """The training process ended without an answer.

    Do: look at the agent's log. Mostly there was too little memory (docs/models.md#memory); the agent begins it
    again.
    """

    code = "trainer_stopped"


class StorageError(FedCoLLMError):
    """This machine's disk or database says no."""


class StorageFull(StorageError):
    """The disk has no room; nothing was kept of what was being written.

    Do: make room; what was being written is sent again.
    """

    code = "storage_full"


class StorageReadOnly(StorageError):
    """The disk may only be read; nothing was kept of what was being written.

    Do: mount it so that it can be written to, and look at the system's log: a disk that fails is often made so. What
    was being written is sent again.
    """

    code = "storage_read_only"


class BlobMissing(StorageError):
    """A blob that a row names is not in the folder.

    Do: put back a backup of the whole ``data_dir`` (docs/upgrade.md#back-up). Of an agent, wait until it holds an
    adapter.
    """

    code = "blob_missing"


class BlobCorrupt(StorageError):
    """A stored blob no longer has the bytes that were stored.

    Do: look at the disk, and put back a backup of the whole ``data_dir`` (docs/upgrade.md#back-up).
    """

    code = "blob_corrupt"


class StoreBusy(StorageError):
    """Another process owns the folder.

    Do: stop the other process, or name another folder.
    """

    code = "store_busy"


class DatabaseTooNew(StorageError):
    """A newer release has written the database; this one cannot read it.

    Do: install that release again, or put back the backup that was made before the upgrade (docs/upgrade.md#upgrade).
    """

    code = "database_too_new"


class BackupInvalid(StorageError):
    """A backup is not whole, is another federation's, or cannot be put back here.

    Do: use another backup. What is wrong with this one is in the message (docs/upgrade.md#put-a-backup-back).
    """

    code = "backup_invalid"


class VersionConflict(StorageError):
    """A row changed between reading and writing it; read again and decide again.

    Do: nothing: it is tried again.
    """

    code = "version_conflict"


class OutputError(FedCoLLMError):
    """A command's result cannot go where it should."""


class OutputExists(OutputError):
    """There is something already.

    Do: name another place, or say ``--force`` to replace what is of the same kind.
    """

    code = "output_exists"


class OutputUnwritable(OutputError):
    """The disk says no.

    Do: make room there, or name a folder that this user may write to.
    """

    code = "output_unwritable"


class EgressError(FedCoLLMError):
    """A request may not leave this machine."""


class EgressUnexplained(EgressError):
    """Nobody could say of a request what it is for, so it was not sent.

    Do: install the same release on both sides. A request that nobody can explain is never sent
    (docs/organisation.md#what-leaves-this-machine).
    """

    code = "egress_unexplained"


class EgressUnrecorded(EgressError):
    """A request left that the ledger was not told of.

    Do: stop the agent, keep its ``state_dir``, and report it as a weakness: this must not happen.
    """

    code = "egress_unrecorded"


class LedgerUnwritable(EgressError):
    """The ledger of what leaves this machine cannot be written, so nothing was sent.

    Do: make room, or give ``state_dir/ledger`` to the user that the agent runs as: until then nothing leaves.
    """

    code = "ledger_unwritable"
