"""The example of docs/protocol.md: what is shown is what is signed, and every line of it is checked."""

import base64
import re
from pathlib import Path

from shared.protocol.digests import digest_of, to_field
from shared.protocol.identity import IdentityKey, public_key
from shared.protocol.request_signatures import require_fresh, sign_request, verify_request

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
SECTION = PAGE.split("## Signatures\n")[1].split("\n## ")[0]
REQUEST, SIGNED = re.findall(r"```(?:http|text)\n(.*?)\n```", SECTION, re.DOTALL)
LINE, *FIELDS = REQUEST.splitlines()
METHOD, TARGET, _ = LINE.split()
KEY = IdentityKey(bytes(range(32)))
BODY = b"hello"


def test_the_request_is_what_an_agent_sends():
    """To the byte, from the key, the body, the time and the nonce that are named."""
    fields = dict(line.split(": ", 1) for line in FIELDS)
    signature = sign_request(
        "clinic-a",
        KEY,
        "clinics",
        method=METHOD,
        target=TARGET,
        digest=digest_of(BODY),
        length=len(BODY),
        now=1_800_000_000,
        nonce="xYzVt0cSo8Q1b2mJw9RkPg",
    )
    assert fields == {"Content-Length": "5", "Content-Digest": to_field(digest_of(BODY)), **signature}
    signed = verify_request(METHOD, TARGET, fields.items(), name="clinic-a", key=KEY.public)
    require_fresh(signed, 1_800_000_000)


def test_the_lines_are_what_the_signature_is_over():
    """By the key that the page names, with nothing but Ed25519."""
    assert KEY.public in SECTION
    (signature,) = re.findall(r"^Signature: fedcollm=:(.*):$", REQUEST, re.MULTILINE)
    public_key(KEY.public).verify(base64.b64decode(signature), SIGNED.encode())
