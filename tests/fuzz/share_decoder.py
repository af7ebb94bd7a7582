"""The decoder of shares: whatever a hostile member seals, or puts in place of it, ends in an error of the tree.

The first byte of the input says what the rest is: the text that travels, what was sealed under the right key, or the
shares that come out, 33 bytes each, as many as the threshold.
"""

from shared.errors import FedCoLLMError
from shared.protocol.identity import to_text
from shared.protocol.secagg.sealing import Shares, is_dealt, private_key, public_of, seal, unseal
from shared.protocol.secagg.shamir import PRIME, SHARE_BYTES, combine, decode, split

TEXT, SEALED, SHARES = b"\x00", b"\x01", b"\x02"
ADA, BOB, CONTEXT, SECRET = private_key(b"a" * 32), private_key(b"b" * 32), b"c" * 32, b"s" * 32
FROM_ADA, FOR_BOB = public_of(b"a" * 32), public_of(b"b" * 32)
THRESHOLD = 3
_SPLIT = split(SECRET, threshold=THRESHOLD, count=THRESHOLD, random_below=lambda _: 7)

SEEDS = (
    TEXT + seal(Shares(*_SPLIT[:2]), ADA, FOR_BOB, CONTEXT, dealer="ada", holder="bob").encode(),
    TEXT + to_text(bytes(48)).encode(),
    TEXT + "ä=-_ \n".encode(),
    SEALED + b"".join(_SPLIT[:2]),
    SEALED + PRIME.to_bytes(SHARE_BYTES, "big") * 2,
    SEALED + bytes(65),
    SEALED + bytes(67),
    SHARES + b"".join(_SPLIT),
    SHARES + b"".join([*_SPLIT[:2], bytes(33)]),
    SHARES + PRIME.to_bytes(SHARE_BYTES, "big") * 3,
    SHARES + (PRIME - 1).to_bytes(SHARE_BYTES, "big") * 3,
)


def target(data: bytes) -> None:
    """Decode ``data``."""
    kind, rest = data[:1], data[1:]
    try:
        if kind == SHARES:
            _put_together([rest[SHARE_BYTES * place :][:SHARE_BYTES] for place in range(THRESHOLD)])
            return
        text = rest.decode("latin-1")
        if kind == SEALED:
            shares = Shares(rest[:SHARE_BYTES], rest[SHARE_BYTES:])
            text = seal(shares, ADA, FOR_BOB, CONTEXT, dealer="ada", holder="bob")
        is_dealt(rest, "own_mask", text, CONTEXT, dealer="ada", holder="bob")
        shares = unseal(text, BOB, FROM_ADA, CONTEXT, dealer="ada", holder="bob")
        assert len(shares.mask_secret) == len(shares.own_mask) == SHARE_BYTES
        assert is_dealt(shares.own_mask, "own_mask", text, CONTEXT, dealer="ada", holder="bob")
        assert 0 <= decode(shares.mask_secret) < PRIME
        assert 0 <= decode(shares.own_mask) < PRIME
    except FedCoLLMError:
        pass


def _put_together(shares: list[bytes]) -> None:
    secret = combine(dict(enumerate(shares, 1)))
    assert len(secret) == len(SECRET)
    assert shares != _SPLIT or secret == SECRET
