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
    │   ├── ExampleTooLong            data_example_too_long
    │   └── TooFewExamples            data_too_few               to evaluate on, as a run asks
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
    │   ├── NotAMember                not_a_member               not approved, revoked, or no longer approved
    │   ├── AgentRunsTwice            agent_runs_twice           another process takes part with its name and key
    │   ├── RequestSignatureInvalid   request_signature_invalid  not signed, or not by whom it says
    │   ├── RequestReplayed           request_replayed           the same signed request came before
    │   ├── ClockSkewed               clock_skewed               the clocks of two machines differ by too much
    │   ├── TooManyRequests           too_many_requests          more than one party may send for now
    │   ├── SignatureInvalid          signature_invalid          a document is not signed by whom it should be
    │   ├── AuditBroken               audit_broken               the audit log was changed, cut, or is another one
    │   ├── InvitationInvalid         invitation_invalid         unknown, over, or used with another key
    │   ├── MemberConflict            member_conflict            this cannot be done with an agent as it stands
    │   ├── ManifestUnsigned          manifest_unsigned          the operator has not signed what a run is
    │   ├── ManifestMismatch          manifest_mismatch          a manifest is another run's, or not by its terms
    │   ├── CardInvalid               card_invalid               a model card does not hold together
    │   ├── FederationMismatch        federation_mismatch        a document is of another federation
    │   ├── CertificateExpired        certificate_expired
    │   ├── NotFound                  not_found
    │   ├── RouteUnknown              route_unknown              nobody answers this path on this port
    │   ├── ShareInvalid              share_invalid              of a secret, or what it was sealed in
    │   ├── KeyInvalid                key_invalid                of an attempt
    │   ├── StatisticTooLarge         statistic_too_large
    │   ├── SumImplausible            sum_implausible            of updates, or of what travels beside them
    │   ├── MeanTooCoarse             mean_too_coarse            whoever is in a weighted mean weighs too little
    │   ├── AttemptRefused            attempt_refused            what the coordinator asks for could undo the masks
    │   ├── PolicyRefused             policy_refused             this agent's own policy says no
    │   ├── IllegalTransition         illegal_transition
    │   ├── RoundClosed               round_closed
    │   ├── RunConflict               run_conflict
    │   ├── UpdateConflict            update_conflict
    │   ├── UploadSuperseded          upload_superseded          its sender has begun a newer one
    │   ├── UploadOffsetMismatch      upload_offset_mismatch     it goes on elsewhere than its bytes end
    │   ├── LeaseLost                 lease_lost
    │   ├── LengthRequired            length_required
    │   ├── BlobTooLarge              blob_too_large
    │   ├── BodyTooSlow               body_too_slow              and was broken off
    │   ├── BlobTruncated             blob_truncated
    │   ├── DigestMismatch            digest_mismatch
    │   ├── LayoutMismatch            layout_mismatch
    │   └── ValuesNotFinite           values_not_finite
    ├── StorageError                                             this machine's disk or database says no
    │   ├── StorageFull               storage_full               a disk that has no room
    │   ├── StorageReadOnly           storage_read_only          or that may only be read
    │   ├── BlobMissing               blob_missing
    │   ├── BlobCorrupt               blob_corrupt
    │   ├── StoreBusy                 store_busy                 another process owns the folder
    │   ├── DatabaseTooNew            database_too_new           a newer release has written it
    │   ├── BackupInvalid             backup_invalid
    │   └── VersionConflict           version_conflict           a row changed since it was read: read it again
    ├── OutputError                                              a command's result cannot go where it should
    │   ├── OutputExists              output_exists              there is something already
    │   └── OutputUnwritable          output_unwritable          the disk says no
    ├── EgressError                                              a request may not leave this machine
    │   ├── EgressUnexplained         egress_unexplained         nobody can say what it is for
    │   ├── EgressUnrecorded          egress_unrecorded          one left, and the ledger was not told
    │   └── LedgerUnwritable          ledger_unwritable          nothing was sent
    └── TransportError
        ├── Unreachable               unreachable                no answer, after all retries
        └── RemoteProblem             (the code that the other side sent)

A message says what happened, to what, and what to do. Errors know their code and nothing of HTTP:
the coordinator's ``app`` maps codes to statuses. Of each with a code, the docstring's paragraph that begins with "Do:"
says what to do: docs/troubleshooting.md is made of them.
"""

from shared.errors.machine import *  # noqa: F403 - whoever raises or catches one need not know which file it is in
from shared.errors.root import FedCoLLMError as FedCoLLMError
from shared.errors.root import about as about
from shared.errors.root import error_of as error_of
from shared.errors.rounds import *  # noqa: F403
from shared.errors.wire import *  # noqa: F403
