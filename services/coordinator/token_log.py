"""Whose tokens a coordinator takes is decided in a file, and logged when the coordinator notices."""

from collections.abc import Mapping

from services.coordinator.ports import Store
from services.coordinator.progress import SYSTEM
from services.coordinator.records import Detail
from services.coordinator.tokens import TokenEntry, Tokens

# Tells one token of a principal from the next, and says nothing of either.
LETTERS = 8


class TokenLog:
    """Logs changes of the tokens that are known."""

    def __init__(self, store: Store, tokens: Tokens) -> None:
        """The tokens that are known now have been logged with the start."""
        self._store = store
        self._tokens = tokens
        self._logged = tokens.entries()

    def catch_up(self) -> None:
        """Log whose tokens are known, if that has changed."""
        known = self._tokens.entries()
        if known != self._logged:
            with self._store.write() as tx:
                tx.audit.append(SYSTEM, "tokens.changed", "tokens", told(known))
            self._logged = known


def told(entries: Mapping[str, TokenEntry]) -> Detail:
    """Return what the log says of tokens: whose they are, as what, until when, and the beginning of each one's hash."""
    return {
        name: {
            "role": entry.role,
            "not_after": entry.not_after.isoformat(timespec="seconds"),
            "sha256": entry.token_sha256[:LETTERS],
        }
        for name, entry in sorted(entries.items())
    }
