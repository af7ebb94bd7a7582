"""What a request says that goes on with an upload which broke off (draft-ietf-httpbis-resumable-upload).

HEAD asks how many bytes of it are durable, and PATCH brings the rest. Both name the digest of the whole, because what
they carry themselves is another message with another digest (docs/protocol.md, "Blobs").
"""

from collections.abc import Mapping

from shared.protocol.digests import to_field

WHOLE_FIELD = "Repr-Digest"
OFFSET_FIELD = "Upload-Offset"
COMPLETE_FIELD = "Upload-Complete"
COMPLETE = "?1"
PARTIAL_TYPE = "application/partial-upload"

# What an agent signs besides, by the method of its request.
SIGNED_BESIDES: Mapping[str, tuple[str, ...]] = {
    "HEAD": (WHOLE_FIELD,),
    "PATCH": (WHOLE_FIELD, OFFSET_FIELD, COMPLETE_FIELD),
}


def offset_fields(whole: str) -> dict[str, str]:
    """Return the fields that ask how much of the upload is durable whose digest is ``whole``."""
    return {WHOLE_FIELD: to_field(whole)}


def append_fields(whole: str, offset: int) -> dict[str, str]:
    """Return the fields of a request that brings all bytes of an upload from ``offset`` on."""
    return {WHOLE_FIELD: to_field(whole), OFFSET_FIELD: str(offset), COMPLETE_FIELD: COMPLETE}
