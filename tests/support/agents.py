"""Agents as their pages show them: whose they are, and in which states."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.federation import FEDERATION
from services.client_agent.egress_ledger import EgressLedger, ledger_folder, months
from services.client_agent.pages import Installation
from services.client_agent.policy import Policy
from services.client_agent.status import DeclinedRun, Phase, Status
from shared.egress import NO_BODY, Egress, TrafficCount
from shared.protocol.digests import digest_of
from shared.protocol.membership import UNWILLING
from shared.protocol.messages import PublishedAdapter

ADA = Installation("ada", FEDERATION, "https://coordinator.example:8440", Policy())
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DIGEST = digest_of(b"an adapter")


def waiting(folder: Path) -> Status:
    """Return an agent that has taken part for a month, and sent updates of both kinds."""
    time = NOON - timedelta(days=20)
    ledger = EgressLedger(folder, TrafficCount(), lambda: time)
    for number in range(1, 61):
        round_ = f"/v1/runs/clinics/rounds/{number}"
        time += timedelta(hours=7)
        for target in (f"{round_}/attempts/1/masked", f"{round_}/update"):
            request = Egress("PUT", target, 6_291_456, digest_of(target.encode()))
            ledger.record(request, to="https://coordinator.example:8440", head_bytes=612)
        ledger.record(
            Egress("GET", f"/v1/wanted?holding={DIGEST}", 0, NO_BODY),
            to="https://coordinator.example:8440",
            head_bytes=612,
        )
    status = Status(folder, started_at=NOON.timestamp(), answered_at=NOON.timestamp())
    status.enter(Phase.SENDING, run_id="clinics", round_number=60)
    status.worked()
    status.enter(Phase.WAITING)
    status.hold(PublishedAdapter(run_id="clinics", round=60, digest=DIGEST))
    return status


def training(folder: Path) -> Status:
    """Return an agent that trains, and has sent nothing yet."""
    status = Status(folder, started_at=NOON.timestamp(), answered_at=NOON.timestamp())
    status.enter(Phase.TRAINING, run_id="clinics", round_number=1)
    status.advance(3, 40, 1.25)
    return status


def declining(folder: Path) -> Status:
    """Return an agent that waits, and declines runs: by its policy, and for a long reason with no gap in it."""
    status = waiting(folder)
    policy = "policy.smallest_cohort is 5, and run third has sums of as few as 3"
    for refusal in (
        DeclinedRun(
            run_id="other-model", code="base_model_mismatch", reason=DIGEST * 3, at=NOON, told="base_model_mismatch"
        ),
        DeclinedRun(run_id="third", code="policy_refused", reason=policy, at=NOON, told=UNWILLING),
    ):
        status.declined[refusal.run_id] = refusal
    return status


def failing(folder: Path) -> Status:
    """Return an agent that is no member, has seen another audit log, and whose ledger was changed."""
    status = waiting(folder)
    status.fail("not_a_member", "ada is not approved yet: the operator can do that")
    status.audit_broken = "the head of the audit log is older than the one that was told before"
    for file in months(ledger_folder(folder)):
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join([*lines[:4], *lines[5:]]))
    return status
