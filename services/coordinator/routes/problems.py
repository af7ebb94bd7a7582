"""Which codes become which statuses, and how a route says which problems it may answer with."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from shared.errors import FedCoLLMError
from shared.protocol.messages import MESSAGE_CHARACTERS, MOST_FAULTS, Fault, Problem

PROBLEM_TYPE = "application/problem+json"

BY_US = "Value error, "  # what pydantic puts before a message of ours

# The one place where errors meet HTTP; a test holds it complete for all protocol and storage errors.
STATUS_BY_CODE: Mapping[str, int] = {
    "message_invalid": 422,
    "protocol_version_mismatch": 400,
    "not_authenticated": 401,
    "not_allowed": 403,
    "not_a_member": 403,
    "agent_runs_twice": 409,
    "request_signature_invalid": 401,
    "request_replayed": 401,
    "clock_skewed": 401,
    "too_many_requests": 429,
    "signature_invalid": 422,
    "invitation_invalid": 403,
    "member_conflict": 409,
    "manifest_unsigned": 409,
    "manifest_mismatch": 409,
    "card_invalid": 422,
    "federation_mismatch": 422,
    "certificate_expired": 422,
    "not_found": 404,
    "route_unknown": 404,
    "share_invalid": 422,
    "key_invalid": 422,
    "statistic_too_large": 422,
    "sum_implausible": 422,
    "mean_too_coarse": 422,
    "attempt_refused": 409,
    "policy_refused": 403,
    "illegal_transition": 409,
    "round_closed": 409,
    "run_conflict": 409,
    "update_conflict": 409,
    "upload_superseded": 409,
    "upload_offset_mismatch": 409,
    "lease_lost": 409,
    "length_required": 411,
    "blob_too_large": 413,
    "body_too_slow": 408,
    "blob_truncated": 400,
    "digest_mismatch": 400,
    "layout_mismatch": 422,
    "values_not_finite": 422,
    "storage_full": 507,
    "storage_read_only": 507,
    "audit_broken": 500,
    "blob_missing": 500,
    "blob_corrupt": 500,
    "store_busy": 503,
    "database_too_new": 500,
    "backup_invalid": 500,
    "version_conflict": 503,
}

TITLES: Mapping[int, str] = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    411: "Length required",
    413: "Too large",
    422: "Not understood",
    429: "Too many requests",
    500: "The coordinator failed",
    503: "Try again",
    507: "The coordinator cannot store anything",
}

RETRY_AFTER_SECONDS: Mapping[int, int] = {429: 1, 503: 1, 507: 10}


def problem(status: int, code: str, detail: str) -> Problem:
    """Return a problem document (RFC 9457)."""
    return Problem(title=TITLES.get(status, "Problem"), status=status, code=code, detail=detail[:MESSAGE_CHARACTERS])


def faults(found: Iterable[Mapping[str, Any]]) -> tuple[Fault, ...]:
    """Return what pydantic has found wrong with a request, value by value: the path within its body or query."""
    told = (Fault(where=_where(fault["loc"]), message=str(fault["msg"]).removeprefix(BY_US)[:1000]) for fault in found)
    return tuple(islice(told, MOST_FAULTS))


def _where(parts: Sequence[str | int]) -> str:
    """Return a value's path; the first part says only whether it is of the body or of the query."""
    return ".".join(str(part) for part in parts[1:])[:400]


def problems(*errors: type[FedCoLLMError]) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that may raise these errors, and so names, besides what all may."""
    statuses = {400, 401, 403, 408, 413, 422, 429, 503, 507} | {STATUS_BY_CODE[error.code] for error in errors}
    return {
        status: {
            "description": _description(status, errors),
            "content": {PROBLEM_TYPE: {"schema": Problem.model_json_schema()}},
        }
        for status in sorted(statuses)
    }


def _description(status: int, errors: Collection[type[FedCoLLMError]]) -> str:
    codes = ", ".join(error.code for error in errors if STATUS_BY_CODE[error.code] == status)
    return f"{TITLES[status]}: {codes}" if codes else TITLES[status]
