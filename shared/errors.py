"""The whole error tree; every error of the system is drawn here and has a stable code.

    FedCoLLMError
    ├── ConfigurationError            configuration_invalid      a setting cannot be used as it is
    │   └── PartMissing               part_missing               a part of FedCoLLM is not installed here
    ├── DataError                                                a data file cannot be used
    │   ├── DataEmpty                 data_empty
    │   ├── DataColumnMissing         data_column_missing
    │   ├── DataUnreadable            data_unreadable
    │   ├── DataChanged               data_changed               while it was read
    │   ├── AnswersMixed              data_answers_mixed
    │   ├── AnswerNotAmongChoices     data_answer_not_in_choices
    │   └── ExampleTooLong            data_example_too_long
    ├── ModelError                                               base model, tokenizer or LoRA do not fit
    │   ├── ModelUnreadable           model_unreadable
    │   ├── MemoryTooSmall            memory_too_small           this machine's, for what was asked of it
    │   ├── ContextTooShort           context_too_short
    │   ├── LoraTargetMissing         lora_target_missing
    │   ├── TokenizerMismatch         tokenizer_mismatch
    │   ├── BaseModelMismatch         base_model_mismatch
    │   └── LoraMismatch              lora_mismatch
    ├── TrainingError
    │   ├── LossNotFinite             loss_not_finite
    │   └── TrainerStopped            trainer_stopped            the training process ended on its own
    ├── ProtocolError                                            a message is wrong; the sender can tell why
    │   ├── MessageInvalid            message_invalid
    │   ├── ProtocolVersionMismatch   protocol_version_mismatch
    │   ├── NotAuthenticated          not_authenticated
    │   ├── NotAllowed                not_allowed
    │   ├── SignatureInvalid          signature_invalid          a document is not signed by whom it should be
    │   ├── FederationMismatch        federation_mismatch        a document is of another federation
    │   ├── CertificateExpired        certificate_expired
    │   ├── NotFound                  not_found
    │   ├── RouteUnknown              route_unknown              nobody answers this path on this port
    │   ├── IllegalTransition         illegal_transition
    │   ├── RoundClosed               round_closed
    │   ├── RunConflict               run_conflict
    │   ├── UpdateConflict            update_conflict
    │   ├── LeaseLost                 lease_lost
    │   ├── LengthRequired            length_required
    │   ├── BlobTooLarge              blob_too_large
    │   ├── BlobTruncated             blob_truncated
    │   ├── DigestMismatch            digest_mismatch
    │   ├── LayoutMismatch            layout_mismatch
    │   └── ValuesNotFinite           values_not_finite
    ├── StorageError                                             this machine's disk or database says no
    │   ├── StorageFull               storage_full
    │   ├── BlobMissing               blob_missing
    │   ├── BlobCorrupt               blob_corrupt
    │   ├── StoreBusy                 store_busy                 another process owns the folder
    │   └── VersionConflict           version_conflict           a row changed since it was read: read it again
    ├── OutputError                                              a command's result cannot go where it should
    │   ├── OutputExists              output_exists              there is something already
    │   └── OutputUnwritable          output_unwritable          the disk says no
    └── TransportError
        ├── Unreachable               unreachable                no answer, after all retries
        └── RemoteProblem             (the code that the other side sent)

A message says what happened, to what, and what to do. Errors know their code and nothing of HTTP:
the coordinator's ``app`` maps codes to statuses.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class FedCoLLMError(Exception):
    """Base of every error that this project raises on purpose."""

    code: str = "internal"


def error_of(code: str, message: str, *, otherwise: type[FedCoLLMError]) -> FedCoLLMError:
    """Return the error that another process of ours has met, or ``otherwise`` where its code is not of this tree."""
    kinds = {kind.code: kind for kind in _tree(FedCoLLMError)}
    return kinds.get(code, otherwise)(message)


@contextmanager
def about(what: str) -> Iterator[None]:
    """Let errors of the block say what they are about: a setting or an option, by the name that its user knows."""
    try:
        yield
    except FedCoLLMError as error:
        error.args = (f"{what}: {error}",)
        raise


def _tree(kind: type[FedCoLLMError]) -> Iterator[type[FedCoLLMError]]:
    for below in kind.__subclasses__():
        if "code" in vars(below):
            yield below
        yield from _tree(below)


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
    """An adapter has other tensors than the model it is meant for."""

    code = "lora_mismatch"


class TrainingError(FedCoLLMError):
    """Training cannot go on."""


class LossNotFinite(TrainingError):
    """A loss became NaN or infinite."""

    code = "loss_not_finite"


class TrainerStopped(TrainingError):
    """The training process ended without an answer."""

    code = "trainer_stopped"


class ProtocolError(FedCoLLMError):
    """A message is wrong, and its sender can be told why."""


class MessageInvalid(ProtocolError):
    """A body or parameter does not have the form that the protocol gives it."""

    code = "message_invalid"


class ProtocolVersionMismatch(ProtocolError):
    """The two sides speak different versions of the protocol."""

    code = "protocol_version_mismatch"


class NotAuthenticated(ProtocolError):
    """The request carries no valid credential."""

    code = "not_authenticated"


class NotAllowed(ProtocolError):
    """The principal may not do this."""

    code = "not_allowed"


class SignatureInvalid(ProtocolError):
    """A document does not have the signature that it must have."""

    code = "signature_invalid"


class FederationMismatch(ProtocolError):
    """A document belongs to another federation than the one it is used in."""

    code = "federation_mismatch"


class CertificateExpired(ProtocolError):
    """A membership certificate is over."""

    code = "certificate_expired"


class NotFound(ProtocolError):
    """There is nothing by this name, or it is not this principal's to see."""

    code = "not_found"


class RouteUnknown(ProtocolError):
    """No route has this path: another port, another service, or another release."""

    code = "route_unknown"


class IllegalTransition(ProtocolError):
    """The table has no such event in this state; nothing was changed."""

    code = "illegal_transition"


class RoundClosed(ProtocolError):
    """The round no longer takes updates."""

    code = "round_closed"


class RunConflict(ProtocolError):
    """There is a run by this id already, with other terms."""

    code = "run_conflict"


class UpdateConflict(ProtocolError):
    """This agent has sent other bytes for the same round before."""

    code = "update_conflict"


class LeaseLost(ProtocolError):
    """The work was handed to another worker, or is not wanted any more."""

    code = "lease_lost"


class LengthRequired(ProtocolError):
    """A blob must say its length before its first byte."""

    code = "length_required"


class BlobTooLarge(ProtocolError):
    """A body is longer than what may be sent here."""

    code = "blob_too_large"


class BlobTruncated(ProtocolError):
    """A body ended before its announced length."""

    code = "blob_truncated"


class DigestMismatch(ProtocolError):
    """The bytes do not have the digest that was announced."""

    code = "digest_mismatch"


class LayoutMismatch(ProtocolError):
    """A blob's tensors are not exactly those of the manifest's layout."""

    code = "layout_mismatch"


class ValuesNotFinite(ProtocolError):
    """A tensor holds NaN or an infinity."""

    code = "values_not_finite"


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


class TransportError(FedCoLLMError):
    """The other side could not be asked, or said no."""


class Unreachable(TransportError):
    """No answer came, after all retries."""

    code = "unreachable"


class RemoteProblem(TransportError):
    """The other side answered with a problem document (RFC 9457), whose code is this error's."""

    def __init__(self, code: str, status: int, detail: str) -> None:
        super().__init__(f"{detail} (HTTP {status})")
        self.code = code
        self.status = status
        self.detail = detail
