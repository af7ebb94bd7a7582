"""The table of errors: each stable code with what it means and what to do, as the docstring of its class says."""

import re

from guides.schemas import table
from services.coordinator.routes.problems import STATUS_BY_CODE
from shared.errors import FedCoLLMError
from shared.errors.advice import errors_with_codes, explained


def error_table() -> str:
    """Return the table in Markdown, in the order of the codes."""
    rows = []
    for kind in sorted(errors_with_codes(), key=lambda kind: kind.code):
        meaning, advice = explained(kind)
        rows.append([f'<code id="{kind.code}">{kind.code}</code>', _status(kind), _linked(meaning), _linked(advice)])
    return table(["code", "HTTP", "what it means", "what to do"], rows)


def _status(kind: type[FedCoLLMError]) -> str:
    return str(STATUS_BY_CODE.get(kind.code, ""))


def _linked(text: str) -> str:
    """Return text whose names of pages are links, and whose code is Markdown's."""
    text = text.replace("``", "`")
    return re.sub(r"docs/(([\w-]+\.md)(?:#[\w-]+)?)", r"[\2](\1)", text)
