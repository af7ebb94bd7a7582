"""Text from elsewhere, as it may be shown: a terminal obeys some characters, and a log has lines."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
LAYOUT = frozenset("\n\t")


def printable(text: str) -> str:
    """Return ``text`` with every character that would move, colour, hide or turn other text replaced, and as long."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in LAYOUT else REPLACEMENT for each in text)
